"""factorize.cp: a convolution becomes 1 × 1, one kernel a channel, 1 × 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.factorization.base import WeightedFactorization

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.factorization.schemes import Scheme


class CpFactorization(WeightedFactorization):
    """Replace convolutions by 1 × 1 to r channels, one kernel for each channel, 1 × 1 to all.

    W ≈ Σ_r a_r ∘ b_r ∘ k_r (canonical polyadic form), found by alternating least squares; k_r is height × width
    (Astrid and Lee 2017, "CP-decomposition with tensor power method for convolutional neural networks compression"), or
    with `kernel: separable` a column times a row, in two layers (Lebedev et al. 2015, "Speeding-up convolutional neural
    networks using fine-tuned CP-decomposition"). Stride, padding and dilation stay with the kernel, the bias with the
    last layer. Convolutions of 1 × 1 and grouped ones are left alone.

    Ranks are a number, a share of the larger number of channels, the fewest that keep a share of the energy, found by
    trying, what variational Bayes finds in the larger of the two unfoldings (Nakajima et al. 2013), or, as the error is
    not known beforehand, the most that keep every layer within the same share of its own multiply-accumulates or
    measured time. A layer that would not get smaller, or is not faster when measured on ONNX Runtime, stays as it is.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from adaptkit.technique import Context
        >>> net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1))
        >>> settings = CpFactorization(rank=24, undo_slower=False)
        >>> settings.apply(net, Context(example_inputs=(torch.zeros(1, 16, 8, 8),)))[0]
        Sequential(
          (0): Conv2d(16, 24, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (1): Conv2d(24, 24, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=24, bias=False)
          (2): Conv2d(24, 32, kernel_size=(1, 1), stride=(1, 1))
        )
    """

    name: ClassVar[str] = "factorize.cp"

    kernel: Literal["joint", "separable"] = Field(
        "joint", description="joint: height × width in one layer; separable: height × 1, then 1 × width."
    )

    def scheme(self, module: nn.Module) -> Scheme | str | None:
        """Take convolutions."""
        from torch import nn

        from adaptkit.factorization.schemes import Cp

        if not isinstance(module, nn.Conv2d):
            return None
        if math.prod(module.kernel_size) == 1:
            return "a 1 × 1 kernel is a matrix (factorize.svd)"
        return Cp(self.kernel)
