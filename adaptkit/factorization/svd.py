"""factorize.svd: a layer becomes two."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from adaptkit.factorization.base import WeightedFactorization

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.factorization.schemes import Scheme


class SvdFactorization(WeightedFactorization):
    """Replace linear layers and convolutions by two of them, the best approximation of rank r.

    W ≈ L R with the least ‖W − L R‖² = Σ_{i > r} σ_i². A linear layer, out × in, becomes in → r → out without bias
    between. A convolution is a matrix in one of two ways: `channel`, out × (in · height · width), becomes the same
    kernel to r channels and a 1 × 1 one (Zhang et al. 2016, "Accelerating very deep convolutional networks for
    classification and detection"); `spatial`, (in · height) × (out · width), becomes height × 1 to r channels and
    1 × width (Jaderberg et al. 2014, "Speeding up convolutional neural networks with low rank expansions"; Tai et al.
    2016). Stride, padding, dilation and bias are kept; grouped convolutions are left alone.

    Ranks are a number, a share of the full rank, the fewest that keep a share of the energy Σ σ², what variational
    Bayes tells from noise (Nakajima et al. 2013), or follow from a budget over all layers, multiply-accumulates or
    measured time, so that the layer that loses most loses least. A layer that would not get smaller, or is not faster
    when measured on ONNX Runtime, stays as it is.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from adaptkit.technique import Context
        >>> net = nn.Sequential(nn.Linear(256, 256))
        >>> settings = SvdFactorization(rank=16, undo_slower=False)
        >>> settings.apply(net, Context(example_inputs=(torch.zeros(1, 256),)))[0]
        Sequential(
          (0): Linear(in_features=256, out_features=16, bias=False)
          (1): Linear(in_features=16, out_features=256, bias=True)
        )
    """

    name: ClassVar[str] = "factorize.svd"

    convolution: Literal["channel", "spatial"] = Field(
        "channel", description="channel: the kernel, then 1 × 1; spatial: height × 1, then 1 × width."
    )

    def scheme(self, module: nn.Module) -> Scheme | str | None:
        """Take linear layers and convolutions."""
        from torch import nn

        from adaptkit.factorization.schemes import Channel, Spatial

        if isinstance(module, nn.Conv2d) and self.convolution == "spatial":
            return Spatial()
        return Channel() if isinstance(module, (nn.Conv2d, nn.Linear)) else None
