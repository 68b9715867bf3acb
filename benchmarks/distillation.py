"""What a teacher is worth: a small student trained with each kind of distillation, and without a teacher.

    python benchmarks/distillation.py

Digits of scikit-learn, 10 labelled samples a class, a short training. The teachers are the two networks of the zoo,
trained here on all of the training digits: the zoo's own weights were trained with label smoothing, after which a
teacher has little to say (Müller, Kornblith and Hinton 2019, "When does label smoothing help?", section 5); a line of
the table shows it. The student is a network of two convolutions. For each seed (first weights, samples, order) both
trainings see the same samples for the same number of steps with the same settings; what counts is the difference of
their test accuracies, and for the kinds that contain the loss of distill.logits, their difference to that as well.
Intervals are Student's t, 95 %, over the seeds. The settings were chosen on the validation digits, with other seeds.
The result goes to benchmarks/results/distillation.json.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from machine import RESULTS, machine
from scipy import stats
from torch import Tensor, nn

from adaptkit.distillation.quantized import QuantizedDistillation
from adaptkit.distillation.tasks import task_accuracies
from adaptkit.distillation.views import view
from adaptkit.loading.batches import Batches
from adaptkit.loading.data import Data, load_data
from adaptkit.metrics.task import accuracy
from adaptkit.specs import DataSpec
from adaptkit.technique import Context, Technique
from adaptkit.techniques import TECHNIQUES
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.index import builders

SEEDS = range(5)
FEWEST_SEEDS = 3  # the result is written after each seed from here on
SAMPLES_A_CLASS = 10
EPOCHS = 30
TEACHER_EPOCHS = 20
FIT = FitSettings(learning_rate=0.05)
WITH_LOGITS = ("distill.attention", "distill.features", "distill.multi_teacher", "distill.adversarial")
SMALL = 4  # pixels of the student's view across views
OLD_CLASSES = 5
BITS = 2  # of the quantized student's weights
STUDENT = "a student of two convolutions (8 and 16 channels) and a linear layer"

SECOND_TEACHER = {"python": "distillation:second_teacher"}
SMOOTHED = "distill.logits, teacher of the zoo (label smoothing)"
OUTPUTS: dict[str, dict[str, Any]] = {
    "distill.logits": {},
    SMOOTHED: {"teacher": {"zoo": "resnet_digits"}},
    "distill.decoupled": {},
    "distill.dist": {},
    "distill.attention": {},
    "distill.features": {},
    "distill.multi_teacher": {"teachers": [SECOND_TEACHER]},
    "distill.multi_teacher, by confidence": {"teachers": [SECOND_TEACHER], "weights": "confidence"},
    "distill.adversarial": {},
}


class Student(nn.Sequential):
    """Two convolutions of 8 and 16 channels and a linear layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        )


@dataclass(frozen=True)
class Setting:
    """One seed: the data of it and the student's first weights.

    Args:
        seed: Of samples, weights and order.
        data: All splits.
        few: The labelled samples.
        teacher: Trained.
    """

    seed: int
    data: Data
    few: Batches
    teacher: nn.Module

    def student(self, classes: int = 10) -> Student:
        """Give the untrained student."""
        torch.manual_seed(self.seed)
        return Student(classes)

    def context(self, **changes: Any) -> Context:
        """Give what a technique sees."""
        context = Context(
            example_inputs=(torch.zeros(2, 1, 8, 8),),
            train=self.few,
            validation=self.data.validation,
            calibration=self.few,
            teacher=self.teacher,
            seed=self.seed,
        )
        return context.replace(**changes)

    def plain(self, train: Batches | tuple[Tensor, Tensor] | None = None) -> nn.Module:
        """Train the student without a teacher."""
        student = self.student()
        fit(student, train or self.few, epochs=EPOCHS, settings=FIT, seed=self.seed)
        return student


def main() -> None:
    """Measure every kind, print and write."""
    torch.set_num_threads(1)
    data = digits()
    teacher = trained("resnet_digits")
    found: dict[str, dict[str, list[float]]] = {}
    result: dict[str, Any] = {
        "machine": machine(),
        "samples_a_class": SAMPLES_A_CLASS,
        "epochs": EPOCHS,
        "student": STUDENT,
        "teacher_accuracy": accuracy(teacher, data.test),
        "second_teacher_accuracy": accuracy(second_teacher(), data.test),
    }
    for count, seed in enumerate(SEEDS, start=1):
        setting = Setting(seed, data, few_samples(data.train, seed), teacher)
        for kind, figures in measured(setting).items():
            for name, value in figures.items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
        sys.stderr.write(f"seed {seed}: " + ", ".join(f"{k} {v['with'][-1]:.3f}" for k, v in found.items()) + "\n")
        if count >= FEWEST_SEEDS:
            result |= {"seeds": count, "kinds": {kind: summary(figures) for kind, figures in found.items()}}
            (RESULTS / "distillation.json").write_text(json.dumps(result, indent=1) + "\n")
    for kind, figures in result["kinds"].items():
        print(f"{kind:40} {figures}")


def digits() -> Data:
    """Read the data; its test split is the one that the zoo's weights have not seen."""
    return load_data(DataSpec(digits=True, validation=150, calibration=200, batch_size=25), seed=0)


