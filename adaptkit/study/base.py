"""The contract of a study: settings in, figures with intervals out.

Modules that define a Study import torch inside their methods only, so that recipes are checked without loading it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from adaptkit.errors import DataError, ModelError

if TYPE_CHECKING:
    from adaptkit.report.schema import MetricValue
    from adaptkit.study.subject import Subject


class Study(BaseModel):
    """A measurement that runs a model on more than the test split as it is; its fields are the keys in a recipe.

    It stands among the `metrics` of a recipe, `name: {settings}` or the name alone. It sees what is written to be
    served, never only the PyTorch model behind it; what it fits to the data, it fits on another
    split than the one it judges on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    of_images: ClassVar[bool] = False
    """Whether samples have to be images."""
    of_classes: ClassVar[bool] = True
    """Whether targets have to be classes."""

    def problem(self, sample_shape: tuple[int, ...]) -> str | None:
        """Say why it does not fit the data, or None."""
        if not self.of_images or len(sample_shape) == 3:
            return None
        shape = " × ".join(map(str, sample_shape)) or "one number"
        return f"needs images, C × H × W; samples are {shape}"

    def measure(self, subject: Subject) -> dict[str, MetricValue]:
        """Measure a model; names of figures are that of the study, or begin with it and a dot.

        Raises:
            DataError: The data does not fit.
            ModelError: The model does not, or has no gradient where one is needed.
        """
        raise TypeError(f"{type(self).__name__} defines no measure()")

    def measured(self, subject: Subject, strict: bool = True) -> dict[str, MetricValue]:
        """Measure a model; unless strict, what is not defined for it has no value, and the reason beside it."""
        from adaptkit.report.schema import MetricValue

        try:
            if self.of_classes and subject.data.has_numbers:
                raise DataError("it is of classes, and the targets are real numbers")
            return self.measure(subject)
        except (DataError, ModelError) as error:
            if strict:
                raise type(error)(f"{self.name}: {error}") from error
            problem = MetricValue(value=None, samples=0, higher_is_better=True, problem=str(error))
            return {self.name: problem}


def measure_all(studies: tuple[Study, ...], subject: Subject, strict: bool = True) -> dict[str, MetricValue]:
    """Measure a model in several ways, one after the other."""
    return {name: value for study in studies for name, value in study.measured(subject, strict).items()}
