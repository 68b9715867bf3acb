"""Random changes of whole batches of images, vectorised: no Python loop over samples."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor, np.random.Generator], Tensor]


def pad_crop(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Pad each side by an eighth of it with zeros, and cut out a random window of the old size (He et al. 2015, 4.2).

    Args:
        images: N × H × W × C, of any type.
        rng: Source of the offsets.

    Returns:
        The windows, N × H × W × C.

    Example:
        >>> pad_crop(torch.ones(2, 32, 32, 3), np.random.default_rng(0)).shape
        torch.Size([2, 32, 32, 3])
    """
    count, height, width, _ = images.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = F.pad(images, (0, 0, pad_x, pad_x, pad_y, pad_y))
    top = torch.from_numpy(rng.integers(0, 2 * pad_y + 1, count))
    left = torch.from_numpy(rng.integers(0, 2 * pad_x + 1, count))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: N × H × W × C, of any type.
        rng: Source of the choice.

    Returns:
        The images, N × H × W × C.
    """
    chosen = torch.from_numpy(rng.random(len(images)) < 0.5)
    return torch.where(chosen[:, None, None, None], images.flip(2), images)


def resized_crop(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Cut out a random part of each image and enlarge it to the old size (Szegedy et al. 2015, section 6).

    The part covers 8 % to 100 % of the area, with a width-to-height ratio between 3/4 and 4/3, drawn evenly on a
    logarithmic scale and cut to the image. Pixels are interpolated bilinearly.

    Args:
        images: N × H × W × C; whole numbers are rounded to the nearest.
        rng: Source of the windows.

    Returns:
        The enlarged parts, N × H × W × C.
    """
    count = len(images)
    area = rng.uniform(0.08, 1.0, count)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    share_x = np.minimum(np.sqrt(area * ratio), 1.0)
    share_y = np.minimum(np.sqrt(area / ratio), 1.0)
    # In the coordinates of affine_grid the image spans -1 … 1, so a window of share s may be centred within ±(1 - s).
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = share_x, rng.uniform(-1, 1, count) * (1 - share_x)
    theta[:, 1, 1], theta[:, 1, 2] = share_y, rng.uniform(-1, 1, count) * (1 - share_y)
    planes = images.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(torch.from_numpy(theta), list(planes.shape), align_corners=False)
    parts = F.grid_sample(planes, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
    return parts if images.is_floating_point() else parts.round().to(images.dtype)


AUGMENTATIONS: dict[str, Augmentation] = {"pad_crop": pad_crop, "flip": flip, "resized_crop": resized_crop}
