"""The ways to take a weight apart: into which layers, and into which weights for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from adaptkit.factorization.core import cp, low_rank, sparsified, tucker2
from adaptkit.profiling.layer_latency import LayerShape

Ranks = tuple[int, ...]
Pair = tuple[int, int]


class Scheme(Protocol):
    """One form of low-rank layer; weights are out × in for linear layers, out × in × height × width for convolutions.

    Args:
        measured: Whether the error follows from `unfoldings`: the sum of the energies that are cut (or a bound).
        sparse: Whether the factors have zeros that are to stay.
    """

    measured: ClassVar[bool]
    sparse: ClassVar[bool]

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the matrices of which each rank is the rank."""

    def shapes(self, layer: LayerShape, ranks: Ranks) -> list[LayerShape]:
        """Return the layers that replace a layer."""

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return the weights of these layers."""

    def compose(self, factors: list[Tensor]) -> Tensor:
        """Return the weight that these layers stand for."""


@dataclass(frozen=True)
class Channel:
    """W, out × (in · height · width), as L R: a layer like the original to r channels, then a 1 × 1 one.

    (Zhang et al. 2016, "Accelerating very deep convolutional networks for classification and detection", section 3.1,
    with C = 1.) A linear layer becomes two.

    Example:
        >>> first, second = Channel().factors(torch.ones(4, 3, 5, 5), (1,))
        >>> first.shape, second.shape
        (torch.Size([1, 3, 5, 5]), torch.Size([4, 1, 1, 1]))
    """

    measured: ClassVar[bool] = True
    sparse: ClassVar[bool] = False

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return out × the rest."""
        return (weight.flatten(1),)

    def shapes(self, layer: LayerShape, ranks: Ranks) -> list[LayerShape]:
        """Return the two layers."""
        first = replace(layer, out_channels=ranks[0])
        return [first, LayerShape(layer.kind, ranks[0], layer.out_channels, input_size=first.output_size)]

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return R and L."""
        left, right = low_rank(weight.flatten(1), ranks[0])
        return [right.view(-1, *weight.shape[1:]), left.view(*left.shape, *[1] * (weight.dim() - 2))]

    def compose(self, factors: list[Tensor]) -> Tensor:
        """Return L R."""
        first, second = factors
        return (second.flatten(1) @ first.flatten(1)).view(-1, *first.shape[1:])


@dataclass(frozen=True, eq=False)
class SparseChannel(Channel):
    """As Channel, with a lower rank for the least important outputs and inputs: zeros in both layers.

    Args:
        outputs: Which outputs are unimportant, as booleans.
        inputs: Which inputs are.
        kept: Share of the rank that these keep.
    """

    sparse: ClassVar[bool] = True

    outputs: Tensor
    inputs: Tensor
    kept: float

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return R and L with their zeros."""
        right, left = super().factors(weight, ranks)
        kept = math.ceil(self.kept * ranks[0] - 1e-9)
        left, right = sparsified(left, right, self.outputs, self.inputs, kept)
        return [right, left]


@dataclass(frozen=True)
class Spatial:
    """W, (in · height) × (out · width), as L R: a column of height × 1 to r channels, then a row of 1 × width.

    (Jaderberg et al. 2014, "Speeding up convolutional neural networks with low rank expansions", scheme 2; solved in
    closed form as by Tai et al. 2016, "Convolutional neural networks with low-rank regularization", section 3.1.)

    Example:
        >>> first, second = Spatial().factors(torch.ones(4, 3, 5, 5), (2,))
        >>> first.shape, second.shape
        (torch.Size([2, 3, 5, 1]), torch.Size([4, 2, 1, 5]))
    """

    measured: ClassVar[bool] = True
    sparse: ClassVar[bool] = False

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return (in · height) × (out · width)."""
        _, inputs, height, _ = weight.shape
        return (weight.permute(1, 2, 0, 3).reshape(inputs * height, -1),)

    def shapes(self, layer: LayerShape, ranks: Ranks) -> list[LayerShape]:
        """Return the two layers."""
        first = _piece(layer, (layer.in_channels, ranks[0]), layer.input_size, (True, False))
        return [first, _piece(layer, (ranks[0], layer.out_channels), first.output_size, (False, True))]

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return L and R as kernels."""
        out, inputs, height, width = weight.shape
        left, right = low_rank(self.unfoldings(weight)[0], ranks[0])
        first = left.T.reshape(-1, inputs, height, 1)
        return [first, right.view(-1, out, width).transpose(0, 1).reshape(out, -1, 1, width)]

    def compose(self, factors: list[Tensor]) -> Tensor:
        """Return L R in the order of the original."""
        return torch.einsum("rih,orw->oihw", factors[0].squeeze(3), factors[1].squeeze(2))


