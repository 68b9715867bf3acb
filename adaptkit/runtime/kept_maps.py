"""Feature maps that are kept from frame to frame, and the segments that make parts of them anew."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.lib.stride_tricks import sliding_window_view

from adaptkit.runtime.frame_manifest import Segment, Tolerance
from adaptkit.runtime.regions import coarsen, lay_out, spread
from adaptkit.runtime.result import Array

Tiles = tuple[Array, Array]
"""Row and column numbers of tiles."""


class KeptMap:
    """What a part of the network read last: C × H × W, differing from what came by at most tau in every value.

    Places that changed by more are taken over, in all channels; others stay as they are, so that a slow drift is seen
    as soon as it has added up to more than tau.

    Args:
        shape: C, H, W.
        dtype: numpy's name of it.
        tolerance: What counts as no change.

    Example:
        >>> kept = KeptMap((1, 1, 3), "float32", Tolerance(tau=0.5, few=0))
        >>> kept.take(np.array([[[0.4, 0.6, 0]]], np.float32)), kept.values
        (array([[False,  True, False]]), array([[[0. , 0.6, 0. ]]], dtype=float32))
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, tolerance: Tolerance) -> None:
        self.values, self.tolerance = np.zeros(shape, dtype), tolerance
        self._tau = np.float32(tolerance.tau)
        self._waiting = np.zeros(shape[1:], bool)

    def fill(self, values: Array) -> None:
        """Take over everything."""
        np.copyto(self.values, values)
        self._waiting[:] = False

    def due(self, places: Array) -> Array | None:
        """Add places to those that wait; give all of them once they are more than few, and none wait any more."""
        self._waiting |= places
        if np.count_nonzero(self._waiting) <= self.tolerance.few:
            return None
        places, self._waiting = self._waiting, np.zeros_like(places)
        return places

    def changed(self, values: Array, kept: Array) -> Array:
        """Compare along axis −3; NaN counts as changed."""
        with np.errstate(invalid="ignore"):  # infinity less infinity
            apart = np.subtract(values, kept, dtype=np.float32)
        np.abs(apart, out=apart)
        return np.logical_not((apart <= self._tau).all(axis=-3))

    def take(self, values: Array) -> Array:
        """Take over the places that changed, and return them, H × W."""
        places = self.changed(values, self.values)
        if places.any():
            np.copyto(self.values, values, where=places)
        return places

    def take_tiles(self, values: Array, tiles: Tiles) -> Array:
        """Take over the places that changed in some tiles of N × C × side × side, and return them, H × W."""
        side = values.shape[-1]
        channels, height, width = self.values.shape
        grid = height // side, side, width // side, side
        kept_tiles = self.values.reshape(channels, *grid).transpose(1, 3, 0, 2, 4)
        kept = kept_tiles[tiles]
        changed = self.changed(values, kept)
        np.copyto(kept, values, where=changed[:, None])
        kept_tiles[tiles] = kept
        places = np.zeros((height, width), bool)
        places.reshape(grid).transpose(0, 2, 1, 3)[tiles] = changed
        return places


class OpenSegment:
    """A segment with its session and the layout of its tiles; holds nothing of any frame.

    Args:
        session: Of its file.
        settings: Its part of the manifest.
    """

    def __init__(self, session: ort.InferenceSession, settings: Segment) -> None:
        self._session, self.settings = session, settings
        self._rows, self._columns = (
            lay_out(size, settings.stride, settings.tile, settings.before, settings.after)
            for size in settings.takes.shape[1:]
        )
        self._back, self._ahead = -(-settings.before // settings.stride), max(0, settings.after // settings.stride)

    def tiles(self, places: Array) -> Tiles:
        """Find the tiles that changed input places go into."""
        seen = spread(coarsen(places, self.settings.stride), self._back, self._ahead)
        rows, columns = np.nonzero(coarsen(seen, self.settings.tile))
        return rows, columns

    def make(self, kept: Array, tiles: Tiles) -> Array:
        """Make tiles, N × C × side × side, of the whole input map C × H × W."""
        rows, columns = tiles
        shape = self._rows.length, self._columns.length
        windows = sliding_window_view(kept, shape, (1, 2)).transpose(1, 2, 0, 3, 4)
        given = self._run(windows[self._rows.starts[rows], self._columns.starts[columns]])
        side = self.settings.tile
        parts = sliding_window_view(given, (side, side), (2, 3)).transpose(0, 2, 3, 1, 4, 5)
        cut: Array = parts[np.arange(len(rows)), self._rows.offsets[rows], self._columns.offsets[columns]]
        return cut

    def make_all(self, kept: Array) -> Array:
        """Make the whole output map."""
        whole: Array = self._run(kept[None])[0]
        return whole

    def advance(self, source: KeptMap, target: KeptMap, tiles: Tiles) -> Array:
        """Bring the output map up to date where tiles changed, and return the places that did, H × W."""
        if len(tiles[0]) > self.settings.most:
            return target.take(self.make_all(source.values))
        return target.take_tiles(self.make(source.values, tiles), tiles)

    def _run(self, x: Array) -> Array:
        given: Array = self._session.run([self.settings.gives.name], {self.settings.takes.name: x})[0]
        return given
