"""One image file to pixels."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from adaptkit.errors import DataError

Pixels = NDArray[np.uint8]

_GRAY = {"1", "L", "LA"}
_DEEP = {"I", "F"}


def is_gray(content: bytes, name: str) -> bool:
    """Say whether an image has one channel, from its header.

    Args:
        content: The file.
        name: What to call it in an error.
    """
    return _open(content, name).mode in _GRAY


def decode(content: bytes, name: str, channels: int, size: int | None) -> Pixels:
    """Decode an image file to H × W × channels.

    Args:
        content: The file.
        name: What to call it in an error.
        channels: 1, or 3 for red, green, blue; a gray image is spread over three, a coloured one is not made gray.
        size: Cut the middle square and resize it (bilinear, antialiased) to size × size; None leaves it.

    Raises:
        DataError: It cannot be read, or has colours and is asked for in gray.
    """
    return to_pixels(_open(content, name), name, channels, size)


def to_pixels(image: Image.Image, name: str, channels: int | None, size: int | None) -> Pixels:
    """Turn an image into H × W × channels, as `decode` does; None takes the channels it has."""
    if image.mode in _DEEP or image.mode.startswith("I;"):
        raise DataError(f"{name} has pixels of more than 8 bits ({image.mode}); convert it to 8 bits")
    gray = image.mode in _GRAY
    if channels == 1 and not gray:
        raise DataError(
            f"{name} has colours ({image.mode}), the images before are gray: all must have the same channels"
        )
    try:
        image = image.convert("L" if channels == 1 or (channels is None and gray) else "RGB")
    except (OSError, ValueError, SyntaxError, zlib.error) as error:
        raise DataError(f"{name} cannot be read as an image: {error}") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    pixels: Pixels = np.asarray(image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _open(content: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name} cannot be read as an image") from error
