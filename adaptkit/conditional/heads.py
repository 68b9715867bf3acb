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


def make_head(
    shape: tuple[int, ...], classes: int, kind: HeadKind = "convolution", width: int = 32, depth: int = 1
) -> nn.Module:
    """Make a head for what a module puts out.

    Feature maps are pooled to about 4 × 4 places and classified by one linear layer; `convolution` puts 3 × 3
    convolutions with stride 2, normalization and ReLU in front, as long as there are more than 4 × 4 places. Tokens are
    averaged, vectors taken as they are.

    Args:
        shape: Without the batch: channels × height × width, tokens × features, or features.
        classes: Size of the answer.
        kind: Of head for feature maps.
        width: Output channels of the first convolution; each further one doubles them.
        depth: Convolutions at most; one always is there.

    Raises:
        ModelError: The shape is none of these.

    Example:
        >>> import torch
        >>> make_head((16, 32, 32), 10, depth=2)(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 10])
    """
    if len(shape) == 1:
        return nn.Linear(shape[0], classes)
    if len(shape) == 2:
        return TokenHead(shape[1], classes)
    if len(shape) != 3:
        raise ModelError(f"an exit classifies maps, tokens or vectors; here are {len(shape)} dimensions: {shape}")
    channels, *places = shape
    layers: list[nn.Module] = []
    for number in range(depth if kind == "convolution" else 0):
        if number and max(places) <= _CELLS:
            break
        wide = width * 2**number
        layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        channels, places = wide, [(place + 1) // 2 for place in places]
    pool = [max(1, place // _CELLS) for place in places]
    if max(pool) > 1:
        layers.append(nn.AvgPool2d((pool[0], pool[1])))
    cells = (places[0] // pool[0]) * (places[1] // pool[1])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * cells, classes))
