"""LeNet-5 for 28 × 28 images."""

import torch
from torch import nn


class CaffeLeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with the widths that Caffe gave it: 20, 50 and 500, ReLU and max pooling.

    Args:
        num_classes: Size of the output.

    Example:
        >>> CaffeLeNet5()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(50 * 4 * 4, 500), nn.ReLU(), nn.Linear(500, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map N × 1 × 28 × 28 images to N × num_classes logits."""
        logits: torch.Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def lenet5_caffe(num_classes: int = 10) -> CaffeLeNet5:
    """Build LeNet-5 for 1 × 28 × 28 images (431 k parameters)."""
    return CaffeLeNet5(num_classes)
