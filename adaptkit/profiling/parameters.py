"""How many parameters a model has."""

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model, each once however often it is used; buffers do not count.

    Example:
        >>> count_parameters(nn.Linear(4, 2))
        10
    """
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_per_layer(model: nn.Module) -> dict[str, int]:
    """Map the path of every module that holds parameters itself to their number, shared ones once.

    Example:
        >>> parameters_per_layer(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.BatchNorm1d(2)))
        {'0': 10, '2': 4}
    """
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for path, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in own)
        if own:
            counts[path] = sum(parameter.numel() for parameter in own)
    return counts
