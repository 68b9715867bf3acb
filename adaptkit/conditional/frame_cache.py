"""Frames of a video: what did not change is not computed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.errors import DataError
from adaptkit.technique import Context

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.frame_parts import Parts
    from adaptkit.conditional.frame_tests import Outcome
    from adaptkit.export.packaging import Packaging


@dataclass(frozen=True)
class CachedFrames:
    """A network over video, with the tolerances that were found.

    Args:
        cut: The network and its parts.
        outcome: What they do to the frames they were tested on.
        network: The whole network.
    """

    cut: Parts
    outcome: Outcome
    network: nn.Module

    @property
    def paths(self) -> tuple[str, ...]:
        """What is done for a frame."""
        return ("unchanged", "partial", "whole")

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The network, and its parts as if they always ran whole; with the share of the frames each runs for."""
        _, partial, whole = self.outcome.shares
        behind = [(part, partial) for part in (*self.cut.segments, self.cut.rest)] if self.cut.segments else []
        return [(self.cut.whole, whole), *behind]

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the network answers where it runs whole; the other answers depend on the frames before."""
        from adaptkit.metrics.task import first_output

        return [None, None, first_output(self.network(x))]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write model.onnx, the parts where there are some, and the manifest.

        Args:
            folder: Is there.
            packaging: Of the files that take frames.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written.
        """
        from adaptkit.conditional.frame_parts import write_parts

        write_parts(self.cut, folder, packaging)


class FrameCache(Conditional):
    """Compute of a video's frames only what changed since the last one.

    Where a frame differs from the one the last answer was made of by more than tau, in more than a few places, it is
    computed: whole, or, where that is measured to be faster, in parts, of which the first ones make only those tiles
    of their feature maps that changed places go into, as far as the layers look, and keep all others. What is kept is
    replaced only where it changed, so that slow drift adds up until it is seen: the answer is always the network's for
    inputs of its parts that are apart by no more than the tolerances. Those are raised as far as the answers agree
    with the network's on validation frames, with a one-sided bound. Frames that change too much, as scene cuts do, are
    computed whole; where many do in a row, changes are looked for ever more rarely.

    The validation data are consecutive frames. The bound takes them as independent, which frames of one video are not
    quite: give several scenes. Agreement is with the network given, as far as that is compressed already.

    Source: after Cavigelli, Degen and Benini 2017, "CBinfer: change-based inference for convolutional neural networks
    on video data"; tiles and whole parts are skipped in place of pixels, which dense kernels outrun.

    Example:
        >>> FrameCache(max_disagreement=0.02).refresh_every
        300
    """

    name: ClassVar[str] = "frame_cache"
    needs: ClassVar[frozenset[str]] = frozenset({"validation"})
    wraps: ClassVar[Literal["network", "artifact"]] = "network"

    max_disagreement: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Share of the frames whose answer may be another than the whole network's."""
    max_error: Annotated[float, Field(gt=0)] | None = None
    """‖y' − y‖ / ‖y‖ beyond which an answer counts as another, too; where None only the largest class counts."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the disagreement must hold."""
    parts: bool = True
    """Whether to try the network in parts; otherwise a frame is computed whole or not at all."""
    refresh_every: Annotated[int, Field(ge=1)] = 300
    """Frames, after which one is computed whole whatever changed."""
    longest_wait: Annotated[int, Field(ge=0)] = 64
    """Frames that are computed without looking for changes, at most, after many that changed too much."""

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> CachedFrames:
        """Find parts and tolerances."""
        from adaptkit.conditional.frame_calibration import find_plan
        from adaptkit.conditional.plain import PlainArtifact

        del original
        assert isinstance(inner, PlainArtifact)
        self._check_frames(context)
        return find_plan(self, inner, context, threads=1)

    def calibrate(self, network: nn.Module, context: Context, threads: int = 1) -> CachedFrames:
        """Find parts and tolerances for a network.

        Args:
            network: A classifier of images.
            context: With validation data: consecutive frames, normalized.
            threads: The parts are timed with.

        Raises:
            DataError: There are no validation frames, or they are no images.
            TargetError: Nothing is gained within the limit; says how far it got.
        """
        from adaptkit.conditional.frame_calibration import find_plan
        from adaptkit.conditional.plain import PlainArtifact

        self._check_frames(context)
        return find_plan(self, PlainArtifact(network, context.example_inputs), context, threads)

    def _check_frames(self, context: Context) -> None:
        if context.validation is None:
            raise DataError(f"{self.name} needs consecutive frames: give Context(validation=...)")
