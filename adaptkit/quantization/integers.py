"""What an integer processor computes, to the last bit: whole sums, one float32 factor, one rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.quantization.plan import Grid

_EXACT = 1 << 24
"""Whole numbers up to it are exact in float32, in whatever order they are added."""


def rescaled(total: Tensor, factor: Tensor, grid: Grid) -> Tensor:
    """Bring whole sums onto a grid: s · round(clamp(t · m, lowest − z, highest − z)), halves to the even neighbour.

    Args:
        total: t, whole numbers; as float32, as the runtime converts them.
        factor: m, the scales of what was multiplied over s, of a shape that multiplies t.
        grid: s and z, one for the tensor.

    Returns:
        Values of the grid, in the shape of `total`.

    Example:
        >>> rescaled(torch.tensor([5.0, 7.0, 9999.0]), torch.tensor(0.5), Grid((2.0,), (128,), signed=False))
        tensor([  4.,   8., 254.])
    """
    lowest, highest = grid.lowest - grid.zero_point[0], grid.highest - grid.zero_point[0]
    return (total * factor).clamp_(lowest, highest).round_().mul_(grid.scale[0])


def whole(value: Tensor, scale: Tensor) -> Tensor:
    """Give the integers q − z of values that lie on a grid.

    Example:
        >>> whole(torch.tensor([0.3, -0.6000001]), torch.tensor(0.1))
        tensor([ 3., -6.])
    """
    return (value / scale).round_()


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute a · b + c with one rounding, as a processor's fused multiply-add does, in float32.

    Products of two float32 are exact in float64. (Its sum is rounded there, too, which changes the result only where
    it lies within 2⁻⁵³ of halfway.)

    Example:
        >>> a = torch.tensor(1 + 2.0**-12)
        >>> fused(a, a, torch.tensor(-1.0)) - (2.0**-11 + 2.0**-24), (a * a - 1) - (2.0**-11 + 2.0**-24)
        (tensor(0.), tensor(-5.9605e-08))
    """
    return (a.double() * b.double()).add_(c.double()).float()


class Divided(nn.Module):
    """Round to a grid by division, as QuantizeLinear does; training multiplies by 1 / s, which is faster.

    Args:
        grid: One scale for the tensor.

    Example:
        >>> Divided(Grid((0.5,), (0,), signed=False))(torch.tensor([-1.0, 0.3, 500.0]))
        tensor([  0.0000,   0.5000, 127.5000])
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Round; its gradient is 1 inside of the grid."""
        rounded = rescaled(x.detach() / torch.tensor(self.grid.scale[0]), torch.ones(()), self.grid)
        return rounded if not x.requires_grad else _through(rounded, _clamped(x, self.grid))


class IntegerOperation(nn.Module):
    """An operation of ONNX Runtime that reads and writes integers; values come and go on their grids, as floats.

    Backward it is the float operation, clamped to the grid.

    Args:
        grids: Of what it reads, in order.
        result: Of what it writes.
    """

    def __init__(self, grids: tuple[Grid, ...], result: Grid) -> None:
        super().__init__()
        self.grids, self.result = grids, result

    def forward(self, *values: Tensor) -> Tensor:
        """Compute in integers."""
        with torch.no_grad():
            exact = self.integers(*values)
        if not torch.is_grad_enabled() or not any(value.requires_grad for value in values):
            return exact
        return _through(exact, _clamped(self.floats(*values), self.result))

    def integers(self, *values: Tensor) -> Tensor:
        """Compute what the runtime computes."""
        raise TypeError(f"{type(self).__name__} defines no integers()")

    def floats(self, *values: Tensor) -> Tensor:
        """Compute the same without rounding."""
        raise TypeError(f"{type(self).__name__} defines no floats()")


class IntegerLayer(IntegerOperation):
    """QLinearConv, QGemm: Σ (q_x − z_x) q_w + q_b in 32 bits, times s_x · s_w / s_y, rounded (Jacob et al. 2018, 2.2).

    Args:
        grids: Of input, weight and, where there is one, bias.
        result: Of the output.
        layer: The operation.
        settings: What it takes besides input, weight and bias.
    """

    def __init__(
        self, grids: tuple[Grid, ...], result: Grid, layer: Callable[..., Tensor], settings: tuple[Any, ...]
    ) -> None:
        super().__init__(grids, result)
        self.layer, self.settings = layer, settings

    def integers(self, *values: Tensor) -> Tensor:
        """Add up exactly: in float32 where no sum can leave what it holds, else in float64."""
        x, weight = values[:2]
        scale, scales = torch.tensor(self.grids[0].scale[0]), torch.tensor(self.grids[1].scale)
        inputs = whole(x, scale)
        weights = whole(weight, scales.reshape(-1, *[1] * (weight.dim() - 1)))
        bias = torch.zeros(len(weight), dtype=torch.float64)
        if len(values) == 3:
            bias = torch.round(values[2].double() / torch.tensor(self.grids[2].scale).double())
        sums = weights.abs().flatten(1).sum(1) * inputs.abs().amax() + bias.abs()
        if sums.amax() < _EXACT:
            total = self.layer(inputs, weights, bias.float(), *self.settings)
        else:
            total = self.layer(inputs.double(), weights.double(), bias, *self.settings).float()
        factor = scale * scales / torch.tensor(self.result.scale[0])
        return rescaled(total, factor.reshape(-1, *[1] * (total.dim() - 2)), self.result)

    def floats(self, *values: Tensor) -> Tensor:
        """Compute the layer."""
        bias = values[2] if len(values) == 3 else None
        return self.layer(*values[:2], bias, *self.settings)


