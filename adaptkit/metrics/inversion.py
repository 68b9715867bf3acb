"""Model inversion: how well an attacker rebuilds inputs from activations that are sent over a link."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batches
from adaptkit.metrics.arrays import Values, finite, same_length
from adaptkit.metrics.estimate import Estimate
from adaptkit.metrics.images import odd_window, psnr, ssim
from adaptkit.metrics.resampling import bootstrap
from adaptkit.metrics.running import outputs_of
from adaptkit.training.fit import fit
from adaptkit.training.losses import supervised
from adaptkit.training.settings import FitSettings

_WIDTH = 32
_LARGEST_STEP = 4
_HIGHEST_PSNR = 100.0
_FEWEST = 20
_FIT = FitSettings(optimizer="adamw", learning_rate=3e-3, weight_decay=1e-4)


@dataclass(frozen=True)
class Inversion:
    """How alike rebuilt inputs are to the true ones.

    Args:
        psnr: Mean over images, in decibels; an image that is rebuilt exactly counts as 100 dB.
        ssim: Mean over images, from −1 to 1.
        blind_psnr: What the mean of the attacker's images scores, with no activation seen.
        blind_ssim: The same by structural similarity.
    """

    psnr: Estimate
    ssim: Estimate
    blind_psnr: Estimate
    blind_ssim: Estimate


def inversion_attack(
    known_activations: Values,
    known_images: Values,
    activations: Values,
    images: Values,
    *,
    epochs: float = 40,
    confidence: float = 0.95,
    seed: int = 0,
) -> Inversion:
    """Train a decoder from activations to images on the attacker's samples, and score it on others.

    The attacker has samples of the same kind and can run the first part of the network (the learning-based black-box
    attack of He et al. 2019, "Model inversion attacks against collaborative inference"). What this decoder
    rebuilds, an attacker can rebuild; a better one may get more, so the figures are lower bounds of the leak.

    Args:
        known_activations: N × C × h × w or N × d, of the attacker's samples.
        known_images: N × C × H × W pixels from 0 to 1, before normalization.
        activations: M × the same, of samples that the attacker does not have.
        images: M × C × H × W pixels, what he is to rebuild.
        epochs: Training of the decoder.
        confidence: Of the intervals, by bootstrap over the M images; they hold for this decoder.
        seed: Source of the decoder's first weights, the order and the bootstrap.

    Raises:
        DataError: There are fewer than 20 samples of a kind, the shapes do not fit, pixels are outside 0 to 1, or NaN.

    Example:
        >>> x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = inversion_attack(x[:40], x[:40], x[40:], x[40:])
        >>> found.psnr.low > found.blind_psnr.high
        True
    """
    known, wanted = _images("known_images", known_images), _images("images", images)
    features = torch.from_numpy(finite("known_activations", known_activations, _FEWEST)).float()
    given = torch.from_numpy(finite("activations", activations, _FEWEST)).float()
    same_length("known_activations", len(features), len(known))
    same_length("activations", len(given), len(wanted))
    for name, first, second in (("images", known, wanted), ("activations", features, given)):
        if first.shape[1:] != second.shape[1:] or first.ndim < 2:
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise DataError(f"{name}: the attacker's and the others have shapes {shapes}; they may differ in N only")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(features, known.shape[1:])
    batches = Batches(features, known, batch_size=64, shuffle=True, seed=seed)
    fit(decoder, batches, epochs=epochs, settings=_FIT, loss=supervised(F.mse_loss), seed=seed)
    scored = _scored(outputs_of(decoder, given), wanted, confidence, seed)
    blind = _scored(known.mean(0).expand_as(wanted), wanted, confidence, seed)
    return Inversion(*scored, *blind)


class Decoder(nn.Module):
    """Rebuilds images from activations: convolutions where these have places, a matrix first where they have few.

    Args:
        features: Activations of the attacker's samples; their means and deviations scale what comes in.
        image: C × H × W.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, image: torch.Size) -> None:
        super().__init__()
        channels, height, width = image
        places = (0, *range(2, features.ndim))
        deviation = features.std(places, correction=0, keepdim=True)[0]
        self.register_buffer("mean", features.mean(places, keepdim=True)[0])
        self.register_buffer("scale", torch.where(deviation > 0, 1 / deviation, torch.zeros_like(deviation)))
        self.size = (height, width)
        step = _step(features.shape, height, width)
        front: list[nn.Module] = []
        inner = features.shape[1]
        if step is None:
            step, inner = _LARGEST_STEP, _WIDTH
            small = (inner, ceil(height / step), ceil(width / step))
            front = [nn.Flatten(), nn.Linear(features[0].numel(), inner * small[1] * small[2]), nn.ReLU()]
            front.append(nn.Unflatten(1, small))
        self.layers = nn.Sequential(
            *front,
            nn.Conv2d(inner, _WIDTH * step**2, 3, padding=1),
            nn.PixelShuffle(step),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, channels, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return pixels from 0 to 1."""
        images: Tensor = self.layers((x - self.mean) * self.scale)
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return images


def _step(features: torch.Size, height: int, width: int) -> int | None:
    """Pixels to a place of the activations, along a side; None where they have no places, or too few."""
    if len(features) != 4:
        return None
    step = max(1, ceil(height / features[2]), ceil(width / features[3]))
    return step if step <= _LARGEST_STEP else None


def _images(name: str, values: Values) -> Tensor:
    images = torch.from_numpy(finite(name, values, _FEWEST))
    if images.ndim != 4 or min(images.shape[2:]) < 3:
        raise DataError(f"{name}: give images N × C × H × W of at least 3 × 3 pixels; got {tuple(images.shape)}")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise DataError(
            f"{name}: pixels are from {low:.3g} to {high:.3g}; give them from 0 to 1, as they are before normalization"
        )
    return images.float()


def _scored(rebuilt: Tensor, images: Tensor, confidence: float, seed: int) -> tuple[Estimate, Estimate]:
    decibels = psnr(rebuilt, images).clamp(max=_HIGHEST_PSNR)
    likeness = ssim(rebuilt, images, window=odd_window(min(images.shape[2:])))
    noise, structure = (
        bootstrap(np.mean, [each.numpy()], confidence=confidence, seed=seed) for each in (decibels, likeness)
    )
    return noise, structure
