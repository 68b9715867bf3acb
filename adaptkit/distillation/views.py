"""Views: what one of two networks sees of a sample."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from adaptkit.errors import DataError


def view(x: Tensor, channels: Sequence[int] | None, size: int | None) -> Tensor:
    """Take some channels of samples, and scale their images.

    Args:
        x: N × C × …; N × C × H × W where `size` is given.
        channels: Which to keep, in this order; all where None.
        size: Height and width to scale images to, with averaging where they shrink; as they are where None.

    Raises:
        DataError: There is no such channel, or the samples are no images.

    Example:
        >>> import torch
        >>> view(torch.arange(8.0).reshape(1, 2, 2, 2), channels=[1], size=1)
        tensor([[[[5.5000]]]])
    """
    if channels is not None:
        if max(channels) >= x.shape[1]:
            raise DataError(f"a view takes channel {max(channels)}; the samples have {x.shape[1]}, counted from 0")
        x = x[:, list(channels)]
    if size is None:
        return x
    if x.dim() != 4:
        raise DataError(f"a view scales images, N × C × H × W; the samples have shape {tuple(x.shape)}")
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)
