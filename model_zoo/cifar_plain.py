"""VGG-16 with batch normalization and AlexNet, both for 32 × 32 images."""

import torch
from torch import nn

_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class CifarVGG16(nn.Module):
    """VGG-16 (Simonyan and Zisserman 2014, configuration D) with batch normalization and one linear layer.

    A 32 × 32 image is one pixel after five poolings, so the paper's 4096-wide layers have nothing to look at.

    Args:
        num_classes: Size of the output.

    Example:
        >>> CifarVGG16()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _VGG16:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 3 × 32 × 32 normalized images to N × num_classes logits."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class CifarAlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012) with its five convolutions and three linear layers, fitted to 32 × 32 images.

    Kernels and strides of the first layers shrink with the image; widths are 64, 192, 384, 256, 256 and 1024.

    Args:
        num_classes: Size of the output.

    Example:
        >>> CifarAlexNet().eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 2 * 2, 1024), nn.ReLU(),
            nn.Dropout(), nn.Linear(1024, 1024), nn.ReLU(),
            nn.Linear(1024, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 3 × 32 × 32 normalized images to N × num_classes logits."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def vgg16_bn_cifar(num_classes: int = 10) -> CifarVGG16:
    """Build VGG-16-BN for 3 × 32 × 32 images (14.7 M parameters)."""
    return CifarVGG16(num_classes)


def alexnet_cifar(num_classes: int = 10) -> CifarAlexNet:
    """Build AlexNet for 3 × 32 × 32 images (4.4 M parameters)."""
    return CifarAlexNet(num_classes)
