"""Batches of (x, y): from arrays in memory or on disk, or from a loader of the user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import DataError
from adaptkit.loading.augment import AUGMENTATIONS

Batch: TypeAlias = tuple[Tensor, Tensor]

BatchSource: TypeAlias = "tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]"
"""A pair of tensors (x, y), or anything that yields (x, y) batches each time it is iterated, such as a DataLoader."""


class BatchStream(Protocol):
    """What `as_batches` returns: batches in an order that only depends on the seed and the epoch."""

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_batch` on, the same ones each time."""

    def with_batch_size(self, batch_size: int) -> BatchStream:
        """Return the same samples in batches of another size."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Samples of an array, fed in batches: float32 N × C × H × W (or as the array has it) and int64 labels.

    Order and augmentation of a batch depend on (seed, epoch, batch index) and nothing else, so that training can go
    on in the middle of an epoch. Shuffled batches are cut evenly, so that none is tiny; in fixed order the last may be.

    Args:
        x: uint8 images N × H × W × C, which are scaled to [0, 1]; anything else is fed as it is.
        y: One target a sample.
        index: Which samples to feed, in this order; all where None.
        batch_size: Samples in a batch.
        shuffle: Draw a new order each epoch.
        augment: Names of `AUGMENTATIONS`, applied in this order to images.
        mean: Per channel, taken from images in [0, 1].
        std: Per channel, images are divided by it afterwards.
        seed: Source of order and augmentation.

    Example:
        >>> batches = Batches(torch.zeros(5, 8, 8, 3, dtype=torch.uint8), torch.arange(5), batch_size=2)
        >>> [tuple(x.shape) for x, y in batches]
        [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    """

    x: Tensor
    y: Tensor
    index: Tensor | None = None
    batch_size: int = 128
    shuffle: bool = False
    augment: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be fed."""
        if self.batch_size < 1:
            raise DataError(f"a batch holds at least one sample; got batch_size={self.batch_size}")
        if len(self.x) != len(self.y):
            raise DataError(f"x has {len(self.x)} samples, y has {len(self.y)} labels")
        if self.num_samples == 0:
            raise DataError("there are no samples")
        if self.x.ndim != 4 and (self.augment or self.mean or self.x.dtype == torch.uint8):
            shape = tuple(self.x.shape)
            raise DataError(f"images are N × H × W × C (uint8) or N × C × H × W (float); got shape {shape}")

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return len(self.x) if self.index is None else len(self.index)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0."""
        return self.epoch(0)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_batch` on.

        Args:
            epoch: Number of the epoch; without shuffling and augmentation all epochs are the same.
            start_batch: Index of the first batch to yield.
        """
        order = self._order(epoch)
        for number in range(start_batch, len(self)):
            chosen = order[self._start(number) : self._start(number + 1)]
            yield self._inputs(chosen, epoch, number), self.y[chosen]

    def with_batch_size(self, batch_size: int) -> Batches:
        """Return the same samples in batches of another size."""
        return dataclasses.replace(self, batch_size=batch_size)

    def _start(self, number: int) -> int:
        """Position of a batch's first sample. A batch of one sample would stop batch normalization in training."""
        return self.num_samples * number // len(self) if self.shuffle else number * self.batch_size

    def _order(self, epoch: int) -> Tensor:
        index = torch.arange(len(self.x)) if self.index is None else self.index
        if not self.shuffle:
            return index
        return index[torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(len(index)))]

    def _inputs(self, chosen: Tensor, epoch: int, number: int) -> Tensor:
        x = self.x[chosen]
        pixels = x.dtype == torch.uint8
        if self.augment:
            rng = np.random.default_rng([self.seed, epoch, number])
            images = x if pixels else x.permute(0, 2, 3, 1)
            for name in self.augment:
                images = AUGMENTATIONS[name](images, rng)
            x = images if pixels else images.permute(0, 3, 1, 2)
        if pixels:
            x = x.permute(0, 3, 1, 2).float().div_(255)
        if self.mean is not None and self.std is not None:
            x = (x - _per_channel(self.mean)).div_(_per_channel(self.std))
        return x


@dataclass(frozen=True, eq=False)
class LoaderBatches:
    """The batches of a loader of the user's own, repeatable: its draws from torch's random state are seeded.

    Args:
        source: Yields (x, y) batches each time it is iterated.
        batch_size: Cut the samples anew into batches of this size; as the source does where None.
        seed: With the epoch and the number of the batch, the state of torch's generator while the source works.
    """

    source: Iterable[Batch]
    batch_size: int | None = None
    seed: int = 0

    @property
    def num_samples(self) -> int:
        """Samples in an epoch; reads the whole source once."""
        return sum(len(y) for _, y in self._seeded(0))

    def __len__(self) -> int:
        """Batches in an epoch; reads the whole source where it has no length itself."""
        if self.batch_size is not None:
            return -(-self.num_samples // self.batch_size)
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:
            return sum(1 for _ in self._seeded(0))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0."""
        return self.epoch(0)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_batch` on; the ones before are read and dropped."""
        batches = self._seeded(epoch)
        if self.batch_size is not None:
            batches = _rebatch(batches, self.batch_size)
        for number, batch in enumerate(batches):
            if number >= start_batch:
                yield batch

    def with_batch_size(self, batch_size: int) -> LoaderBatches:
        """Return the same samples in batches of another size."""
        return dataclasses.replace(self, batch_size=batch_size)

    def _seeded(self, epoch: int) -> Iterator[Batch]:
        iterator: Iterator[Batch] | None = None
        number = 0
        while True:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mixed_seed(self.seed, epoch, number))
                iterator = iter(self.source) if iterator is None else iterator
                batch = next(iterator, None)
            if batch is None:
                return
            yield _checked(batch)
            number += 1


def as_batches(source: BatchSource, batch_size: int = 128, shuffle: bool = False, seed: int = 0) -> BatchStream:
    """Turn tensors or a loader into batches whose order only depends on the seed and the epoch.

    Args:
        source: A pair (x, y), a loader, or batches made before, which are returned as they are.
        batch_size: Samples in a batch of a pair; a loader keeps its own.
        shuffle: Draw a new order of a pair each epoch; a loader shuffles by itself.
        seed: Source of the order.

    Raises:
        DataError: The source cannot be read more than once, or is nothing that yields (x, y).

    Example:
        >>> batches = as_batches((torch.zeros(300, 4), torch.zeros(300, dtype=torch.long)), batch_size=100)
        >>> len(batches), batches.num_samples
        (3, 300)
    """
    if isinstance(source, Batches | LoaderBatches):
        return source
    if _is_pair(source):
        return Batches(source[0], source[1], batch_size=batch_size, shuffle=shuffle, seed=seed)
    if isinstance(source, Iterator):
        raise DataError("data must be readable more than once: give (x, y), a list or a DataLoader, not a generator")
    if not isinstance(source, Iterable):
        raise DataError(f"data is a pair of tensors (x, y) or a loader of such batches; got {type(source).__name__}")
    return LoaderBatches(cast("Iterable[Batch]", source), seed=seed)


def mixed_seed(*numbers: int) -> int:
    """Mix whole numbers of at least 0 to one seed, so that neighbours give unrelated streams.

    Example:
        >>> mixed_seed(0, 1) == mixed_seed(1, 0)
        False
    """
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _is_pair(source: object) -> TypeGuard[Batch]:
    return isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(part, Tensor) for part in source)


def _checked(batch: object) -> Batch:
    if not _is_pair(batch):
        raise DataError(f"a loader yields pairs of tensors (x, y); this one yields {type(batch).__name__}")
    return batch[0], batch[1]


def _rebatch(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    left: Batch | None = None
    for batch in batches:
        x, y = batch if left is None else (torch.cat([left[0], batch[0]]), torch.cat([left[1], batch[1]]))
        while len(x) >= size:
            yield x[:size], y[:size]
            x, y = x[size:], y[size:]
        left = (x, y)
    if left is not None and len(left[1]):
        yield left