def trained(name: str) -> nn.Module:
    """Train a network of the zoo on all training digits, without label smoothing."""
    torch.manual_seed(0)
    teacher = builders()[name]()
    fit(teacher, digits().train.with_batch_size(64), epochs=TEACHER_EPOCHS, settings=FIT, seed=0)
    return teacher


@cache
def second_teacher() -> nn.Module:
    """Give the teacher beside the first one."""
    return trained("lenet5_digits")


def few_samples(train: Batches, seed: int) -> Batches:
    """Draw the labelled samples of a seed, the same number of each class."""
    generator = torch.Generator().manual_seed(seed)
    assert train.index is not None
    shuffled = train.index[torch.randperm(len(train.index), generator=generator)]
    labels = train.y[shuffled]
    chosen = torch.cat([shuffled[labels == label][:SAMPLES_A_CLASS] for label in range(10)])
    return dataclasses.replace(train, index=chosen, seed=seed)


def measured(setting: Setting) -> dict[str, dict[str, float]]:
    """Train every kind once and give the test accuracies with and without a teacher."""
    test = setting.data.test
    alone = accuracy(setting.plain(), test)
    found: dict[str, dict[str, float]] = {}
    for kind, settings in OUTPUTS.items():
        found[kind] = {"with": accuracy(distilled(kind, setting, settings), test), "without": alone}
        if kind.partition(",")[0] in WITH_LOGITS:
            found[kind]["logits"] = found["distill.logits"]["with"]
    others: dict[str, Callable[[Setting], dict[str, float]]] = {
        "distill.cross_modal": small_view,
        "distill.lifelong": two_tasks,
        "distill.quantized": few_bits,
    }
    return found | {kind: measure(setting) for kind, measure in others.items()}


def distilled(kind: str, setting: Setting, settings: dict[str, Any], **changes: Any) -> nn.Module:
    """Train the student with a teacher."""
    technique: Technique = TECHNIQUES[kind.partition(",")[0]](epochs=EPOCHS, fit=FIT, **settings)
    return technique.apply(setting.student(), setting.context(**changes))


def small_view(setting: Setting) -> dict[str, float]:
    """A student of small images, taught by a teacher of the whole ones."""
    views = {"student_view": {"size": SMALL}}
    taught = distilled("distill.cross_modal", setting, views)
    alone = setting.plain(small(setting.few))
    test = small(setting.data.test)
    return {"with": accuracy(taught, test), "without": accuracy(alone, test)}


def small(batches: Batches) -> Batches:
    """Give the samples as the student of small images sees them, in the same order and batches."""
    x = batches.x.permute(0, 3, 1, 2).float() / 255 if batches.x.dtype == torch.uint8 else batches.x
    return dataclasses.replace(batches, x=view(x, None, SMALL))


def two_tasks(setting: Setting) -> dict[str, float]:
    """A student of the digits 0 to 4 learns 5 to 9: the mean accuracy of both, and each."""
    before = setting.student(OLD_CLASSES)
    fit(before, of_old_task(setting.data.train), epochs=EPOCHS, settings=FIT, seed=setting.seed)
    found = {"before_old": accuracy(before, of_old_task(setting.data.test))}
    for name, weight in (("with", 1.0), ("without", 0.0)):
        technique = TECHNIQUES["distill.lifelong"](new_classes=10 - OLD_CLASSES, epochs=EPOCHS, fit=FIT, weight=weight)
        student = technique.apply(copy.deepcopy(before), setting.context(teacher=before))
        both = task_accuracies(student, setting.data.test, OLD_CLASSES)
        assert both.old is not None
        assert both.new is not None
        found |= {name: (both.old + both.new) / 2, f"{name}_old": both.old, f"{name}_new": both.new}
    return found


def of_old_task(batches: Batches) -> Batches:
    """Leave out the samples of the new task."""
    assert batches.index is not None
    return dataclasses.replace(batches, index=batches.index[batches.y[batches.index] < OLD_CLASSES])


def few_bits(setting: Setting) -> dict[str, float]:
    """A student of few bits, which starts from the plain one: taught by the large teacher, or by targets alone."""
    plain = setting.plain()
    found = {"float": accuracy(plain, setting.data.test)}
    for name, alpha in (("with", 0.9), ("without", 0.0)):
        technique = QuantizedDistillation(
            epochs=EPOCHS, weight_bits=BITS, alpha=alpha, calibration=len(setting.few) * setting.few.batch_size
        )
        student = technique.apply(copy.deepcopy(plain), setting.context())
        found[name] = accuracy(student, setting.data.test)
    return found


def summary(figures: dict[str, list[float]]) -> dict[str, Any]:
    """Give the means, and the difference a teacher makes with its interval; `beats` where the interval is above 0."""
    low, centre, high = difference(figures["with"], figures["without"])
    result = {name: round(statistics.mean(values), 4) for name, values in figures.items()}
    result |= {"difference": centre, "low": low, "high": high, "beats": low > 0}
    if "logits" in figures:
        low, centre, high = difference(figures["with"], figures["logits"])
        result["over_logits"] = {"difference": centre, "low": low, "high": high, "beats": low > 0}
    return result


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Give the mean difference between its ends of Student's t interval, 95 %."""
    values = [a - b for a, b in zip(ours, theirs, strict=True)]
    centre, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return round(centre - reach, 4), round(centre, 4), round(centre + reach, 4)


if __name__ == "__main__":
    main()
