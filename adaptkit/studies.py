"""The table of all studies, by the name that stands among the metrics of a recipe or of `adaptkit evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from adaptkit.study.attacked import KlRobustness, RobustAccuracy
from adaptkit.study.base import Study
from adaptkit.study.corrupted import Corruptions
from adaptkit.study.member import Membership
from adaptkit.study.sent import Communication
from adaptkit.study.smashed import SmashedData

STUDIES: dict[str, type[Study]] = {
    "robust_accuracy": RobustAccuracy,
    "kl_robustness": KlRobustness,
    "corruptions": Corruptions,
    "communication": Communication,
    "smashed_data": SmashedData,
    "membership": Membership,
}

Asked: TypeAlias = str | Study
"""What is to be measured: a name of `METRICS`, or a study with its settings."""


def metrics_of(asked: Sequence[Asked]) -> list[str]:
    """Give the names of the metrics among what is asked."""
    return [entry for entry in asked if isinstance(entry, str)]


def studies_of(asked: Sequence[Asked]) -> tuple[Study, ...]:
    """Give the studies among what is asked."""
    return tuple(entry for entry in asked if isinstance(entry, Study))
