"""Whether a sequence of layers is faster on ONNX Runtime than the layer it replaces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from adaptkit.profiling.layer_latency import LayerShape, TimeStore, chain_seconds, without_call


class PairTimes:
    """Measured time of replacements beside their originals, each pair once, without the time of an empty call.

    Args:
        path: JSON file that keeps the numbers; None keeps them in memory.
        threads: Threads of ONNX Runtime.
        batch_size: Samples in the timed input.

    Example:
        >>> times = PairTimes()
        >>> whole = LayerShape("linear", 512, 512)
        >>> parts = [LayerShape("linear", 512, 1), LayerShape("linear", 1, 512)]
        >>> times.ratio(whole, parts) == times.ratio(whole, parts)
        True
    """

    def __init__(self, path: Path | None = None, threads: int = 1, batch_size: int = 1) -> None:
        self.threads = threads
        self.batch_size = batch_size
        self._store = TimeStore(path)

    def ratio(self, layer: LayerShape, parts: Sequence[LayerShape]) -> float:
        """Return the time of the parts as a multiple of the layer's, both measured in turn."""

        def measure() -> float:
            measured = chain_seconds([[layer], parts], self.threads, self.batch_size)
            whole, split = (without_call(each, self._store, self.threads) for each in measured)
            return split / whole

        return self._store.get(self._key(layer, *parts), measure)

    def seconds(self, layer: LayerShape) -> float:
        """Return the time of the layer inside a network."""

        def measure() -> float:
            measured = chain_seconds([[layer]], self.threads, self.batch_size)[0]
            return without_call(measured, self._store, self.threads)

        return self._store.get(self._key(layer), measure)

    def _key(self, *shapes: LayerShape) -> str:
        described = {"layers": [asdict(shape) for shape in shapes], "threads": self.threads, "batch": self.batch_size}
        return json.dumps(described, sort_keys=True)
