"""earlyon on the same network, images and epochs: `pip install fvcore`, then `pip install --no-deps earlyon==0.3.0`."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.loading.batches import BatchStream

Split = tuple[Tensor, Tensor]


class Epochs:
    """Batches in another order each time they are read, as a shuffling loader gives them.

    Args:
        batches: Of training images.
    """

    def __init__(self, batches: BatchStream) -> None:
        self._batches, self._read = batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the next epoch."""
        self._read += 1
        yield from self._batches.epoch(self._read - 1)


def chunks(split: Split) -> list[tuple[Tensor, Tensor]]:
    """Cut a split into batches of 250."""
    return list(zip(torch.split(split[0], 250), torch.split(split[1], 250), strict=True))


class Peer:
    """A network wrapped and trained by earlyon.

    Args:
        model: Trained; is changed.
        points: Modules the exits stand behind.
        train: What it trains with.
        epochs: As many as adaptkit takes.
        training: Its `joint` training, or the heads alone, which it calls `two_stage`.
    """

    def __init__(
        self,
        model: nn.Module,
        points: tuple[str, ...],
        train: BatchStream,
        epochs: int,
        training: str,
        classes: int = 10,
    ) -> None:
        from earlyon.models import custom_ee
        from earlyon.training.joint_trainer import joint_train_backbone_and_exits
        from earlyon.training.two_stage_trainer import stage2_train_exits

        shape = next(iter(train))[0].shape[1:]
        torch.manual_seed(0)
        wrapped = custom_ee(model, exit_layers=list(points), num_classes=classes, input_shape=(1, *shape))
        by = {"joint": joint_train_backbone_and_exits, "two_stage": stage2_train_exits}[training]
        self.model = by(wrapped, Epochs(train), epochs=epochs).eval()

    def calibrate(self, validation: Split, temperature: Split, drop: float) -> None:
        """Let it find its thresholds and temperatures."""
        from earlyon.core.thresholds import calibrate_thresholds

        calibrate_thresholds(
            self.model, chunks(validation), target_accuracy_drop=drop, fit_temperature=True,
            temperature_loader=chunks(temperature),
        )  # fmt: skip

    def answers(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Give the class of every image, and the exit it took; the end is -1."""
        given = [self.model(x[i : i + 1], mode="inference") for i in range(len(x))]
        return np.array([int(each.prediction.argmax()) for each in given]), np.array(
            [each.exit_taken for each in given]
        )

    @property
    def run(self) -> Callable[[np.ndarray], int]:
        """One image at a time, for `sample_seconds`; says which exit was taken."""

        def once(x: np.ndarray) -> int:
            taken: Any = self.model(torch.from_numpy(x), mode="inference").exit_taken
            return int(taken)

        return once
