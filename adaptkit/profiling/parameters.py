"""How many parameters a model has."""

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model, each once however often it is used; buffers do not count.

    Example:
        >>> count_parameters(nn.Linear(4, 2))
        10
    """
    return sum(parameter.numel() for parameter in model.parameters())
