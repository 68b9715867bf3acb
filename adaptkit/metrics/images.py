"""How alike two images are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.arrays import Values, finite

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03


def psnr(images: Values, references: Values, data_range: float = 1.0) -> Tensor:
    """Compute the peak signal-to-noise ratio of each image: 10 log₁₀(L² / MSE).

    Args:
        images: N × C × H × W.
        references: The same shape.
        data_range: L, the difference of the largest and the smallest value a pixel can have, not of those it has.

    Returns:
        N values in decibels, infinite for equal images; higher is more alike.

    Raises:
        DataError: The shapes differ or are no images, or there is NaN.

    Example:
        >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5))
        tensor([6.0206], dtype=torch.float64)
    """
    first, second = _pair(images, references, data_range)
    error = (first - second).square().mean((1, 2, 3))
    return 10 * (data_range**2 / error).log10()


def ssim(images: Values, references: Values, data_range: float = 1.0, window: int = 11) -> Tensor:
    """Compute the structural similarity of each image (Wang et al. 2004, section III).

    Mean over windows and channels of (2 μₓμ_y + c₁)(2 σₓ_y + c₂) / ((μₓ² + μ_y² + c₁)(σₓ² + σ_y² + c₂)), with
    c₁ = (0.01 L)², c₂ = (0.03 L)² and Gaussian windows of deviation 1.5 that lie wholly inside the image. scikit-image
    gives the same with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.

    Args:
        images: N × C × H × W.
        references: The same shape.
        data_range: L, the difference of the largest and the smallest value a pixel can have, not of those it has.
        window: Odd, the side of a window; 11 in the paper, less for small images, which is then not comparable.

    Returns:
        N values from −1 to 1; 1 for equal images.

    Raises:
        DataError: The shapes differ or are no images, the window does not fit, or there is NaN.

    Example:
        >>> x = torch.rand(1, 3, 16, 16)
        >>> ssim(x, x).item(), ssim(x, 1 - x).item() < 0
        (1.0, True)
    """
    first, second = _pair(images, references, data_range)
    if window < 3 or window % 2 == 0:
        raise AdaptkitError(f"window is odd and at least 3, such as 11; got {window}")
    if window > min(first.shape[2:]):
        side = min(first.shape[2:])
        raise DataError(f"a window of {window} does not fit images of {side} pixels; give window={odd_window(side)}")
    mean_x, mean_y = _blurred(first, window), _blurred(second, window)
    variance_x = _blurred(first * first, window) - mean_x**2
    variance_y = _blurred(second * second, window) - mean_y**2
    covariance = _blurred(first * second, window) - mean_x * mean_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean((1, 2, 3))


def odd_window(side: int) -> int:
    """Choose the largest window of `ssim` that fits, at most 11.

    Example:
        >>> odd_window(8), odd_window(224)
        (7, 11)
    """
    return min(11, side - 1 + side % 2)


def _pair(images: Values, references: Values, data_range: float) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(finite(*each)) for each in (("images", images), ("references", references)))
    if first.shape != second.shape or first.ndim != 4:
        raise DataError(
            f"give two batches of images N × C × H × W of one shape; got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if data_range <= 0:
        raise AdaptkitError(f"data_range is above 0, such as 1 for pixels from 0 to 1; got {data_range}")
    return first, second


def _blurred(images: Tensor, window: int) -> Tensor:
    offsets = torch.arange(window, dtype=images.dtype) - window // 2
    line = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    return F.conv2d(images, kernel.expand(channels, 1, window, window), groups=channels)
