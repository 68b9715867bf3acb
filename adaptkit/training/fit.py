"""The one training loop: everything in adaptkit that trains goes through `fit`."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.loading.batches import Batch, BatchSource, BatchStream, as_batches, mixed_seed
from adaptkit.metrics.task import accuracy, device_of
from adaptkit.progress import Progress, Silent
from adaptkit.pruning.masks import marked
from adaptkit.training.checkpoint import read_checkpoint, state_sha256, write_checkpoint
from adaptkit.training.ema import Ema
from adaptkit.training.failures import (
    copied_buffers,
    divergence,
    fault_of_batch,
    fault_of_values,
    put_back_buffers,
    remedy,
)
from adaptkit.training.losses import StepLoss, by_target
from adaptkit.training.optimizer import build_optimizer
from adaptkit.training.schedule import rate_factor
from adaptkit.training.settings import FitSettings

_SECONDS_BETWEEN_READS = 0.3


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history; the last epoch may be a part of one.

    Args:
        epoch: From 1.
        train_loss: Mean over the epoch's samples.
        train_accuracy: Share of the epoch's samples the model got right while it trained; None for no classification.
        validation_accuracy: Top-1 after the epoch; None without validation data.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Args:
        steps: Optimizer steps in all.
        epochs: Passes over the data, as asked for.
        train_loss: Of the last epoch.
        train_accuracy: Of the last epoch; None for no classification.
        history: One record an epoch.
    """

    steps: int
    epochs: float
    train_loss: float
    train_accuracy: float | None
    history: tuple[EpochRecord, ...]


