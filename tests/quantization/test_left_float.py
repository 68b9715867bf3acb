"""The notes name what stays float and why; weights that no integers can stand for are refused by name."""

import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.pruning.masks import apply_masks, magnitude_masks
from adaptkit.quantization import (
    DynamicQuantization,
    MixedPrecision,
    PartialSumQuantization,
    QuantizationAwareTraining,
    StaticQuantization,
    WeightOnlyQuantization,
)
from adaptkit.technique import Context

QUICK = {"calibration": 8, "rounding": "nearest"}
TRAINED = {**QUICK, "epochs": 1, "fit": {"learning_rate": 0.01}}


class Mixture(nn.Module):
    """Layers that have integer kernels and layers that have none, one of which is not used in evaluation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2)
        self.norm, self.steps = nn.BatchNorm2d(8), nn.GRU(8, 8, batch_first=True)
        self.names, self.head = nn.Embedding(4, 8), nn.Linear(8, 24)
        self.unused = nn.Bilinear(8, 8, 8)

    def forward(self, x):
        x = self.up(torch.relu(self.norm(self.conv(x))))
        x = self.steps(x.flatten(2).transpose(1, 2))[0][:, -1]
        return self.head(x + self.names.weight.mean(0))


class Tied(nn.Module):
    """A head that shares its weight with the embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(50, 32), nn.Linear(32, 50)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


def settings(x):
    notes: list[str] = []
    data = (x, torch.zeros(len(x), dtype=torch.long))
    return Context(example_inputs=(x[:1],), calibration=data, train=data, notes=notes)


@pytest.fixture
def images():
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("technique", "taken"),
    [
        (StaticQuantization(**QUICK), "linear layers and convolutions of one or two dimensions"),
        (QuantizationAwareTraining(**TRAINED), "linear layers and convolutions of one or two dimensions"),
        (WeightOnlyQuantization(), "linear layers and convolutions of one or two dimensions"),
        (DynamicQuantization(), "linear layers"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_layers_of_other_kinds_are_named(technique, taken, images):
    context = settings(images)
    technique.apply(Mixture().eval(), context)
    others = "up (ConvTranspose2d), steps (GRU), names (Embedding)"
    assert f"left float, since only {taken} are quantized: {others}" in context.notes


def test_dynamic_names_the_convolutions_that_stay_float(images):
    context = settings(images)
    DynamicQuantization().apply(Mixture().eval(), context)
    assert "1 convolutions stay float: dynamic ranges have no fast kernel (conv)" in context.notes


def test_an_embedding_that_shares_its_weight_stays_float():
    context = settings(torch.zeros(8, 5, dtype=torch.long))
    StaticQuantization(**QUICK).apply(Tied().eval(), context)
    assert [note for note in context.notes if "left float" in note and "words (Embedding)" in note]
    assert not any("head" in note for note in context.notes)


def test_what_the_patterns_leave_out_is_not_named(images):
    context = settings(images)
    StaticQuantization(targets=("Conv2d", "Linear"), **QUICK).apply(Mixture().eval(), context)
    assert not any("left float" in note for note in context.notes)


@pytest.mark.parametrize(
    "technique",
    [StaticQuantization(**QUICK), DynamicQuantization(), WeightOnlyQuantization(), MixedPrecision(**TRAINED)],
    ids=lambda technique: technique.name,
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_layer_with_weights_that_are_no_numbers_is_named(technique, value, part):
    model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 4)).eval()
    getattr(model[2], part).data[0] = value
    with pytest.raises(ModelError, match="2 has weights or biases that are NaN or infinite"):
        technique.apply(model, settings(torch.randn(8, 32)))


def test_a_broken_normalization_is_found_in_its_layer(images):
    model = Mixture().eval()
    model.norm.running_var[3] = float("nan")
    with pytest.raises(ModelError, match="conv has weights or biases that are NaN or infinite"):
        WeightOnlyQuantization().apply(model, settings(images))


def pruned(sparsity=0.5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    (mask,) = magnitude_masks([model[0].weight], sparsity, "per_layer")
    apply_masks(model, {"0.weight": mask})
    return model


@pytest.mark.parametrize(
    "technique",
    [
        QuantizationAwareTraining(weight_bits=1, **TRAINED),
        MixedPrecision(bits=(1,), share=1, **TRAINED),
        PartialSumQuantization(weight_bits=1, **QUICK),
    ],
    ids=lambda technique: technique.name,
)
def test_one_bit_cannot_keep_zeros(technique):
    with pytest.raises(ModelError, match="0 has pruned weights, which one bit cannot keep at zero: give it 2 bits"):
        technique.apply(pruned(), settings(torch.randn(8, 32)))


def test_mixed_bits_leave_one_bit_to_layers_without_zeros():
    technique = MixedPrecision(bits=(1, 2), share=0.087, samples=8, **TRAINED)
    quantized = technique.apply(pruned(), settings(torch.randn(8, 32)))
    grid = quantized.plan.tensors["linear.weight"]
    assert (grid.bits, grid.odd) == (2, False)
    assert quantized.plan.tensors["linear_1.weight"].bits == 1
    assert bool((quantized.model[0].weight == 0).float().mean() >= 0.5)


def test_one_bit_takes_a_dead_channel():
    model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 8)).eval()
    model[0].weight.data[:4] = 0
    quantized = QuantizationAwareTraining(weight_bits=1, **TRAINED).apply(model, settings(torch.randn(8, 32)))
    assert quantized.plan.tensors["linear.weight"].odd
