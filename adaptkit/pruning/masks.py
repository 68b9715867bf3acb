"""Masks of sparse weights: which weights stay, and how zeros stay zeros.

The zeros are the mask. A module names its sparse parameters in a plain attribute, which travels in structure.json; what
trains the model afterwards (`fit`) leaves at zero what is zero there. So no buffer is added, and a sparse model loads
onto its own unmodified class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from adaptkit.surgery import find_modules

MARK, PATTERN = "sparse_parameters", "patterned_parameters"

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)
_INT32 = torch.iinfo(torch.int32)
_SPLIT = {"in_proj_weight": "q_proj.weight"} | {f"{x}_proj_weight": f"{x}_proj.weight" for x in "qkv"}
"""Where the zeros of packed attention go when its projections are taken apart."""
_HALF, _BINS = 16, 1 << 16
"""Bits of a score that are counted at once, and the values they have."""


def highest(scores: Sequence[Tensor], kept: int, score: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """Say of every entry whether it is among the `kept` highest of all tensors; of equal ones the first stay.

    The threshold is found by counting the upper half of the bits of float32, then the lower, so that the scores of one
    tensor are held at a time.

    Args:
        scores: Any shapes; no NaN.
        kept: From 0 to the number of entries.
        score: Makes the scores of a tensor, each time they are needed; the tensors are the scores where None.

    Returns:
        A boolean tensor of each shape; `kept` entries are true in all.

    Example:
        >>> highest([torch.tensor([3.0, -1.0, 2.0]), torch.tensor([[2.0, 9.0]])], kept=3)
        [tensor([ True, False,  True]), tensor([[False,  True]])]
    """

    def ordered(one: Tensor) -> Tensor:
        return _ordered(one if score is None else score(one))

    upper, left = _bin_reached((_upper(ordered(one)) for one in scores), kept)
    parts = ((whole := ordered(one))[_upper(whole) == upper] & _BINS - 1 for one in scores)
    lower, left = _bin_reached(parts, left)
    threshold = (upper - _BINS // 2 << _HALF) + lower
    masks = []
    for one in scores:
        whole = ordered(one)
        mask = whole > threshold
        if left > 0:
            equal = (whole.flatten() == threshold).nonzero().flatten()[:left]
            mask.view(-1)[equal] = True
            left -= len(equal)
        masks.append(mask)
    return masks


def count_kept(entries: int, sparsity: float) -> int:
    """Return how many of `entries` stay at this sparsity, the share of zeros.

    Example:
        >>> count_kept(1000, 0.9)
        100
    """
    return entries - round(entries * sparsity)


def magnitude_masks(weights: Sequence[Tensor], sparsity: float, ranking: str) -> list[Tensor]:
    """Keep the weights of largest magnitude.

    Ranked are |w| in every tensor by itself (`per_layer`: each has the same sparsity), |w| over all tensors
    (`global`), or w² divided by the sum of the squares that are no smaller in its tensor (`lamp`, over all tensors:
    Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning"). In the last two no tensor loses its
    largest weight.

    Args:
        weights: Any shapes.
        sparsity: Share of zeros in all, from 0 to 1.
        ranking: As above.

    Example:
        >>> small, large = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0, 40.0])
        >>> [int(mask.sum()) for mask in magnitude_masks([small, large], 0.5, "per_layer")]
        [1, 2]
        >>> [int(mask.sum()) for mask in magnitude_masks([small, large], 0.5, "global")]
        [1, 2]
        >>> [int(mask.sum()) for mask in magnitude_masks([small, large], 0.17, "global")]
        [1, 4]
    """
    if ranking == "per_layer":
        return [highest([one.detach().abs()], count_kept(one.numel(), sparsity))[0] for one in weights]

    def score(weight: Tensor) -> Tensor:
        scores = _lamp(weight) if ranking == "lamp" else weight.detach().float().abs()
        scores.view(-1)[scores.argmax()] = torch.inf
        return scores

    kept = count_kept(sum(one.numel() for one in weights), sparsity)
    return highest(weights, max(len(weights), kept), score)


def n_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Keep the n largest magnitudes of every m neighbours along the inputs (dimension 1); of equal ones the first.

    Args:
        weight: out × in × …; in must be a multiple of m.
        n: How many stay.
        m: Of how many.

    Example:
        >>> n_m_mask(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), 2, 4)
        tensor([[False,  True,  True, False]])
    """
    grouped = weight.detach().abs().movedim(1, -1)
    grouped = grouped.reshape(*grouped.shape[:-1], -1, m)
    order = grouped.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def find_weights(model: nn.Module, targets: Sequence[str], ignore: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Find the weights of convolutions, linear, recurrent and attention layers, each once, by their names.

    Args:
        model: Where to look.
        targets: Patterns for the layers, or for modules around them, of which one must match.
        ignore: Patterns of which none may match.

    Example:
        >>> list(find_weights(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(2, 2)), ["*"]))
        ['0.weight', '2.weight_ih_l0', '2.weight_hh_l0']
    """
    wanted, unwanted = find_modules(model, targets), find_modules(model, ignore)
    found: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        if isinstance(module, _LAYERS) and _within(path, wanted) and not _within(path, unwanted):
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.dim() >= 2 and all(parameter is not other for other in found.values()):
                    found[f"{path}.{key}"] = parameter
    return found


def mark(model: nn.Module, names: Collection[str]) -> None:
    """Say that the zeros of these parameters are to stay, wherever the model goes.

    Args:
        model: Its modules get the attribute `sparse_parameters`.
        names: Names of parameters; further names of the same parameter count as well.
    """
    wanted = {id(model.get_parameter(name)) for name in names}
    for module in model.modules():
        keys = [key for key, parameter in module.named_parameters(recurse=False) if id(parameter) in wanted]
        if keys:
            setattr(module, MARK, tuple(sorted({*getattr(module, MARK, ()), *keys})))


def marked(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find the parameters whose zeros are to stay, by all their names.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> mark(net, ["0.weight"])
        >>> list(marked(net)), net[0].sparse_parameters
        (['0.weight'], ('weight',))
    """
    return dict(_marked(model))


