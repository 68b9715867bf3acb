"""A conditional model whose ways and answers are known, as stages and as one file, beside a plain one."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from adaptkit.export.onnx import export_onnx, final_onnx
from adaptkit.export.packaging import Packaging
from adaptkit.export.staged import make_stages, write_single_file, write_stages


class Contrast(nn.Module):
    """Class 1 where a picture is light; sure of it at once where its mean is far from the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.spread.weight, 100.0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = self.spread(x - 0.5).mean(dim=(2, 3))
        late = torch.tanh(first) * 10
        return torch.cat([-late, late], dim=1), torch.cat([-first, first], dim=1)


def write(folder: Path) -> None:
    """Make run/ (stages), single/ (one file), plain.onnx, and d.npz: 12 clear pictures, 9 of them right, and 4 more."""
    model, example = Contrast().eval(), (torch.zeros(2, 1, 4, 4),)
    stages, names = make_stages(final_onnx(model, example), ["logits_1"], "confidence", [1.0])
    for name in ("run", "single"):
        (folder / name).mkdir()
    write_stages(stages, names, "confidence", [0.999], folder / "run", Packaging())
    write_single_file(stages, names, "confidence", [0.999], folder / "single" / "model.onnx", Packaging())
    export_onnx(model, example, folder / "plain.onnx")
    values = np.array([0.1, 0.9] * 6 + [0.49, 0.51] * 2)
    x = np.broadcast_to((255 * values).round().astype(np.uint8)[:, None, None], (16, 4, 4))
    y = np.array([0, 1] * 3 + [0, 1, 0, 0, 1, 0] + [0, 1] * 2)
    np.savez(folder / "d.npz", x_test=x, y_test=y, x_train=np.tile(x, (5, 1, 1)), y_train=np.tile(y, 5))
