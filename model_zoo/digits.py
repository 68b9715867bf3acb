"""Two small networks for the 8 × 8 digits of scikit-learn."""

import torch
from torch import nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition"), fitted to 8 × 8 images.

    The layers and widths are the paper's (6, 16, 120, 84); the first convolution is padded and the second is 3 × 3, as
    8 × 8 pixels leave no room for two unpadded 5 × 5 kernels; ReLU and max pooling replace tanh and subsampling.

    Args:
        num_classes: Size of the output.

    Example:
        >>> LeNet5()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 2 * 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 1 × 8 × 8 images in [0, 1] to N × num_classes logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Sequential()
            if stride == 1 and in_channels == channels
            else nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class DigitsResNet(nn.Module):
    """A small residual network for 8 × 8 images: a stem and two stages of two blocks, 32 and 64 channels.

    Args:
        num_classes: Size of the output.

    Example:
        >>> DigitsResNet()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stage1 = nn.Sequential(_Block(32, 32), _Block(32, 32))
        self.stage2 = nn.Sequential(_Block(32, 64, stride=2), _Block(64, 64))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 1 × 8 × 8 images in [0, 1] to N × num_classes logits."""
        x = self.stage2(self.stage1(self.stem(x)))
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def lenet5_digits(num_classes: int = 10) -> LeNet5:
    """Build LeNet-5 for 1 × 8 × 8 digits."""
    return LeNet5(num_classes)


def resnet_digits(num_classes: int = 10) -> DigitsResNet:
    """Build the small residual network for 1 × 8 × 8 digits."""
    return DigitsResNet(num_classes)