class IntegerSum(IntegerOperation):
    """QLinearAdd: q_y = round(r_a q_a + (r_b q_b + (z_y − (r_a z_a + r_b z_b)))) with r = s / s_y, in fused steps."""

    def integers(self, *values: Tensor) -> Tensor:
        """Add two tensors."""
        result, step = self.result, torch.tensor(self.result.scale[0])
        if values[0].shape != values[1].shape:
            # One that is spread over the other takes another way through the kernel, of which nothing is claimed.
            rounded: Tensor = Divided(result)(self.floats(*values))
            return rounded
        scales = [torch.tensor(grid.scale[0]) for grid in self.grids]
        zeros = [torch.tensor(float(grid.zero_point[0])) for grid in self.grids]
        first, second = (scale / step for scale in scales)
        total = float(result.zero_point[0]) - fused(first, zeros[0], second * zeros[1])
        total = fused(whole(values[1], scales[1]).add_(zeros[1]), second, total)
        total = fused(whole(values[0], scales[0]).add_(zeros[0]), first, total)
        return _stepped(total, result)

    def floats(self, *values: Tensor) -> Tensor:
        """Add two tensors."""
        return values[0] + values[1]


class IntegerProduct(IntegerOperation):
    """QLinearMul: q_y = round((q_a − z_a) (q_b − z_b) · s_a s_b / s_y + z_y)."""

    def integers(self, *values: Tensor) -> Tensor:
        """Multiply two tensors."""
        scales = [torch.tensor(grid.scale[0]) for grid in self.grids]
        product = whole(values[0], scales[0]) * whole(values[1], scales[1])
        factor = scales[0] * scales[1] / torch.tensor(self.result.scale[0])
        return _stepped((product * factor).add_(self.result.zero_point[0]), self.result)

    def floats(self, *values: Tensor) -> Tensor:
        """Multiply two tensors."""
        return values[0] * values[1]


class IntegerPool(IntegerOperation):
    """QLinearAveragePool without padding: values added in float32, row by row, over their number and s_y, plus z_y.

    Args:
        grids: Of the input.
        result: Of the output.
        kernel: Height and width of a window.
        stride: Steps down and to the right.
    """

    def __init__(self, grids: tuple[Grid, ...], result: Grid, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__(grids, result)
        self.kernel, self.stride = kernel, stride

    def integers(self, *values: Tensor) -> Tensor:
        """Average over windows."""
        windows = values[0].unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1])
        total = torch.zeros_like(windows[..., 0, 0])
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                total = total + windows[..., row, column]
        mean = total / (self.kernel[0] * self.kernel[1])
        return _stepped(mean / torch.tensor(self.result.scale[0]) + self.result.zero_point[0], self.result)

    def floats(self, *values: Tensor) -> Tensor:
        """Average over windows."""
        return nn.functional.avg_pool2d(values[0], self.kernel, self.stride)


class IntegerMean(IntegerOperation):
    """QLinearGlobalAveragePool: whole sums over height and width, kept as ones, times s_x / (s_y · height · width)."""

    def integers(self, *values: Tensor) -> Tensor:
        """Average each channel."""
        (x,) = values
        scale = torch.tensor(self.grids[0].scale[0])
        size = torch.tensor(float(x.shape[2] * x.shape[3]))
        factor = scale / (torch.tensor(self.result.scale[0]) * size)
        return rescaled(whole(x, scale).sum((2, 3), keepdim=True), factor, self.result)

    def floats(self, *values: Tensor) -> Tensor:
        """Average each channel."""
        return values[0].mean((2, 3), keepdim=True)


def _stepped(integers: Tensor, grid: Grid) -> Tensor:
    """Round q where z is in it already: at ties that is another neighbour where z is odd."""
    return integers.round_().clamp_(grid.lowest, grid.highest).sub_(grid.zero_point[0]).mul_(grid.scale[0])


def _clamped(value: Tensor, grid: Grid) -> Tensor:
    low, high = (grid.scale[0] * (end - grid.zero_point[0]) for end in (grid.lowest, grid.highest))
    return value.clamp(low, high)


def _through(exact: Tensor, smooth: Tensor) -> Tensor:
    """Take the value of one and the gradient of the other."""
    return exact + (smooth - smooth.detach())
