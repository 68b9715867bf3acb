"""What manifest.json says of a network that makes only those places of a frame anew that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from adaptkit.runtime.early_exit import Value
from adaptkit.runtime.manifest import Count, Manifest, Part, Positive


class Tolerance(Part):
    """How much of what a part reads may change before it runs again.

    Args:
        tau: A value that changed by no more than this counts as unchanged.
        few: With so many changed places, counted over all channels, the part does not run yet.
    """

    tau: Annotated[float, Field(ge=0)]
    few: Count


class Segment(Part):
    """A part of the network that is made tile by tile.

    Args:
        file: Name of its ONNX file, which takes crops of any size.
        takes: The feature map it reads, or the frame.
        gives: The feature map it makes.
        stride: Input places between two output places.
        before: Input places that output place p looks back from p · stride,
        after: and ahead.
        tile: Output places along the side of a tile.
        most: Beyond so many changed tiles the whole map is made: it is faster.
    """

    file: str
    takes: Value
    gives: Value
    stride: Positive
    before: Count
    after: Count
    tile: Positive
    most: Count

    @model_validator(mode="after")
    def _tiles_fit(self) -> Segment:
        if len(self.takes.shape) != 3 or len(self.gives.shape) != 3:
            raise ValueError("a segment takes and gives feature maps: channels, height, width")
        sides = zip(self.takes.shape[1:], self.gives.shape[1:], strict=True)
        if any(taken != given * self.stride or given % self.tile for taken, given in sides):
            raise ValueError(f"tiles of {self.tile} and a stride of {self.stride} do not fit the maps")
        return self


class FramePlan(Part):
    """How the parts of a network over video work together.

    Args:
        whole: Name of the file of the whole network.
        frame: What it takes.
        segments: In order, from the frame on; where there is none, a frame that changed is made whole.
        rest: Name of the file of all that comes behind the segments; the whole network's where there is none.
        tolerances: For every segment and for the rest: of what each reads.
        most: Beyond so many changed tiles of the first segment the whole frame is made.
        refresh_every: Frames, after which a frame is made whole whatever changed.
        longest_wait: Frames that are made whole without looking for changes, at most, after many that changed much.
    """

    whole: str
    frame: Value
    segments: tuple[Segment, ...]
    rest: str
    tolerances: Annotated[tuple[Tolerance, ...], Field(min_length=1)]
    most: Count
    refresh_every: Positive
    longest_wait: Count

    @model_validator(mode="after")
    def _fits_together(self) -> FramePlan:
        if len(self.tolerances) != len(self.segments) + 1:
            raise ValueError(f"{len(self.segments)} segments and a rest have {len(self.tolerances)} tolerances")
        if len(self.frame.shape) != 3:
            raise ValueError("a frame has channels, height, width")
        for segment, taken in zip(self.segments, self.reads, strict=False):
            if segment.takes != taken:
                raise ValueError(f"{segment.file} does not take what comes before it")
        if not self.segments and self.rest != self.whole:
            raise ValueError(f"{self.rest} would take frames, as {self.whole} does")
        return self

    @property
    def reads(self) -> tuple[Value, ...]:
        """What every segment and the rest take."""
        return (self.frame, *(segment.gives for segment in self.segments))

    def tolerating(self, tolerances: Sequence[Tolerance]) -> FramePlan:
        """Set the tolerances anew."""
        return self.model_copy(update={"tolerances": tuple(tolerances)})


class FramesManifest(Manifest):
    """A network over video.

    Args:
        plan: How the files work together.
    """

    kind: Literal["frame_cache"] = "frame_cache"
    plan: FramePlan

    @model_validator(mode="after")
    def _files_are_there(self) -> FramesManifest:
        known = {file.name for file in self.files}
        for name in (self.plan.whole, self.plan.rest, *(segment.file for segment in self.plan.segments)):
            if name not in known:
                raise ValueError(f"{name} is not among the files")
        return self
