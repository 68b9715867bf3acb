"""MobileNetV2 for 32 × 32 images."""

import torch
from torch import nn

# Expansion, channels at width 1, blocks, stride of the first: table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


def _scaled(channels: int, width: float) -> int:
    """Round to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Widen, filter every channel by itself, narrow; added to the input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [*_convolution(inputs, inner), nn.ReLU6()]
        layers += [*_convolution(inner, inner, 3, stride, groups=inner), nn.ReLU6(), *_convolution(inner, outputs)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × inputs × H × W to N × outputs × H / stride × W / stride."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.adds else y


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2), the first convolution without its stride, as 32 × 32 pixels are few.

    Args:
        num_classes: Size of the output.
        width: Factor on all channels but the last 1280, which grow with it above 1 only.

    Example:
        >>> CifarMobileNetV2(width=0.5).eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        channels = _scaled(_STEM, width)
        layers: list[nn.Module] = [*_convolution(3, channels, 3), nn.ReLU6()]
        for expansion, wanted, blocks, stride in _STAGES:
            for block in range(blocks):
                outputs = _scaled(wanted, width)
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        last = _scaled(_LAST, max(width, 1.0))
        self.features = nn.Sequential(*layers, *_convolution(channels, last), nn.ReLU6())
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 3 × 32 × 32 normalized images to N × num_classes logits."""
        logits: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def mobilenet_v2_cifar(num_classes: int = 10) -> CifarMobileNetV2:
    """Build MobileNetV2 of half width for 3 × 32 × 32 images (0.7 M parameters)."""
    return CifarMobileNetV2(num_classes, width=0.5)