def mark_pattern(model: nn.Module, names: Collection[str]) -> None:
    """Say that the zeros of these parameters stand in a pattern, which further zeros or cuts would break.

    Args:
        model: Its modules get the attribute `patterned_parameters`.
        names: Names of parameters.
    """
    for name in names:
        path, _, key = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, PATTERN, tuple(sorted({*getattr(module, PATTERN, ()), key})))


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to zero what a mask leaves out, and mark the parameters.

    Args:
        model: Edited in place.
        masks: By name of the parameter: what stays.
    """
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(~mask, 0)
    mark(model, masks)


def zeros(model: nn.Module) -> dict[str, Tensor]:
    """Return where the marked parameters are zero, by name."""
    return {name: parameter.detach() == 0 for name, parameter in marked(model).items()}


def lost_zeros(before: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Say which zeros a step has undone, one sentence a parameter; empty where all are still there.

    A parameter that was cut or replaced is named, too, where its zeros went with it.

    Args:
        before: From `zeros`, before the step.
        model: After it.
    """
    sentences = []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    kept = marked(model)
    for name, zero in before.items():
        after = parameters.get(name)
        if after is None and _split_name(name) in kept:
            continue
        if after is None:
            sentences.append(f"the {int(zero.sum())} zeros of {name} went with it")
        elif after.shape == zero.shape and bool((after.detach()[zero] != 0).any()):
            sentences.append(f"{int((after.detach()[zero] != 0).sum())} of {int(zero.sum())} zeros of {name} were lost")
        elif after.shape != zero.shape and not bool((after.detach() == 0).any()) and bool(zero.any()):
            sentences.append(f"{name} was cut from {tuple(zero.shape)} to {tuple(after.shape)} and has no zero left")
    return sentences


def describe(model: nn.Module, names: Collection[str]) -> str:
    """Say how sparse these parameters are, as a sentence.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
        >>> with torch.no_grad(): net[0].weight[:, 1:] = 0
        >>> describe(net, ["0.weight", "1.weight"])
        '50.0 % of 12 weights in 2 layers are zero (0: 75.0 %, 1: 0.0 %)'
    """
    counts = {}
    for name in names:
        parameter = model.get_parameter(name)
        counts[name.rpartition(".")[0]] = int((parameter == 0).sum()), parameter.numel()
    total, size = (sum(column) for column in zip(*counts.values(), strict=True))
    shares = sorted(((gone / held, layer) for layer, (gone, held) in counts.items()), reverse=True)
    ends = [shares[0], shares[-1]] if len(shares) > 1 else shares
    listed = ", ".join(f"{layer}: {100 * share:.1f} %" for share, layer in ends)
    return f"{100 * total / size:.1f} % of {size:,} weights in {len(counts)} layers are zero ({listed})"


def _marked(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for path, module in model.named_modules(remove_duplicate=False):
        for key in getattr(module, MARK, ()):
            parameter = module._parameters.get(key)
            if parameter is not None:
                yield (f"{path}.{key}" if path else key), parameter


def _split_name(name: str) -> str:
    path, dot, key = name.rpartition(".")
    return f"{path}{dot}{_SPLIT.get(key, key)}"


def _within(path: str, names: Mapping[str, nn.Module]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:end]) in names for end in range(1, len(parts) + 1))


def _ordered(scores: Tensor) -> Tensor:
    """Map float32 to whole numbers in the same order; -0 and 0 are one."""
    bits = (scores.detach().float() + 0.0).contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ _INT32.max, bits)


def _upper(ordered: Tensor) -> Tensor:
    return (ordered >> _HALF) + _BINS // 2


def _bin_reached(parts: Iterable[Tensor], kept: int) -> tuple[int, int]:
    """Find the highest bin which, with those above, holds `kept` entries, and how many of its own are among them."""
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for part in parts:
        counts += torch.bincount(part.flatten().cpu(), minlength=_BINS)
    from_above = counts.flip(0).cumsum(0)
    place = int((from_above < kept).sum())
    above = int(from_above[place - 1]) if place else 0
    return _BINS - 1 - place, kept - above


def _lamp(weight: Tensor) -> Tensor:
    squares = weight.detach().double().square().flatten()
    falling, order = squares.sort(descending=True, stable=True)
    scores = torch.empty_like(falling)
    scores[order] = falling / falling.cumsum(0).clamp(min=torch.finfo(torch.float64).tiny)
    return scores.float().reshape(weight.shape)
