"""The data of a recipe: four fixed, disjoint splits, ready to be fed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.loading.arrays import Samples
from adaptkit.loading.batches import Batches
from adaptkit.loading.sources import read_source
from adaptkit.loading.splits import Indices, hold_out, mixed, split_train
from adaptkit.metrics.task import device_of, first_output, is_number
from adaptkit.progress import Progress
from adaptkit.specs import DataSpec, Normalization

_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Data:
    """The four splits of a data set; no sample is in two of them.

    Args:
        train: Shuffled, and augmented where the recipe says so.
        validation: For decisions; in fixed order, as the next two.
        calibration: For statistics.
        test: For the report.
        labels: Names of the classes; none where targets are real numbers.
        mean: Per channel, as applied to images in [0, 1]; None where nothing is.
        std: The same.
        sample_shape: Shape of one input, without the batch.
        sha256: Of the content.
    """

    train: Batches
    validation: Batches
    calibration: Batches
    test: Batches
    labels: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sample_shape: tuple[int, ...]
    sha256: str

    @property
    def has_numbers(self) -> bool:
        """Whether the targets are real numbers, and not classes."""
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """How many outputs a model needs: one for each class, or one for a number."""
        return len(self.labels) or 1


def load_data(spec: DataSpec, seed: int, folder: Path = Path(), progress: Progress | None = None) -> Data:
    """Read, check and split the data a recipe names.

    The test split is the source's own where it has one. Validation (unless the source has it) and calibration are
    taken out of train, class by class. Validation and calibration come in an order that the seed draws, so
    that their first samples are of all classes; the test split keeps the order of its source.

    Args:
        spec: The recipe's section.
        seed: Source of the splits, and of order and augmentation of train.
        folder: The recipe's folder, where relative paths start.
        progress: Shows how far the decoding of images is.

    Raises:
        DataError: Anything missing, broken or wrong, named with its file.

    Example:
        >>> data = load_data(DataSpec(digits=True, validation=100, calibration=200), seed=0)
        >>> data.sample_shape, data.num_outputs, data.train.num_samples + 300 + data.test.num_samples
        ((1, 8, 8), 10, 1797)
    """
    source = read_source(spec, folder, progress)
    train, test = source.train, source.test
    pool: Indices = np.arange(len(train.y))
    tested: Indices = np.arange(0 if test is None else len(test.y))
    if test is None:
        test = train
        pool, tested = hold_out(train.strata, spec.test, seed, "test", source.origin)
    wanted = 0.0 if source.validation is not None else spec.validation
    splits = split_train(train.strata[pool], wanted, spec.calibration, seed, source.origin)
    own = source.validation
    held = (train, pool[splits.validation]) if own is None else (own, mixed(np.arange(len(own.y)), seed))
    for name, split in (("validation", held[0].y[held[1]]), ("test", test.y[tested])):
        if train.has_numbers and len(np.unique(split)) < 2:
            raise DataError(
                f"{source.origin}: all targets of {name} are the same: nothing can be measured; hold out more"
            )
    feeder = _Feeder(spec, seed, source.origin, train)
    return Data(
        train=feeder.feed(train, pool[splits.train], training=True),
        validation=feeder.feed(*held),
        calibration=feeder.feed(train, pool[splits.calibration]),
        test=feeder.feed(test, tested),
        labels=source.labels,
        mean=feeder.mean,
        std=feeder.std,
        sample_shape=feeder.sample_shape,
        sha256=source.sha256,
    )


def check_fits(data: Data, model: nn.Module) -> int:
    """Run two samples through a model, and see whether it takes them and has the outputs that the targets need.

    Returns:
        How many outputs it has.

    Raises:
        DataError: It does not; the message gives both shapes.
    """
    x, _ = next(iter(data.calibration.with_batch_size(2)))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            output = first_output(model(x.to(device_of(model))))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        takes = _input_of(model)
        text = str(error).strip().split("\n")[0]
        raise DataError(
            f"the data does not fit the model: samples are {_times(data.sample_shape)}{takes} ({text})"
        ) from error
    finally:
        model.train(training)
    problem = _outputs_problem(data, tuple(output.shape[1:]))
    if problem:
        raise DataError(f"the data does not fit the model: {problem}")
    return int(output[0].numel())


def _outputs_problem(data: Data, shape: tuple[int, ...]) -> str:
    given = f"the model's output for a sample is {_times(shape)}"
    if data.has_numbers:
        found = f"targets are real numbers, one a sample, {given}; give classes as whole numbers, not as floats"
        return "" if is_number(shape) else found
    if len(shape) == 1 and shape[0] >= data.num_outputs:
        return ""
    hint = "; give numbers to predict as floats" if is_number(shape) else ""
    return f"there are {data.num_outputs} classes, {given}{hint}"


@dataclass(frozen=True)
class _Feeder:
    """Makes batches of samples as the recipe says."""

    spec: DataSpec
    seed: int
    origin: str
    example: Samples

    def __post_init__(self) -> None:
        shape = self.sample_shape
        if (self.spec.augment or self.mean) and len(shape) != 3:
            raise DataError(f"{self.origin}: normalize and augment are for images; samples are {_times(shape)}")
        if self.mean is not None and len(self.mean) != shape[0]:
            raise DataError(f"{self.origin}: normalize has {len(self.mean)} channels, samples are {_times(shape)}")

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Per channel."""
        normalization = self._normalization()
        return None if normalization is None else normalization.mean

    @property
    def std(self) -> tuple[float, ...] | None:
        """Per channel."""
        normalization = self._normalization()
        return None if normalization is None else normalization.std

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """As a model sees it: channels first."""
        x = self.example.x
        return (x.shape[3], x.shape[1], x.shape[2]) if x.dtype == np.uint8 else tuple(x.shape[1:])

    def feed(self, samples: Samples, index: Indices, training: bool = False) -> Batches:
        """Make the batches of one split."""
        return Batches(
            _tensor(samples.x),
            torch.from_numpy(samples.y),
            torch.from_numpy(index),
            batch_size=self.spec.batch_size,
            shuffle=training,
            augment=self.spec.augment if training else (),
            mean=self.mean,
            std=self.std,
            seed=self.seed,
        )

    def _normalization(self) -> Normalization | None:
        if isinstance(self.spec.normalize, Normalization):
            return self.spec.normalize
        return _IMAGENET if self.spec.normalize == "imagenet" else None


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that a read-only map must not be written to; batches are copies, so it never is.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _input_of(model: nn.Module) -> str:
    """Say what the first layer takes."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return f", the model's first convolution takes {module.in_channels} channels"
        if isinstance(module, nn.Linear):
            return f", the model's first linear layer takes {module.in_features} features"
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"
