"""factorize.tucker: a convolution becomes 1 × 1, a small kernel, 1 × 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from adaptkit.factorization.base import WeightedFactorization

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.factorization.schemes import Scheme


class TuckerFactorization(WeightedFactorization):
    """Replace convolutions by three: 1 × 1 to s channels, the kernel from s to r channels, 1 × 1 to all.

    W ≈ C ×₀ U ×₁ V (Tucker-2), with the least ‖W − C ×₀ U ×₁ V‖ that higher-order orthogonal iteration finds (Kim et
    al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile applications"). Stride,
    padding and dilation stay with the kernel, the bias with the last layer. Convolutions of 1 × 1 and grouped ones are
    left alone.

    Ranks are those of out × rest and in × rest: a number, a share of the channels, the fewest that keep a share of the
    energy, half of the rest being lost in each of the two, what variational Bayes tells from noise (Nakajima et al.
    2013), or they follow from a budget over all layers. A layer that would not get smaller, or is not faster when
    measured on ONNX Runtime, stays as it is.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from adaptkit.technique import Context
        >>> net = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1))
        >>> settings = TuckerFactorization(rank=0.5, undo_slower=False)
        >>> settings.apply(net, Context(example_inputs=(torch.zeros(1, 32, 8, 8),)))[0]
        Sequential(
          (0): Conv2d(32, 16, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (1): Conv2d(16, 32, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
          (2): Conv2d(32, 64, kernel_size=(1, 1), stride=(1, 1))
        )
    """

    name: ClassVar[str] = "factorize.tucker"

    def scheme(self, module: nn.Module) -> Scheme | str | None:
        """Take convolutions."""
        from torch import nn

        from adaptkit.factorization.schemes import Tucker2

        if not isinstance(module, nn.Conv2d):
            return None
        return Tucker2() if math.prod(module.kernel_size) > 1 else "a 1 × 1 kernel is a matrix (factorize.svd)"
