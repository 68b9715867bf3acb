"""What each residual block is worth: how much the score rises without it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.metrics.task import is_number
from adaptkit.modes import evaluating
from adaptkit.surgery import replace_module

Sample = tuple[Tensor, Tensor]
Score = Callable[[Tensor, Tensor], Tensor]

_FEWEST = 2


@dataclass(frozen=True)
class Ranking:
    """Mean score over the calibration samples of the model as it is, and of it without each block."""

    complete: float
    without: dict[str, float]

    def rise(self, name: str) -> float:
        """Return how much the score rises when the block goes."""
        return self.without[name] - self.complete


def rank_blocks(model: nn.Module, names: Sequence[str], batches: Sequence[Sample], score: Score) -> Ranking:
    """Score the model without each block, in one pass over the data.

    What the blocks before the missing one return does not change, so it is replayed and only what stands behind is
    computed: n blocks cost about n / 2 forward passes instead of n. Batch normalization uses the statistics of the
    batch, since training re-estimates them at once: with the old ones, the shift alone would decide.

    Args:
        model: Run in evaluation mode; left as it was.
        names: The blocks, in the order in which they run.
        batches: (inputs, reference) pairs; the reference is what `score` compares the output with.
        score: Maps (output, reference) to the mean over the batch, lower is better.
    """
    totals = dict.fromkeys(["", *names], 0.0)
    samples = 0
    with evaluating(model), batch_statistics(model), torch.no_grad():
        for inputs, reference in batches:
            samples += len(inputs)
            for name, output in _outputs_without(model, names, inputs):
                totals[name] += float(score(output, reference)) * len(inputs)
    return Ranking(totals[""] / samples, {name: totals[name] / samples for name in names})


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(softmax(reference) || softmax(output)) of N × classes logits, in nats.

    Of a model that gives one number a sample it is the mean squared difference.

    Example:
        >>> divergence(torch.zeros(1, 2), torch.zeros(1, 2)).item()
        0.0
    """
    if is_number(tuple(reference.shape[1:])):
        return F.mse_loss(output, reference)
    return F.kl_div(output.log_softmax(1), reference.log_softmax(1), reduction="batchmean", log_target=True)


def first_samples(source: BatchSource, count: int) -> list[Sample]:
    """Read the first `count` samples, in batches.

    Raises:
        DataError: There are fewer than two, too few for batch statistics.
    """
    samples: list[Sample] = []
    left = count
    for x, y in as_batches(source):
        samples.append((x[:left], y[:left]))
        left -= len(samples[-1][0])
        if left <= 0:
            break
    if sum(len(x) for x, _ in samples) < _FEWEST:
        raise DataError(f"ranking blocks needs at least {_FEWEST} calibration samples")
    return samples


def with_outputs(model: nn.Module, samples: Sequence[Sample]) -> list[Sample]:
    """Put the outputs of the model in the place of the labels, computed as `rank_blocks` does: its own score is 0."""
    with evaluating(model), batch_statistics(model), torch.no_grad():
        return [(x, model(x)) for x, _ in samples]


class Replay(nn.Module):
    """Returns a stored tensor, whatever it is called with.

    Args:
        value: The tensor; a copy is handed out, so that an in-place operation behind it does no harm.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Ignore `x` and return the stored tensor."""
        del x
        return self.value.clone()


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalization use the statistics of each batch, without learning from them."""
    kept = [
        (module, module.running_mean, module.running_var)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    for module, _, _ in kept:
        module.running_mean = module.running_var = None
    try:
        yield
    finally:
        for module, mean, variance in kept:
            module.running_mean, module.running_var = mean, variance


def _outputs_without(model: nn.Module, names: Sequence[str], inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's output under the name "", then its output without each block."""
    blocks = {name: model.get_submodule(name) for name in names}
    entered: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    handles = []
    for name, block in blocks.items():
        handles.append(block.register_forward_pre_hook(lambda _, args, n=name: entered.update({n: args[0].clone()})))
        handles.append(block.register_forward_hook(lambda _, args, out, n=name: left.update({n: out.clone()})))
    try:
        complete = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    yield "", complete
    try:
        for name in names:
            replace_module(model, name, Replay(entered.pop(name)))
            yield name, model(inputs)
            replace_module(model, name, Replay(left.pop(name)))
    finally:
        for name, block in blocks.items():
            replace_module(model, name, block)