def fit(
    model: nn.Module,
    train: BatchSource,
    *,
    epochs: float,
    settings: FitSettings = FitSettings(),  # noqa: B008  frozen, so it cannot leak
    loss: StepLoss | None = None,
    validation: BatchSource | None = None,
    seed: int = 0,
    workspace: Path | None = None,
    progress: Progress | None = None,
    tag: str = "",
    after_step: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Train a model in place; it ends in eval mode, with the averaged weights where `settings.ema` is set.

    What a sparsification has set to zero stays zero (`pruning.masks.mark`).

    The same seed, data and number of threads give the same bits. torch's random state is set anew for every step and
    put back at the end. A killed fit that had a workspace goes on from its last checkpoint, in the middle of an epoch
    too, and ends in the weights it would have had; a finished one returns at once with its weights.

    Args:
        model: Trained where it is; its parameters that need no gradient stay as they are.
        train: A pair (x, y), which is shuffled, or a loader.
        epochs: Passes over the data; 0.5 takes half of the batches.
        settings: Optimizer, schedule and the rest.
        loss: A function (model, x, y) -> (scalar, output); it runs the model itself, so that a teacher or an inner
            layer can have its say. `losses.target_loss` where None: cross entropy, or the mean squared error of
            targets that are numbers. `losses.supervised` makes one from (output, target).
        validation: Where given, its accuracy after each epoch goes into the history; decides nothing.
        seed: Source of order and random layers.
        workspace: Folder of the checkpoint; None keeps none.
        progress: Shows loss, accuracy and the time left.
        tag: What else the result depends on, such as the settings of `loss`; a checkpoint with another one is refused.
        after_step: Called after each optimizer step with the steps done and the steps in all; may change the model. All
            that it remembers must be state of the model, which is what a killed fit goes on from.

    Raises:
        AdaptkitError: The loss or its gradient stopped being a number. The model then has its weights, not averaged,
            and statistics from before that step.
        DataError: A label has no output, a batch holds values that are no numbers, or a batch of one sample meets batch
            normalization; a pair (x, y) is cut evenly, so that it rarely has such a batch.
        RunFolderError: The workspace cannot be written, or holds another fit.

    Example:
        >>> x = torch.randn(64, 4)
        >>> model = nn.Linear(4, 2)
        >>> result = fit(model, (x, (x[:, 0] > 0).long()), epochs=20)
        >>> result.steps, result.train_accuracy > 0.8
        (20, True)
    """
    if not (math.isfinite(epochs) and epochs > 0):
        raise AdaptkitError(f"training takes more than 0 epochs; got epochs={epochs}")
    batches = as_batches(train, shuffle=True, seed=seed)
    loss = loss or by_target(settings.label_smoothing)
    progress = progress or Silent()
    loop = _Loop(model, batches, epochs, settings, loss, seed, after_step)
    device = device_of(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            loop.run(validation, workspace, progress, tag)
        finally:
            progress.close()
            model.to(memory_format=torch.contiguous_format)
            model.eval()
    return loop.result()


class _Loop:
    """The state of a fit between two steps."""

    def __init__(
        self,
        model: nn.Module,
        batches: BatchStream,
        epochs: float,
        settings: FitSettings,
        loss: StepLoss,
        seed: int,
        after_step: Callable[[int, int], None] | None,
    ) -> None:
        self.model, self.batches, self.settings, self.loss, self.seed = model, batches, settings, loss, seed
        self.epochs, self.after_step = epochs, after_step
        self.sparse = marked(model)
        self.device = device_of(model)
        self.per_epoch = len(batches)
        self.total = max(1, round(epochs * self.per_epoch))
        self.step = 0
        self.history: list[EpochRecord] = []
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.classifies = True

    def run(self, validation: BatchSource | None, workspace: Path | None, progress: Progress, tag: str) -> None:
        """Take all steps that are left."""
        key = self._key(tag) if workspace is not None else ""
        if self.settings.channels_last:
            _channels_last(self.model)
        self.optimizer = build_optimizer(self.model, self.settings)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema is not None else None
        if workspace is not None:
            self._restore(read_checkpoint(workspace, key))
        saved = read = time.monotonic()
        self.model.train()
        for x, y in self._remaining():
            self._train_step(x, y)
            now = time.monotonic()
            if now - read >= _SECONDS_BETWEEN_READS:
                progress.update(self.step, self.total, self._summary())
                read = now
            if self.step % self.per_epoch == 0 or self.step == self.total:
                self._end_epoch(validation)
            if workspace is not None and (now - saved >= self.settings.checkpoint_seconds or self.step == self.total):
                write_checkpoint(workspace, key, self._state())
                saved = time.monotonic()
        progress.update(self.total, self.total, self._last())
        if self.ema is not None:
            self.model.load_state_dict(self.ema.state)

    def result(self) -> FitResult:
        """Say what was done."""
        last = self.history[-1]
        return FitResult(self.total, self.epochs, last.train_loss, last.train_accuracy, tuple(self.history))

    def _remaining(self) -> Iterator[Batch]:
        """Yield the batches of the steps that are left, over the ends of epochs."""
        while self.step < self.total:
            epoch, batch = divmod(self.step, self.per_epoch)
            stop = min((epoch + 1) * self.per_epoch, self.total)
            yield from itertools.islice(self.batches.epoch(epoch, batch), stop - self.step)
            if self.step < stop:
                given = self.step - epoch * self.per_epoch
                raise DataError(f"the training data said it has {self.per_epoch} batches, and ended after {given}")

    def _train_step(self, x: Tensor, y: Tensor) -> None:
        settings = self.settings
        x, y = x.to(self.device), y.to(self.device)
        if settings.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(settings.schedule, self.step, self.total)
        torch.manual_seed(mixed_seed(self.seed, self.step))
        buffers = copied_buffers(self.model)
        loss, output = self._run(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clipped_norm()
        if not math.isfinite(float(loss.detach() + norm)):  # before the weights move: they stay numbers
            put_back_buffers(self.model, buffers)
            raise self._divergence(float(loss.detach()), float(norm), x, y)
        self._update()
        self._count(loss.detach(), output.detach(), y)
        self.step += 1

    def _run(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Give loss and output; where the batch cannot be trained on, say which one it is and why."""
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")
        try:
            with half:
                return self.loss(self.model, x, y)
        except (IndexError, RuntimeError, ValueError) as error:
            fault = fault_of_batch(error, self.model, x, y)
            if fault is None:
                raise
            raise DataError(f"{self._batch_name()} {fault}") from error

    def _clipped_norm(self) -> Tensor:
        """Clip the gradient where the settings say so; give its norm from before."""
        weights = list(self.model.parameters())
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(weights, self.settings.gradient_clip, norm)
        return norm

    def _divergence(self, loss: float, norm: float, x: Tensor, y: Tensor) -> AdaptkitError:
        what, kept = divergence(loss, norm), "the model is as it was before that step"
        fault = fault_of_values(x, y)
        if fault is not None:
            return DataError(f"{self._batch_name()} {fault}, so {what}; {kept}")
        step = f"in step {self.step + 1} of {self.total}"
        return AdaptkitError(f"{what} {step}, {kept}: {remedy(self.settings)}")

    def _batch_name(self) -> str:
        epoch, batch = divmod(self.step, self.per_epoch)
        return f"batch {batch + 1} of {self.per_epoch} in epoch {epoch + 1}"

    @torch.no_grad()
    def _update(self) -> None:
        """Change the weights; what is zero in a sparse weight stays zero."""
        zeros = [weight == 0 for weight in self.sparse.values()]
        self.optimizer.step()
        for weight, zero in zip(self.sparse.values(), zeros, strict=True):
            weight.masked_fill_(zero, 0)
        if self.after_step is not None:
            self.after_step(self.step + 1, self.total)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
            for name, weight in self.sparse.items():
                self.ema.state[name].masked_fill_(weight == 0, 0)

    def _count(self, loss: Tensor, output: Tensor, y: Tensor) -> None:
        self.classifies = output.ndim == 2 and y.ndim == 1 and not y.is_floating_point()
        right = (output.argmax(1) == y).sum() if self.classifies else torch.zeros((), device=self.device)
        self.sums += torch.stack([loss.double() * len(y), right.double(), right.new_tensor(len(y)).double()])

    def _means(self) -> tuple[float, float | None]:
        loss, right, count = self.sums.tolist()
        return loss / count, right / count if self.classifies else None

    def _end_epoch(self, validation: BatchSource | None) -> None:
        loss, train_accuracy = self._means()
        score = None if validation is None else self._validate(validation)
        self.history.append(EpochRecord(len(self.history) + 1, loss, train_accuracy, score))
        self.sums.zero_()

    def _validate(self, validation: BatchSource) -> float:
        if self.ema is None:
            return accuracy(self.model, validation)
        with self.ema.applied(self.model):
            return accuracy(self.model, validation)

    def _summary(self) -> str:
        return _text(*self._means())

    def _last(self) -> str:
        return _text(self.history[-1].train_loss, self.history[-1].train_accuracy)

    def _key(self, tag: str) -> str:
        settings = self.settings.model_dump(mode="json", exclude={"checkpoint_seconds"})
        facts = [self.epochs, self.total, self.per_epoch, self.seed, settings, state_sha256(self.model), tag]
        return json.dumps(facts)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state,
            "sums": self.sums,
            "classifies": self.classifies,
            "history": [asdict(record) for record in self.history],
        }

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self.step, self.classifies = state["step"], state["classifies"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.state = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.sums = state["sums"].to(self.device)
        self.history = [EpochRecord(**record) for record in state["history"]]


def _channels_last(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _text(loss: float, share: float | None) -> str:
    return f"loss {loss:.3f}" if share is None else f"loss {loss:.3f}  accuracy {share:.3f}"
