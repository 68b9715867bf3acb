"""The models of the coverage table: every vision model of torchvision, and a few that users write."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision import models

SMALL = 64
SIZES = {
    "inception": 299, "vit_h": 28, "vit_b_16": 32, "vit_l_16": 32, "maxvit": 64, "raft": 128, "alexnet": 64,
    "squeezenet": 64, "fcn": 64, "deeplab": 64, "swin": 64,
}  # fmt: skip
"""Images no larger than the architecture needs; what is not listed takes 64 pixels."""


@dataclass(frozen=True)
class Case:
    """A model to try.

    Args:
        build: Makes it, with random weights.
        inputs: Makes the inputs of one call.
        loss: Runs the model in training mode to a scalar.
        size: Of the input images.
        dtype: In which the cut model is held against the reference.
        selects: Whether outputs are selected by their scores, which must then differ from place to place.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    loss: Callable[[nn.Module, tuple[Any, ...]], Tensor]
    size: int
    dtype: torch.dtype = torch.float64
    selects: bool = False


def as_dtype(item: Any, dtype: torch.dtype) -> Any:
    """Convert all floating tensors of nested inputs."""
    if isinstance(item, Tensor):
        return item.to(dtype) if item.is_floating_point() else item
    if isinstance(item, (list, tuple)):
        return type(item)(as_dtype(part, dtype) for part in item)
    return item


def mean_square(model: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    """Sum the mean squares of all outputs."""
    from tests.pruning.reference import tensors_in

    parts = [part.square().mean() for part in tensors_in(model(*inputs)) if part.requires_grad]
    return torch.stack(parts).sum()


def _size(name: str) -> int:
    return next((size for prefix, size in SIZES.items() if name.startswith(prefix)), SMALL)


def _settings(name: str) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": True, "init_weights": False}
    return {"image_size": _size(name)} if name.startswith("vit") else {}


def _classifier(name: str) -> Case:
    size = _size(name)

    def build() -> nn.Module:
        if name == "maxvit_t":
            return models.maxvit.MaxVit(
                (size, size), 64, partition_size=2, block_channels=[64, 128, 256, 512], block_layers=[2, 2, 5, 2],
                head_dim=32, stochastic_depth_prob=0.2,
            )  # fmt: skip
        return models.get_model(name, weights=None, **_settings(name))

    return Case(build, lambda: (torch.randn(2, 3, size, size),), mean_square, size)


def _segmenter(name: str) -> Case:
    size = _size(name)
    settings: dict[str, Any] = {} if "lraspp" in name else {"aux_loss": True}

    def build() -> nn.Module:
        return models.get_model(name, weights=None, weights_backbone=None, **settings)

    return Case(build, lambda: (torch.randn(2, 3, size, size),), mean_square, size)


def _flow(name: str) -> Case:
    size = _size(name)

    def inputs() -> tuple[Any, ...]:
        return torch.randn(2, 3, size, size), torch.randn(2, 3, size, size)

    # its coordinates are of single precision whatever the weights are
    return Case(lambda: models.get_model(name, weights=None), inputs, mean_square, size, torch.float32)


def _detector(name: str) -> Case:
    size, squares = 320, 20
    inner: dict[str, Any] = {} if name.startswith("ssd") else {"min_size": 160, "max_size": 160}
    # random weights are sure of nothing: with a threshold there would be no outputs to compare
    inner["box_score_thresh" if "rcnn" in name else "score_thresh"] = 0.0

    def build() -> nn.Module:
        return models.get_model(name, weights=None, weights_backbone=None, **inner)

    def inputs() -> tuple[Any, ...]:
        # large squares: noise from pixel to pixel would be averaged away
        images = nn.functional.interpolate(torch.rand(2, 3, squares, squares), size=size)
        return (list(images),)

    def loss(model: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        boxes = torch.tensor([[10.0, 20.0, 150.0, 200.0], [50.0, 60.0, 300.0, 310.0]])
        target = {
            "boxes": boxes, "labels": torch.tensor([1, 1]), "masks": torch.ones(2, size, size, dtype=torch.uint8),
            "keypoints": torch.cat([torch.full((2, 17, 2), 100.0), torch.ones(2, 17, 1)], 2),
        }  # fmt: skip
        losses = model(inputs[0], [dict(target) for _ in inputs[0]])
        return torch.stack(list(losses.values())).sum()

    return Case(build, inputs, loss, size, selects=True)


class Recurrent(nn.Module):
    """Two recurrent layers between projections."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 96)
        self.layers = kind(96, 128, num_layers=2, batch_first=True, bidirectional=True)  # type: ignore[call-arg]
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify the last step."""
        states, _ = self.layers(torch.relu(self.embed(x)))
        return self.head(states[:, -1])


class Transformer(nn.Module):
    """torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(128, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(128, 4, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify the mean over the steps."""
        x = self.encoder(self.embed(x))
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class UserModel(nn.Module):
    """Concatenation, split, reshape, pixel shuffle and grouped convolution in one."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 96
        self.left, self.right = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(3, 128, 3, padding=1)
        self.grouped = nn.Conv2d(192, 192, 3, padding=1, groups=4)
        self.up = nn.Conv2d(self.width, 128, 1)
        self.side = nn.Conv2d(self.width, 32, 1, stride=1)
        self.mix = nn.Conv2d(32, 64, 3, padding=1)
        self.head = nn.Linear(64 * 4 + 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = torch.relu(self.grouped(torch.cat([self.left(x), self.right(x)], 1)))
        one, two = torch.split(x, self.width, dim=1)
        up = torch.relu(self.mix(nn.functional.pixel_shuffle(self.up(one), 2)))
        up = nn.functional.adaptive_avg_pool2d(up, 2).reshape(x.shape[0], -1)
        return self.head(torch.cat([up, self.side(two).mean((2, 3))], 1))


def _sequences(build: Callable[[], nn.Module], features: int) -> Case:
    return Case(build, lambda: (torch.randn(2, 12, features),), mean_square, 12)


CASES: dict[str, Case] = {
    **{name: _classifier(name) for name in models.list_models(module=torchvision.models)},
    **{name: _segmenter(name) for name in models.list_models(module=models.segmentation)},
    **{name: _flow(name) for name in models.list_models(module=models.optical_flow)},
    **{name: _detector(name) for name in models.list_models(module=models.detection)},
    "lstm": _sequences(lambda: Recurrent(nn.LSTM), 64),
    "gru": _sequences(lambda: Recurrent(nn.GRU), 64),
    "multihead_attention": _sequences(Transformer, 128),
    "user_model": Case(UserModel, lambda: (torch.randn(2, 3, 16, 16),), mean_square, 16),
}
