"""What the worst small change of an input does to an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from adaptkit.study.base import Study

if TYPE_CHECKING:
    from adaptkit.metrics.adversary import Attack
    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject

_PIXELS = (0.0, 1.0)


class Attacked(Study):
    """What both studies of an adversary share: the ball, and how hard the search in it is."""

    radius: Annotated[float, Field(gt=0)] = 0.03
    """Of the ball around an input, as a share of the range of pixels: 0.03 is about 8 of 255."""
    norm: Literal["linf", "l2"] = "linf"
    """The largest change of a value, or the root of the sum of squares over an input."""
    steps: PositiveInt = 20
    """Of gradient ascent from each start; where more lower the figure, there were too few."""
    restarts: PositiveInt = 1
    """Random starts."""
    samples: Annotated[int, Field(ge=2)] = 500
    """Test samples, drawn where there are more."""
    seed: int = 0
    """Source of the draw, the starts and the bootstrap."""

    @property
    def attack(self) -> Attack:
        """The same for `most_harm`."""
        from adaptkit.metrics.adversary import Attack

        return Attack(self.radius, self.norm, self.steps, self.restarts, bounds=_PIXELS, seed=self.seed)


class RobustAccuracy(Attacked):
    """Accuracy where the worst change found near each image is made, an upper bound (`robust_accuracy_upper_bound`).

    Changes are searched on the PyTorch network and judged on what is served: a sample counts where it is right before
    and after. Of a conditional model that network is the one inside, so that changes for its exits are not found.
    `robust_accuracy.clean` is the accuracy on the same samples as they are. Intervals are exact.
    """

    name: ClassVar[str] = "robust_accuracy"

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        from adaptkit.metrics.classification import right
        from adaptkit.metrics.forms import top_classes
        from adaptkit.metrics.intervals import exact_share
        from adaptkit.metrics.measured import as_value
        from adaptkit.metrics.robustness import misleading
        from adaptkit.study.subject import together

        network = subject.network()
        x, y = together(subject.draw(subject.data.test, self.samples, self.seed))
        changed = misleading(network, x, y, self.attack)
        clean, robust = (right(top_classes(subject.outputs(each)), y) for each in (x, changed))
        held = clean & robust
        found = {self.name: held, f"{self.name}.clean": clean}
        return {name: as_value(exact_share(int(hits.sum()), len(y)), len(y), True) for name, hits in found.items()}


class KlRobustness(Attacked):
    """ψ = 1 / max KL(f(x) ‖ f(x + δ)), how far a small change can move the answer (`kl_robustness_upper_bound`).

    Changes are searched on the PyTorch network; the divergences are those of what is served, so that ψ of the file is
    at most this. In 1 / nats, with a bootstrap over samples.
    """

    name: ClassVar[str] = "kl_robustness"

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        import numpy as np

        from adaptkit.metrics.forms import log_probabilities
        from adaptkit.metrics.measured import as_value
        from adaptkit.metrics.robustness import farthest, kl_divergences, kl_robustness
        from adaptkit.study.subject import together

        network = subject.network()
        x, _ = together(subject.draw(subject.data.test, self.samples, self.seed))
        changed, _ = farthest(network, x, self.attack)
        # A probability of 0 has no logarithm; what is rounded to 0 is no larger than the smallest number.
        before, after = (
            np.maximum(log_probabilities(subject.outputs(each)), np.log(np.finfo(np.float64).tiny))
            for each in (x, changed)
        )
        found = kl_robustness(kl_divergences(before, after), seed=self.seed)
        return {self.name: as_value(found, len(x), True)}
