"""The small classifiers of exits."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from adaptkit.errors import ModelError

HeadKind = Literal["linear", "convolution"]
_CELLS = 4
"""A head looks at about as many places in each direction."""


class TokenHead(nn.Module):
    """Classify a sequence: normalize each token, average, one linear layer.

    Args:
        features: Of a token.
        classes: Size of the answer.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.norm, self.answer = nn.LayerNorm(features), nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map N × tokens × features to N × classes."""
        logits: Tensor = self.answer(self.norm(x).mean(1))
        return logits


def make_head(shape: tuple[int, ...], classes: int, kind: HeadKind = "convolution", width: int = 32) -> nn.Module:
    """Make a head for what a module puts out.

    Feature maps are pooled to about 4 × 4 places and classified by one linear layer; `convolution` puts a 3 × 3
    convolution with stride 2, normalization and ReLU in front. Tokens are averaged, vectors taken as they are.

    Args:
        shape: Without the batch: channels × height × width, tokens × features, or features.
        classes: Size of the answer.
        kind: Of head for feature maps.
        width: Output channels of the convolution.

    Raises:
        ModelError: The shape is none of these.

    Example:
        >>> import torch
        >>> make_head((16, 32, 32), 10)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 10])
    """
    if len(shape) == 1:
        return nn.Linear(shape[0], classes)
    if len(shape) == 2:
        return TokenHead(shape[1], classes)
    if len(shape) != 3:
        raise ModelError(f"an exit classifies maps, tokens or vectors; here are {len(shape)} dimensions: {shape}")
    channels, height, width_of_map = shape
    layers: list[nn.Module] = []
    if kind == "convolution":
        layers = [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels, height, width_of_map = width, (height + 1) // 2, (width_of_map + 1) // 2
    pool = max(1, height // _CELLS), max(1, width_of_map // _CELLS)
    if max(pool) > 1:
        layers.append(nn.AvgPool2d(pool))
    places = (height // pool[0]) * (width_of_map // pool[1])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * places, classes))
