"""What one inference sends over a network whose other end runs the rest of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from adaptkit.metrics.arrays import Array
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.resampling import percentile, resampled_counts
from adaptkit.study.base import Study

if TYPE_CHECKING:
    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject


class Communication(Study):
    """Bytes of one inference, up and down, and the seconds of a link (`inference_traffic`, `Link`).

    `communication` is the bytes both ways, then come `.up`, `.down` and, with a link, `.seconds`: means over the test
    samples, of which those that leave before the cut send nothing; a bootstrap over the samples that leave where.
    """

    name: ClassVar[str] = "communication"
    of_classes: ClassVar[bool] = False

    cut: Annotated[int, Field(ge=0)] = 0
    """The first stage of an early exit that runs on the server; 0 sends the input."""
    up: Annotated[float, Field(gt=0)] | None = None
    """Bits a second of the link to the server."""
    down: Annotated[float, Field(gt=0)] | None = None
    """Bits a second of the link back."""
    round_trip: Annotated[float, Field(ge=0)] | None = None
    """Seconds of the link until the answer to an empty message."""

    @model_validator(mode="after")
    def _whole_link(self) -> Communication:
        missing = [key for key in ("up", "down", "round_trip") if getattr(self, key) is None]
        if 0 < len(missing) < 3:
            raise ValueError(f"a link has up, down and round_trip; give {' and '.join(missing)} too")
        return self

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        import numpy as np

        from adaptkit.metrics.communication import Link, Traffic, traffic_of_exits
        from adaptkit.metrics.measured import as_value

        exits = traffic_of_exits(subject.path, self.cut)
        costs = {
            self.name: [each.up + each.down for each in exits],
            f"{self.name}.up": [each.up for each in exits],
            f"{self.name}.down": [each.down for each in exits],
        }
        if self.up is not None and self.down is not None and self.round_trip is not None:
            link = Link(self.up, self.down, self.round_trip)
            costs[f"{self.name}.seconds"] = [link.seconds(Traffic(each.up, each.down)) for each in exits]
        taken = subject.ways(len(exits))
        return {name: as_value(_mean(np.asarray(each), taken), int(taken.sum()), False) for name, each in costs.items()}


def _mean(costs: Array, taken: Array) -> Estimate:
    """Average what each way costs over the samples that take it; exact where all cost the same."""
    value = float(costs @ taken / taken.sum())
    if len(set(costs.tolist())) == 1:
        return Estimate(value, value, value, "exact: the same for every sample")
    return percentile(resampled_counts(lambda drawn: float(costs @ drawn / drawn.sum()), taken), value)
