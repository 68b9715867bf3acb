"""Common corruptions of images, in five severities, and the accuracy that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.arrays import Array, Values, labels, scores
from adaptkit.metrics.estimate import CONFIDENCE, Estimate
from adaptkit.metrics.intervals import exact_share
from adaptkit.metrics.resampling import bootstrap
from adaptkit.metrics.running import outputs_of

SEVERITIES = (1, 2, 3, 4, 5)
_SMALL_SIDE = 64
"""Images up to here get the constants of CIFAR-10-C, larger ones those of ImageNet-C."""

_NOISE = {True: (0.04, 0.06, 0.08, 0.09, 0.10), False: (0.08, 0.12, 0.18, 0.26, 0.38)}
_BLUR = {True: (0.4, 0.6, 0.7, 0.8, 1.0), False: (1.0, 2.0, 3.0, 4.0, 6.0)}
_QUALITY = {True: (80, 65, 58, 50, 40), False: (25, 18, 15, 10, 7)}


def gaussian_noise(images: Tensor, severity: int, seed: int = 0) -> Tensor:
    """Add normal noise to each pixel: deviation 0.04 to 0.10, or 0.08 to 0.38 above 64 pixels.

    Args:
        images: N × C × H × W pixels from 0 to 1.
        severity: 1 to 5.
        seed: Source of the noise.

    Raises:
        DataError: They are no such images.

    Example:
        >>> gaussian_noise(torch.full((1, 1, 8, 8), 0.5), 3).std() > 0.05
        tensor(True)
    """
    _check(images, severity)
    noise = np.random.default_rng([seed, severity]).normal(scale=_constant(_NOISE, images, severity), size=images.shape)
    return (images + torch.from_numpy(noise).to(images)).clamp(0, 1)


def gaussian_blur(images: Tensor, severity: int, seed: int = 0) -> Tensor:
    """Blur with a Gaussian window: deviation 0.4 to 1 pixels, or 1 to 6 above 64 pixels; `seed` is not used.

    Args:
        images: N × C × H × W pixels from 0 to 1.
        severity: 1 to 5.
        seed: Of no effect.

    Raises:
        DataError: They are no such images.

    Example:
        >>> gaussian_blur(torch.full((1, 1, 8, 8), 0.5), 3).std() < 1e-6
        tensor(True)
    """
    _check(images, severity)
    sigma = _constant(_BLUR, images, severity)
    radius = min(ceil(4 * sigma), min(images.shape[2:]) - 1)
    blurred: Tensor = TF.gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    return blurred.clamp(0, 1)


def jpeg(images: Tensor, severity: int, seed: int = 0) -> Tensor:
    """Store as JPEG and read back: quality 80 to 40, or 25 to 7 above 64 pixels; `seed` is not used.

    Args:
        images: N × C × H × W pixels from 0 to 1, C = 1 or 3.
        severity: 1 to 5.
        seed: Of no effect.

    Raises:
        DataError: They are no such images.

    Example:
        >>> jpeg(torch.rand(2, 3, 8, 8), 1).shape
        torch.Size([2, 3, 8, 8])
    """
    _check(images, severity)
    if images.shape[1] not in (1, 3):
        raise DataError(f"JPEG files have 1 or 3 channels; the images have {images.shape[1]}: choose other corruptions")
    quality = int(_constant(_QUALITY, images, severity))
    pixels = (images.cpu() * 255).round().to(torch.uint8)
    return (
        torch.stack([TF.pil_to_tensor(_stored(TF.to_pil_image(image), quality)) for image in pixels]).to(images) / 255
    )


CORRUPTIONS: Mapping[str, Callable[[Tensor, int, int], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "jpeg": jpeg,
}


@dataclass(frozen=True)
class CorruptedAccuracy:
    """How often a model is right on images as a camera and a link may leave them.

    Args:
        clean: On the images as they are.
        corrupted: By the name of the corruption, one for each severity.
        mean: Over corruptions and severities, by bootstrap over samples, each with all its answers.
    """

    clean: Estimate
    corrupted: Mapping[str, tuple[Estimate, ...]]
    mean: Estimate


def corrupted_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    names: tuple[str, ...] = tuple(CORRUPTIONS),
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> CorruptedAccuracy:
    """Measure accuracy under common corruptions (Hendrycks and Dietterich 2019, section 4; constants of their code).

    A second view beside `robust_accuracy_upper_bound`: what happens by chance, not by intent. Noise and JPEG are of the
    paper's fifteen corruptions, Gaussian blur is one of its four extra ones, so that the mean is no mCE of it.

    Args:
        model: Gives logits from pixels; put the normalization into it.
        x: N × C × H × W pixels from 0 to 1.
        y: N class numbers.
        names: Of `CORRUPTIONS`.
        confidence: Of each interval, exact (Clopper and Pearson 1934) but that of the mean.
        seed: Source of the noise.

    Raises:
        AdaptkitError: A corruption is unknown.
        DataError: They are no such images, or a label is no class.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> x = torch.rand(10, 1, 8, 8)
        >>> found = corrupted_accuracy(model, x, model(x).argmax(1), ("jpeg",))
        >>> found.clean.value, len(found.corrupted["jpeg"])
        (1.0, 5)
    """
    hits = corrupted_hits(partial(outputs_of, model), x, y, names, seed=seed)
    shares = {name: tuple(share_of_hits(column[:, None], confidence) for column in hits[name].T) for name in hits}
    (clean,) = shares.pop("clean")
    return CorruptedAccuracy(clean, shares, share_of_hits(np.hstack([hits[name] for name in shares]), confidence))


def corrupted_hits(
    answer: Callable[[Tensor], Values],
    x: Tensor,
    y: Tensor,
    names: tuple[str, ...] = tuple(CORRUPTIONS),
    severities: tuple[int, ...] = SEVERITIES,
    *,
    seed: int = 0,
) -> dict[str, Array]:
    """Say which corrupted images are answered right.

    Args:
        answer: Gives n × classes scores from pixels.
        x: n × C × H × W pixels from 0 to 1.
        y: n class numbers.
        names: Of `CORRUPTIONS`.
        severities: Of 1 to 5.
        seed: Source of the noise.

    Returns:
        By the name of the corruption n × severities truth values; as "clean" n × 1, of the images as they are.

    Raises:
        AdaptkitError: A corruption or severity is unknown.
        DataError: They are no such images, or a label is no class.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> found = corrupted_hits(nn.Flatten(), x, x.flatten(1).argmax(1), ("jpeg",), (1, 5))
        >>> found["clean"].tolist(), found["jpeg"].shape
        ([[True], [True], [True]], (3, 2))
    """
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise AdaptkitError(f"corruptions are {', '.join(CORRUPTIONS)}; got {', '.join(unknown) or 'none'}")
    _check(x, SEVERITIES[0])

    def right(images: Tensor) -> Array:
        logits = scores("logits", answer(images))
        hits: Array = logits.argmax(1) == labels("y", y, *logits.shape)
        return hits

    found = {name: [right(CORRUPTIONS[name](x, severity, seed)) for severity in severities] for name in names}
    return {name: np.stack(columns, axis=1) for name, columns in {"clean": [right(x)], **found}.items()}


def share_of_hits(hits: Array, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the share of right answers among several a sample: exactly where it is one, else by bootstrap.

    Example:
        >>> share_of_hits(np.array([[True, True], [True, False]])).value
        0.75
    """
    if hits.shape[1] == 1:
        return exact_share(int(hits.sum()), len(hits), confidence)
    return bootstrap(np.mean, [hits.mean(axis=1)], confidence=confidence)


def _stored(image: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _constant(table: Mapping[bool, tuple[float, ...]], images: Tensor, severity: int) -> float:
    return table[max(images.shape[2:]) <= _SMALL_SIDE][severity - 1]


def _check(images: Tensor, severity: int) -> None:
    if images.ndim != 4 or min(images.shape) == 0 or not images.is_floating_point():
        raise DataError(f"x: give images N × C × H × W of floating point; got {images.dtype} of {tuple(images.shape)}")
    if not (images.min() >= 0 and images.max() <= 1):
        raise DataError(
            f"x: pixels are from {float(images.min()):.3g} to {float(images.max()):.3g}; give them from 0 to 1 and put "
            "the normalization into the model"
        )
    if severity not in SEVERITIES:
        raise AdaptkitError(f"severity is a whole number from 1 to 5; got {severity}")
