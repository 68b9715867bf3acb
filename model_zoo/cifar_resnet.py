"""CIFAR ResNets with option-A shortcuts (He et al. 2015, "Deep Residual Learning", section 4.2)."""

import torch
from torch import nn
from torch.nn import functional as F

_WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with a parameter-free shortcut.

    Where the shape changes, the shortcut takes every second pixel and zero-pads the channels evenly on both sides
    (option A of the paper).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: 1, or 2 where the block halves the image.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.pad_channels = (channels - in_channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × in_channels × H × W to N × channels × H/stride × W/stride."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride > 1 or self.pad_channels:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.pad_channels, self.pad_channels))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """A ResNet of 6n + 2 layers for 3 × 32 × 32 images.

    Args:
        blocks_per_stage: The paper's n: 3 for ResNet-20, 9 for ResNet-56.
        num_classes: Size of the output.

    Example:
        >>> model = CifarResNet(3)
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, blocks_per_stage: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks_per_stage, stride=1)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks_per_stage, stride=2)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks_per_stage, stride=2)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 3 × 32 × 32 normalized images to N × num_classes logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: torch.Tensor = self.linear(x)
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


def resnet20_cifar(num_classes: int = 10) -> CifarResNet:
    """Build the 20-layer CIFAR ResNet (0.27 M parameters)."""
    return CifarResNet(3, num_classes)


def resnet32_cifar(num_classes: int = 10) -> CifarResNet:
    """Build the 32-layer CIFAR ResNet (0.46 M parameters)."""
    return CifarResNet(5, num_classes)


def resnet44_cifar(num_classes: int = 10) -> CifarResNet:
    """Build the 44-layer CIFAR ResNet (0.66 M parameters)."""
    return CifarResNet(7, num_classes)


def resnet56_cifar(num_classes: int = 10) -> CifarResNet:
    """Build the 56-layer CIFAR ResNet (0.85 M parameters)."""
    return CifarResNet(9, num_classes)
