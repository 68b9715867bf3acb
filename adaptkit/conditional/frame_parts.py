"""A network in parts for video: segments that can be made tile by tile, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import onnx

from adaptkit.export.cut import split
from adaptkit.export.files import write_model
from adaptkit.export.packaging import Packaging
from adaptkit.export.reach import Reach, free_size, reaches
from adaptkit.export.staged import describe_value
from adaptkit.runtime.early_exit import Value
from adaptkit.runtime.frame_cache import OpenNetwork
from adaptkit.runtime.frame_manifest import FramePlan, FramesManifest, Segment, Tolerance
from adaptkit.runtime.manifest import describe
from adaptkit.runtime.regions import lay_out
from adaptkit.runtime.session import open_session

WHOLE, REST = "model.onnx", "parts/rest.onnx"
EXACT = Tolerance(tau=0.0, few=0)
_FEWEST = 2
"""Tiles along an axis: with fewer there is nothing to skip."""


@dataclass(frozen=True)
class Parts:
    """A network that is cut at some feature maps.

    Args:
        whole: The network.
        segments: Take and give feature maps of the size that the network's input leads to.
        rest: What comes behind them.
        plan: How they work together.
    """

    whole: onnx.ModelProto
    segments: tuple[onnx.ModelProto, ...]
    rest: onnx.ModelProto
    plan: FramePlan

    def open(self, threads: int = 1) -> OpenNetwork:
        """Open them on ONNX Runtime, in memory."""
        segments = [open_session(free_size(part).SerializeToString(), threads) for part in self.segments]
        whole = open_session(self.whole.SerializeToString(), threads)
        rest = open_session(self.rest.SerializeToString(), threads) if segments else whole
        return OpenNetwork(whole, segments, rest, self.plan)


def in_parts(
    proto: onnx.ModelProto, cuts: Sequence[str], side: int = 32, refresh_every: int = 300, longest_wait: int = 64
) -> Parts:
    """Cut a network, and lay tiles over the maps; cuts so deep that a tile needs the whole map are left out.

    Args:
        proto: With the shapes of its values.
        cuts: From `map_cuts`, in order; there may be none.
        side: Of a tile, in pixels of the frame, about.
        refresh_every: As in the plan.
        longest_wait: As in the plan.

    Returns:
        Parts that tolerate no change at all.
    """
    source = proto.graph.input[0]
    infos = {value.name: value for value in (source, *proto.graph.value_info)}
    segments: list[Segment] = []
    stride = 1
    for start, end in zip((source.name, *cuts), cuts, strict=False):
        reach = reaches(proto.graph, start)[end]
        stride *= reach.stride
        takes, gives = describe_value(infos[start]), describe_value(infos[end])
        segment = _segment(len(segments), takes, gives, reach, side / stride)
        if segment is None:
            break
        segments.append(segment)
    final = proto.graph.output[0].name
    *parts, rest = split(proto, cuts[: len(segments)], [*([] for _ in segments), [final]])
    plan = FramePlan(
        whole=WHOLE,
        frame=describe_value(source),
        segments=tuple(segments),
        rest=REST if segments else WHOLE,
        tolerances=(EXACT,) * (len(segments) + 1),
        most=segments[0].most if segments else 0,
        refresh_every=refresh_every,
        longest_wait=longest_wait,
    )
    return Parts(proto, tuple(parts), rest, plan)


def _segment(number: int, takes: Value, gives: Value, reach: Reach, wanted: float) -> Segment | None:
    size = gcd(*gives.shape[1:])
    tile = min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: (abs(n - wanted), n))
    axes = [lay_out(n, reach.stride, tile, reach.before, reach.after) for n in takes.shape[1:]]
    if any(len(axis.starts) < _FEWEST or axis.length >= n for axis, n in zip(axes, takes.shape[1:], strict=True)):
        return None
    return Segment(
        file=f"parts/{number}.onnx",
        takes=takes,
        gives=gives,
        stride=reach.stride,
        before=reach.before,
        after=max(0, reach.after),
        tile=tile,
        most=len(axes[0].starts) * len(axes[1].starts),
    )


def write_parts(parts: Parts, folder: Path, packaging: Packaging) -> None:
    """Write the files of a network in parts, and then the manifest that names them.

    Where the files normalize, tau counts pixels in [0, 1]: that of the channel with the least deviation.

    Args:
        parts: Stay as they are.
        folder: Is there.
        packaging: Of the files that take frames.
    """
    packaging.write(onnx.ModelProto.FromString(parts.whole.SerializeToString()), folder / WHOLE)
    if parts.segments:
        (folder / REST).parent.mkdir(exist_ok=True)
        first, *others = map(free_size, parts.segments)
        packaging.write(first, folder / parts.plan.segments[0].file)
        for part, settings in zip(others, parts.plan.segments[1:], strict=True):
            write_model(part, folder / settings.file)
        write_model(onnx.ModelProto.FromString(parts.rest.SerializeToString()), folder / REST)
    plan = parts.plan
    if packaging.spec.normalize_in_graph and packaging.std:
        seen, *behind = plan.tolerances
        plan = plan.tolerating((Tolerance(tau=seen.tau * min(packaging.std), few=seen.few), *behind))
    FramesManifest(files=describe(folder), plan=plan).write(folder)


def shortened(parts: Parts, limits: Sequence[int]) -> Parts:
    """Keep as many segments as there are limits, and set those; what comes behind becomes the rest.

    Args:
        parts: With as many segments at least.
        limits: Of tiles, beyond which the whole map is made.
    """
    kept = [part.model_copy(update={"most": most}) for part, most in zip(parts.plan.segments, limits, strict=False)]
    final = parts.whole.graph.output[0].name
    protos = split(parts.whole, [part.gives.name for part in kept], [*([] for _ in kept), [final]])
    plan = parts.plan.model_copy(update={"segments": tuple(kept), "tolerances": parts.plan.tolerances[: len(kept) + 1]})
    return Parts(parts.whole, tuple(protos[:-1]), protos[-1], plan)