@dataclass(frozen=True)
class Tucker2:
    """W = C ×₀ U ×₁ V: 1 × 1 to s channels, a kernel like the original to r channels, 1 × 1 to all; ranks are (r, s).

    Example:
        >>> [tuple(factor.shape) for factor in Tucker2().factors(torch.ones(8, 6, 3, 3), (4, 2))]
        [(2, 6, 1, 1), (4, 2, 3, 3), (8, 4, 1, 1)]
    """

    measured: ClassVar[bool] = True
    sparse: ClassVar[bool] = False

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return out × the rest, and in × the rest."""
        return (weight.flatten(1), weight.transpose(0, 1).flatten(1))

    def shapes(self, layer: LayerShape, ranks: Ranks) -> list[LayerShape]:
        """Return the three layers."""
        r, s = ranks
        core = replace(layer, in_channels=s, out_channels=r)
        return [
            LayerShape("conv", layer.in_channels, s, input_size=layer.input_size),
            core,
            LayerShape("conv", r, layer.out_channels, input_size=core.output_size),
        ]

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return Vᵀ, C and U."""
        core, out_vectors, in_vectors = tucker2(weight, (ranks[0], ranks[1]))
        return [in_vectors.T[:, :, None, None], core, out_vectors[:, :, None, None]]

    def compose(self, factors: list[Tensor]) -> Tensor:
        """Return C ×₀ U ×₁ V."""
        first, core, last = factors
        wide = torch.einsum("or,rshw->oshw", last.flatten(1), core)
        return torch.einsum("oshw,si->oihw", wide, first.flatten(1))


@dataclass(frozen=True)
class Cp:
    """W = Σ a_r ∘ b_r ∘ k_r: 1 × 1 to r channels, one kernel a channel, 1 × 1 to all.

    Args:
        kernel: "joint": k_r is height × width; "separable": height × 1 and then 1 × width.

    Example:
        >>> [tuple(factor.shape) for factor in Cp().factors(torch.ones(8, 6, 3, 3), (4,))]
        [(4, 6, 1, 1), (4, 1, 3, 3), (8, 4, 1, 1)]
    """

    kernel: Literal["joint", "separable"] = "joint"
    measured: ClassVar[bool] = False
    sparse: ClassVar[bool] = False

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the longer of out × the rest and in × the rest, whose rank the sum has at least."""
        return (weight.flatten(1) if weight.shape[0] >= weight.shape[1] else weight.transpose(0, 1).flatten(1),)

    def shapes(self, layer: LayerShape, ranks: Ranks) -> list[LayerShape]:
        """Return the three or four layers."""
        (r,) = ranks
        shapes = [LayerShape("conv", layer.in_channels, r, input_size=layer.input_size)]
        for used in ((True, True),) if self.kernel == "joint" else ((True, False), (False, True)):
            shapes.append(_piece(layer, (r, r), shapes[-1].output_size, used, groups=r))
        return [*shapes, LayerShape("conv", r, layer.out_channels, input_size=shapes[-1].output_size)]

    def factors(self, weight: Tensor, ranks: Ranks) -> list[Tensor]:
        """Return the factors as kernels, in the order of the layers."""
        height, width = weight.shape[2:]
        joint = self.kernel == "joint"
        last, first, *kernels = cp(weight.flatten(2) if joint else weight, ranks[0])
        sizes = [(height, width)] if joint else [(height, 1), (1, width)]
        depthwise = [kernel.T.reshape(-1, 1, *size) for kernel, size in zip(kernels, sizes, strict=True)]
        return [first.T[:, :, None, None], *depthwise, last[:, :, None, None]]

    def compose(self, factors: list[Tensor]) -> Tensor:
        """Return the sum of the products."""
        first, *depthwise, last = factors
        kernel = depthwise[0] if len(depthwise) == 1 else depthwise[0] * depthwise[1]
        return torch.einsum("or,rhw,ri->oihw", last.flatten(1), kernel.squeeze(1), first.flatten(1))


def _piece(
    layer: LayerShape, channels: Pair, input_size: tuple[int, ...], used: tuple[bool, bool], groups: int = 1
) -> LayerShape:
    """Return a convolution that does what the original does in the dimensions that are used, and nothing in others."""

    def part(values: Pair, otherwise: int) -> Pair:
        return (values[0] if used[0] else otherwise, values[1] if used[1] else otherwise)

    return LayerShape(
        "conv",
        *channels,
        kernel=part(layer.kernel, 1),
        stride=part(layer.stride, 1),
        padding=part(layer.padding, 0),
        dilation=part(layer.dilation, 1),
        groups=groups,
        input_size=input_size,
    )
