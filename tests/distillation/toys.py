"""Small networks and small data, on which students learn in a second."""

import numpy as np
import torch
from torch import nn

from adaptkit.technique import Context
from adaptkit.training.fit import fit


def net(seed: int, classes: int = 3) -> nn.Module:
    """Two layers for five numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, classes))


def toy(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the first three of five numbers is the largest."""
    x = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def context(**changes) -> Context:
    """What a step on the numbers gets."""
    return Context(example_inputs=(torch.zeros(1, 5),), train=toy(300)).replace(**changes)


def trained_teacher() -> nn.Module:
    """A teacher for the numbers."""
    teacher = net(1)
    fit(teacher, toy(600, 1), epochs=15)
    return teacher


def images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright quarter; which one is the class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = torch.randn(count, 1, 8, 8, generator=generator)
    for i, label in enumerate(y.tolist()):
        x[i, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 0.6
    return x, y


def image_net(width: int, seed: int = 0, stride: int = 2) -> nn.Sequential:
    """Two convolutions for images of one channel."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, stride, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4),
    )  # fmt: skip


def image_context(**changes) -> Context:
    """What a step on the images gets."""
    return Context(example_inputs=(torch.zeros(1, 1, 8, 8),), train=images(256)).replace(**changes)


def trained_image_teacher() -> nn.Module:
    """A teacher for the images."""
    teacher = image_net(8)
    fit(teacher, images(512, 1), epochs=20)
    return teacher


def softmax(logits):
    """Of an array of doubles, for oracles."""
    powers = np.exp(logits)
    return powers / powers.sum()
