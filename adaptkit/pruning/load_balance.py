"""Sparse matrices whose work is spread evenly over processing elements (Han et al. 2017, "ESE", section 3.2)."""

import torch
from torch import Tensor

from adaptkit.pruning.masks import count_kept, highest


def load_balanced_mask(weight: Tensor, sparsity: float, elements: int) -> Tensor:
    """Keep the largest magnitudes of each element, the same number in all; row r belongs to element r mod E.

    Args:
        weight: rows × …, at least as many rows as elements.
        sparsity: Share of zeros, from 0 to 1; a little more become zero where the rest does not divide evenly.
        elements: E.

    Returns:
        A boolean tensor of the same shape.

    Example:
        >>> load_balanced_mask(torch.tensor([[9.0, 8.0], [1.0, 2.0]]), 0.5, elements=2)
        tensor([[ True, False],
                [False,  True]])
    """
    mask = torch.zeros_like(weight, dtype=torch.bool)
    kept = count_kept(weight.numel(), sparsity) // elements
    for element in range(elements):
        rows = weight[element::elements].detach().abs()
        mask[element::elements] = highest([rows], min(kept, rows.numel()))[0]
    return mask


def busiest_to_mean(weight: Tensor, elements: int) -> float:
    """Return the number of weights of the busiest element over the mean: 1 is perfect balance.

    A step of the accelerator takes as long as its busiest element, so this is the factor by which imbalance slows it.

    Args:
        weight: rows × …
        elements: E.

    Example:
        >>> busiest_to_mean(torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), elements=2)
        1.5
    """
    loads = torch.stack([(weight[element::elements] != 0).sum() for element in range(elements)]).double()
    return float(loads.max() / loads.mean()) if float(loads.sum()) else 1.0
