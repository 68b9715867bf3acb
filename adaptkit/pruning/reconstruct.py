"""Reconstruction: layers behind a cut get the weights that give, from what is left, what the layers gave before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.loading.batches import BatchSource, as_batches
from adaptkit.modes import evaluating
from adaptkit.pruning.block_ranking import batch_statistics
from adaptkit.pruning.channels import ChannelGraph
from adaptkit.pruning.groups import Selection
from adaptkit.pruning.layers import first_input
from adaptkit.pruning.masks import marked

Layer: TypeAlias = nn.Linear | nn.modules.conv._ConvNd

FEWEST = 8
_LEAST, _MOST, _ELEMENTS = 32, 256, 2**23
_ROWS_PER_UNKNOWN = 4
_FEWEST_ROWS = 4096
_FITTED = 0.75
_RIDGE = 1e-3


@dataclass(frozen=True)
class Before:
    """What the layers of a model gave before a cut.

    Args:
        x: The samples.
        outputs: Of each layer, rows × channels, at the positions.
        positions: Of each layer, the places in an image or sequence that were looked at, of every sample the same.
    """

    x: Tensor
    outputs: dict[str, Tensor]
    positions: dict[str, Tensor]


def least_squares(x: Tensor, error: Tensor, intercept: bool, ridge: float = _RIDGE) -> tuple[Tensor, Tensor]:
    """Find the change of a linear map that takes away most of its error.

    Minimizes Σ ‖e − Δ x − b‖² + λ ‖Δ‖², λ = ridge × the mean of Σ x² (Hoerl and Kennard 1970, "Ridge regression").

    Args:
        x: Inputs, rows × inputs.
        error: What the outputs lack, rows × outputs.
        intercept: Whether there is a b; 0 otherwise.
        ridge: How much a change must be worth.

    Returns:
        Δ, outputs × inputs, and b.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> change, shift = least_squares(x, 3 * x + 1, intercept=True, ridge=0.0)
        >>> round(change.item(), 3), round(shift.item(), 3)
        (3.0, 1.0)
    """
    mean_x, mean_error = (x.mean(0), error.mean(0)) if intercept else (x.new_zeros(x.shape[1]), error.new_zeros(()))
    centred = x - mean_x
    gram = (centred.T @ centred).double()
    products = (centred.T @ (error - mean_error)).double()
    gram.diagonal().add_((ridge * gram.diagonal().mean()).clamp(min=torch.finfo(x.dtype).tiny))
    change = torch.linalg.solve(gram, products).T.to(x.dtype)
    return change, mean_error - change @ mean_x


def patches(layer: Layer, x: Tensor, positions: Tensor) -> Tensor:
    """Gather what a layer multiplies its weights with, as rows × (inputs of one output).

    Args:
        layer: A linear layer or a convolution of one group.
        x: N × … × features, or N × channels × space.
        positions: Numbers of the outputs, counted over all dimensions but the first and that of the channels.

    Example:
        >>> patches(nn.Conv1d(1, 1, 2), torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([1]))
        tensor([[2., 3.]])
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])[:, positions].flatten(0, 1)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    count = len(layer.kernel_size)
    spans = [layer.dilation[dim] * (layer.kernel_size[dim] - 1) for dim in range(count)]
    sizes = [(padded.shape[2 + dim] - spans[dim] - 1) // layer.stride[dim] + 1 for dim in range(count)]
    places = torch.unravel_index(positions, sizes)
    indices: list[Tensor] = []
    for dim in range(count):
        offsets = torch.arange(layer.kernel_size[dim], device=x.device) * layer.dilation[dim]
        shape = [len(positions), *(-1 if other == dim else 1 for other in range(count))]
        indices.append((places[dim][:, None] * layer.stride[dim] + offsets).view(shape))
    where: tuple[slice | Tensor, ...] = (slice(None), slice(None), *indices)
    return padded[where].transpose(1, 2).flatten(0, 1).flatten(1)


def outputs_before(model: nn.Module, source: BatchSource) -> Before | None:
    """Run the model that is about to be cut; None where there are too few samples or they are no tensors.

    Args:
        model: Left as it was; evaluation mode.
        source: Calibration data; of its labels nothing is made.
    """
    x = _samples(source)
    if x is None:
        return None
    before = Before(x, {}, {})
    calls: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(0)

    def look(name: str, layer: Layer, output: Tensor) -> None:
        calls[name] += 1
        by_place = _by_place(layer, output)
        unknowns = layer.weight[0].numel()
        count = -(-max(_ROWS_PER_UNKNOWN * unknowns, _FEWEST_ROWS) // len(by_place))
        chosen = torch.randperm(by_place.shape[1], generator=generator)[:count].to(output.device)
        before.positions[name] = chosen
        before.outputs[name] = by_place[:, chosen].flatten(0, 1)

    with evaluating(model), torch.no_grad(), _hooks(model, None, look):
        model(x)
    for name, count in calls.items():
        if count > 1:  # no weights fit several inputs
            del before.outputs[name], before.positions[name]
    return before


def kept_outputs(graph: ChannelGraph, selection: Selection, names: Iterable[str]) -> dict[str, Tensor]:
    """Number the outputs of each of these layers that a cut leaves, counted as before it.

    Args:
        graph: Made before the cut.
        selection: What is cut, as for `remove`.
        names: The layers.
    """
    removed = graph.units.removed(selection)
    kept = {}
    for name in names:
        value = graph.tensors[f"{name}.weight" if name else "weight"]
        ids = value.line(0)
        stays = np.ones(value.shape[0], dtype=bool) if ids is None else graph.units.kept(removed, ids)
        kept[name] = torch.from_numpy(np.flatnonzero(stays))
    return kept


def reconstruct(model: nn.Module, before: Before, kept: Mapping[str, Tensor]) -> str:
    """Refit layer by layer, in the order in which they run, each on what it is given by those refitted already.

    The weights W of a layer become those of least Σ ‖y − W x‖² + λ ‖W − W₀‖² (He et al. 2017, "Channel pruning for
    accelerating very deep neural networks", section 3.1): y is what the layer gave before the cut, x what it is given
    now, W₀ what the cut has left of its weights. They only stay where they bring samples nearer to y that they were
    not fitted to. Normalizations work on the statistics of the batch meanwhile.

    Args:
        model: Cut; edited in place.
        before: From `outputs_before`.
        kept: For each layer, which of its outputs the cut has left.

    Returns:
        A sentence about what was done.
    """
    errors: list[tuple[float, float]] = []

    def refit(name: str, layer: Layer, x: Tensor) -> None:
        if name in before.outputs:
            wanted = before.outputs[name][:, kept[name]]
            errors.append(_refit(layer, patches(layer, x, before.positions[name]), wanted))

    with evaluating(model), torch.no_grad(), batch_statistics(model), _hooks(model, refit, None):
        model(before.x)
    done = [after / was for was, after in errors if after < was]
    mean = sum(done) / max(len(done), 1)
    return (
        f"weights of {len(done)} layers refitted to what the layers gave before, on {len(before.x)} calibration "
        f"samples: what was wrong × {mean:.2f}"
    )


def _refit(layer: Layer, x: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Change the weights where that helps on the rows left out; return the mean squared errors before and after."""
    weight = layer.weight
    error = wanted - x @ weight.flatten(1).T
    if layer.bias is not None:
        error = error - layer.bias
    fitted = round(_FITTED * len(x))
    change, shift = least_squares(x[:fitted], error[:fitted], intercept=layer.bias is not None)
    was = float(error[fitted:].square().mean())
    now = float((error[fitted:] - x[fitted:] @ change.T - shift).square().mean())
    if not now < was:
        return was, was
    weight.add_(change.view_as(weight))
    if layer.bias is not None:
        layer.bias.add_(shift)
    return was, now


def _samples(source: BatchSource) -> Tensor | None:
    """Read the samples that go through the model at once: as many as there is memory for."""
    parts: list[Tensor] = []
    count = 0
    for x, _ in as_batches(source):
        if not isinstance(x, Tensor):
            return None
        most = min(_MOST, max(_LEAST, _ELEMENTS // x[0].numel()))
        parts.append(x[: most - count])
        count += len(parts[-1])
        if count >= most:
            break
    return torch.cat(parts) if count >= FEWEST else None


def _by_place(layer: Layer, output: Tensor) -> Tensor:
    """Lay outputs out as first dimension × all others but the channels × channels."""
    if isinstance(layer, nn.Linear):
        return output.reshape(len(output), -1, output.shape[-1])
    return output.flatten(2).transpose(1, 2)


def _layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """List the layers whose weights may become any: nobody else has them, and no zeros among them are to stay."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    sparse = marked(model)
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            continue
        one_group = getattr(module, "groups", 1) == 1 and not getattr(module, "transposed", False)
        name = f"{path}.weight" if path else "weight"
        if one_group and "weight" in module._parameters and uses[id(module.weight)] == 1 and name not in sparse:
            yield path, module


@contextmanager
def _hooks(
    model: nn.Module,
    before: Callable[[str, Layer, Tensor], None] | None,
    after: Callable[[str, Layer, Tensor], None] | None,
) -> Iterator[None]:
    """Call something with the input of every layer before it runs, or with its output afterwards."""
    handles: list[Any] = []
    for name, layer in _layers(model):
        if before is not None:
            handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, args, kwargs, name=name: before(name, layer, first_input(args, kwargs)),
                    with_kwargs=True,
                )
            )
        if after is not None:
            handles.append(layer.register_forward_hook(lambda layer, _, out, name=name: after(name, layer, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
