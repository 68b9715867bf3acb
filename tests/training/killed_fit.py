"""A small fit in a process of its own, for the test that kills it: workspace in, hash of the weights out."""

import sys
from pathlib import Path

import torch
from torch import nn

from adaptkit.loading.batches import Batches
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings


def run(workspace: Path | None) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    images = torch.randint(0, 256, (300, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    train = Batches(images, torch.arange(300) % 5, batch_size=16, shuffle=True, augment=("pad_crop", "flip"), seed=2)
    settings = FitSettings(ema=0.9, gradient_clip=1.0, label_smoothing=0.1, checkpoint_seconds=0.0)
    fit(
        model,
        train,
        epochs=4.5,
        settings=settings,
        validation=(torch.zeros(4, 3, 12, 12), torch.arange(4)),
        workspace=workspace,
    )
    return state_sha256(model)


if __name__ == "__main__":
    sys.stdout.write(run(Path(sys.argv[1])))
