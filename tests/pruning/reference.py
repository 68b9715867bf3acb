"""The slow, independent meaning of removing channels: the whole model with what was removed set to zero."""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give normalizations statistics and parameters that matter, and parameters that start at zero values."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            module.bias.data.normal_(0, 0.1, generator=generator)
    for parameter in model.parameters():
        if (parameter == parameter.reshape(-1)[0]).all():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def random_selection(graph, ratio: float, seed: int) -> dict[int, list[int]]:
    """Choose about this share of every group's units, at least one and never all."""
    generator = torch.Generator().manual_seed(seed)
    selection = {}
    for number, group in enumerate(graph.groups):
        count = min(max(1, round(ratio * group.size)), group.size - 1)
        selection[number] = torch.randperm(group.size, generator=generator)[:count].tolist()
    return selection


def zeroed(model: nn.Module, graph, selection) -> tuple[nn.Module, dict[int, torch.Tensor]]:
    """Copy a model with all removed slices set to zero; also say what is kept of each norm's weight."""
    masked = copy.deepcopy(model)
    return masked, zero(masked, graph, selection)


def zero(model: nn.Module, graph, selection) -> dict[int, torch.Tensor]:
    """Set all removed slices to zero in place; return what is kept of each vector, by its identity."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    kept = {}
    for number, units in selection.items():
        for piece in graph.groups[number].slices:
            if piece.name in tensors:
                indices = torch.as_tensor(piece.indices[list(units)].ravel())
                tensor = tensors[piece.name]
                tensor.data.index_fill_(piece.dim, indices, 0)
                if tensor.dim() == 1:
                    kept.setdefault(id(tensor), torch.ones(len(tensor), dtype=torch.bool))[indices] = False
    return kept


def settled(model: nn.Module, training: bool) -> None:
    """Training mode for what it adds (auxiliary heads), without its randomness and batch statistics."""
    model.train(training)
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.modules.batchnorm._BatchNorm)):
            module.eval()


@contextmanager
def masked_norms(kept: dict[int, torch.Tensor]):
    """Let layer_norm take its statistics over what is kept."""
    original = F.layer_norm

    def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
        mask = kept.get(id(weight))
        if mask is None:
            return original(x, normalized_shape, weight, bias, eps)
        some = x[..., mask]
        mean, variance = some.mean(-1, keepdim=True), some.var(-1, keepdim=True, unbiased=False)
        return ((x - mean) / torch.sqrt(variance + eps) * weight + bias) * mask

    F.layer_norm = layer_norm
    try:
        yield
    finally:
        F.layer_norm = original


def outputs_of(model: nn.Module, inputs) -> list[torch.Tensor]:
    """Run without gradients and list all tensors that come out, auxiliary ones too."""
    with torch.no_grad():
        return tensors_in(model(*inputs))


def tensors_in(result) -> list[torch.Tensor]:
    """List all tensors of nested outputs."""
    if isinstance(result, torch.Tensor):
        return [result]
    if result is None:
        return []
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in tensors_in(part)]
