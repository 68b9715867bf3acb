"""Whom a model betrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

from adaptkit.study.base import Study
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.metrics.membership import Train
    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject

_LEAST = -700.0
"""A probability that is rounded to 0 has no logarithm; below this, its exponential is 0 too."""


class Membership(Study):
    """Share of the training samples that an attacker finds where few others are accused (`lira_attack`, `tpr_at_fpr`).

    Shadow networks of the same structure are trained from new weights, by `fit`, on samples drawn from train and test
    split alike; the answers of what is served are held against theirs. The figure is one of a leak only where the
    train split is what the model was trained on; and the less `fit` is like that training, the more it falls short. No
    attack is no better than `fpr`. The interval is exact, of the threshold too.
    """

    name: ClassVar[str] = "membership"

    fpr: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the others that may be accused; the test split needs 10 / fpr samples."""
    shadows: Annotated[int, Field(ge=2)] = 16
    """Shadow networks."""
    epochs: Annotated[float, Field(gt=0)] = 20
    """Training of each."""
    fit: FitSettings = FitSettings()
    """How each is trained."""
    samples: PositiveInt = 5000
    """Of either split, drawn where there are more; shadow networks are trained on as many."""
    seed: int = 0
    """Source of the draws and of the shadow networks."""

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model."""
        import torch

        from adaptkit.metrics.forms import log_probabilities
        from adaptkit.metrics.measured import as_value
        from adaptkit.metrics.membership import (
            lira_offline,
            membership_confidence,
            require_enough,
            shadow_confidences,
            tpr_at_fpr,
        )
        from adaptkit.study.subject import together

        splits = (subject.data.train, subject.data.test)
        drawn = [subject.draw(split, self.samples, self.seed) for split in splits]
        require_enough(drawn[1].num_samples, self.fpr)
        members, others = (together(each) for each in drawn)
        network = subject.find_network()
        normalized = [(subject.normalized(x), y) for x, y in (members, others)]
        found = shadow_confidences(self._train(network), *normalized, shadows=self.shadows, seed=self.seed)
        served = torch.cat([torch.from_numpy(subject.outputs(x)) for x, _ in (members, others)])
        logits = log_probabilities(served).clip(min=_LEAST)
        scores = lira_offline(membership_confidence(logits, torch.cat([members[1], others[1]])), *found)
        count = len(members[1])
        rate = tpr_at_fpr(scores[:count], scores[count:], self.fpr)
        return {self.name: as_value(rate, len(scores), False)}

    def _train(self, network: nn.Module) -> Train:
        from adaptkit.loading.batches import as_batches
        from adaptkit.study.retrained import fresh
        from adaptkit.training.fit import fit

        def train(x: Tensor, y: Tensor, seed: int) -> nn.Module:
            shadow = fresh(network, seed)
            fit(shadow, as_batches((x, y), shuffle=True, seed=seed), epochs=self.epochs, settings=self.fit, seed=seed)
            return shadow

        return train
