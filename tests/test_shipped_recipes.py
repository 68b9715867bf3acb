"""Every recipe that ships is run, whole, on a few made-up images."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from adaptkit.errors import RecipeError, TargetError
from adaptkit.loading.models import load_model
from adaptkit.pipeline import compress
from adaptkit.recipe import parse_recipe, read_recipe
from adaptkit.specs import ModelSpec
from adaptkit.techniques import TECHNIQUES

RECIPES = Path(__file__).parent.parent / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
WEIGHTS = {
    "resnet20_cifar": "resnet20-cifar10-jpeg",
    "resnet56_cifar": "resnet56-cifar10-jpeg",
    "vgg16_bn_cifar": "vgg16_bn_cifar",
    "alexnet_cifar": "alexnet_cifar",
}
FEW = [
    "data.validation=6", "data.calibration=16", "data.batch_size=8", "gates={}", "export.min_agreement=0.0",
    "profile={threads: [1], batch_sizes: [1], repeats: 2, warmup: 1}",
]  # fmt: skip

OWN = {
    "resnet18-imagenet": ["model.weights=null", "data.size=64"],
    "cifar10-selector": ["data.validation=40", "data.calibration=4", "data.batch_size=2"],
}
NEED_NOT_PAY = {"cifar10-cascade", "cifar10-selector"}
"""Networks that know nothing: a choice between them may be refused."""
HOLD_MORE = {*NEED_NOT_PAY, "cifar10-activation-cache"}


def _images(archive: Path, size: int) -> None:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(archive, "w") as file:
        for split, count in (("train", 24), ("test", 4)):
            for label in ("cat", "dog"):
                for number in range(count):
                    pixels = io.BytesIO()
                    Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(pixels, "JPEG")
                    file.writestr(f"images/{split}/{label}/{number:04d}.jpg", pixels.getvalue())


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """The files and variables the recipes expect, with random weights and pixels."""
    for folder in ("data", "weights"):
        (tmp_path / folder).mkdir()
    _images(tmp_path / "data" / "cifar10-jpeg.zip", 32)
    _images(tmp_path / "imagenet.zip", 40)
    for model, file in WEIGHTS.items():
        state = load_model(ModelSpec(zoo=model), num_classes=2).state_dict()
        safetensors.torch.save_file(state, tmp_path / "weights" / f"{file}.safetensors")
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path))
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IMAGENET", str(tmp_path / "imagenet.zip"))
    return tmp_path


def _overrides(name: str) -> list[str]:
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    short = [
        f"{section}.{i}.{key}={value}"
        for section, entries in (("steps", recipe.steps), ("conditional", recipe.conditional))
        for i, entry in enumerate(entries)
        for key, value in (("epochs", 0.5), ("max_accuracy_drop", 1), ("target_precision", 0.05))
        if key in type(entry).model_fields
    ]
    return [*FEW, *short, *OWN.get(name, [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_to_the_end(name: str, world: Path):
    recipe = read_recipe(RECIPES / f"{name}.yaml", _overrides(name))
    try:
        report = compress(recipe, world / "run", progress=False)
    except TargetError:
        if name in NEED_NOT_PAY:
            return
        raise
    assert len(report.steps) == len(recipe.steps) + len(recipe.conditional)
    assert report.final.bytes < report.baseline.bytes or name in HOLD_MORE
    assert report.certificate.passed


@pytest.mark.parametrize("name", NAMES)
def test_is_valid_and_named_after_its_file(name: str, world: Path):
    assert world
    assert read_recipe(RECIPES / f"{name}.yaml").name == name


def test_every_technique_is_shown_by_a_recipe():
    text = "".join((RECIPES / f"{name}.yaml").read_text() for name in NAMES)
    assert [technique for technique in TECHNIQUES if f"  - {technique}:" not in text] == []


def test_a_recipe_without_its_variable_says_which(monkeypatch):
    monkeypatch.delenv("IMAGENET", raising=False)
    with pytest.raises(RecipeError, match="variable IMAGENET is not set"):
        parse_recipe((RECIPES / "resnet18-imagenet.yaml").read_text())
