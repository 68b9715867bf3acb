"""Every family of techniques after every other one: to a verified file, or refused with the reason."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adaptkit.errors import RecipeError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.verify import certify, require
from adaptkit.loading.saved import float_model, load, save
from adaptkit.order import order_problems
from adaptkit.pipeline import compress
from adaptkit.pruning.masks import lost_zeros, marked, zeros
from adaptkit.recipe import parse_recipe
from adaptkit.specs import ExportSpec
from adaptkit.technique import Context
from adaptkit.techniques import TECHNIQUES

FAMILIES = {
    "prune.structured": {"macs": 0.6, "round_to": 1, "min_channels": 2},
    "prune.magnitude": {"sparsity": 0.6},
    "factorize.svd": {"rank": 3, "undo_slower": False},
    "distill.logits": {"epochs": 1, "fit": {"learning_rate": 0.01}},
    "quantize.static": {"calibration": 64},
}
REFUSED = {
    ("quantize.static", "prune.structured"): r"float layers to cut\. Put prune\.structured before it$",
    ("quantize.static", "prune.magnitude"): r"which a mask would not change\. Put prune\.magnitude before it$",
    ("quantize.static", "factorize.svd"): r"float layers to take apart\. Put factorize\.svd before it$",
    ("quantize.static", "distill.logits"): r"the scales .*\. Put distill\.logits before it, or use distill\.quantized$",
    ("quantize.static", "quantize.static"): r"have their integers already\. Keep one of the two$",
    ("prune.magnitude", "factorize.svd"): r"zeros would be lost\. Put factorize\.svd before it$",
}
PAIRS = list(itertools.product(FAMILIES, repeat=2))
RUNS = [pair for pair in PAIRS if pair not in REFUSED]
WHOLE = [
    ("distill.logits", "prune.structured"),
    ("prune.structured", "factorize.svd"),
    ("factorize.svd", "prune.magnitude"),
    ("prune.magnitude", "distill.logits"),
    ("factorize.svd", "quantize.static"),
    ("prune.magnitude", "quantize.static"),
]
"""Every family first and second, as far as it may be; all pairs go through the techniques themselves in any case."""


class Tiny(nn.Module):
    """Two convolutions with normalization, so small that exporting it is quick."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map N × 1 × 8 × 8 to N × 10."""
        x = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.flatten(1))
        return logits


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    from adaptkit.training.fit import fit
    from adaptkit.training.settings import FitSettings

    torch.manual_seed(0)
    model = Tiny()
    x, y = digits
    fit(model, (x[:1000], y[:1000]), epochs=8, settings=FitSettings(learning_rate=0.05))
    return model.state_dict()


def _context(digits: tuple[Tensor, Tensor], teacher: nn.Module) -> Context:
    x, y = digits
    train, calibration = (x[:512], y[:512]), (x[512:640], y[512:640])
    return Context(example_inputs=(x[:2],), train=train, calibration=calibration, teacher=teacher)


def _built(state: dict[str, Tensor]) -> nn.Module:
    model = Tiny()
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize(("first", "second"), RUNS)
def test_a_pair_of_families_ends_in_a_verified_file(first, second, digits, trained, tmp_path):
    model = _built(trained)
    context = _context(digits, _built(trained))
    for name in (first, second):
        before = zeros(float_model(model))
        technique = TECHNIQUES[name](**FAMILIES[name])
        assert technique.check(model) == []
        save(technique.apply(model, context), Tiny(), tmp_path)
        model = load(Tiny, tmp_path)
        cut = {name: zero for name, zero in before.items() if marked(float_model(model))[name].shape == zero.shape}
        assert lost_zeros(cut, float_model(model)) == []
    if "prune.magnitude" in (first, second):
        sparse = marked(float_model(model)).values()
        assert sum(int((weight == 0).sum()) for weight in sparse) > 0.2 * sum(weight.numel() for weight in sparse)
    export_onnx(model, context.example_inputs, tmp_path / "model.onnx")
    x, y = digits
    test = [(x[1000:], y[1000:])]
    spec = ExportSpec(min_agreement=0.99)
    certificate = certify(model, tmp_path / "model.onnx", test, spec=spec, example_inputs=context.example_inputs)
    require(certificate)
    assert certificate.accuracy_onnx > 0.3


@pytest.mark.parametrize(("first", "second"), REFUSED)
def test_a_pair_that_cannot_be_is_refused_with_its_place_and_reason(first, second):
    text = f"""\
version: 1
name: pair
model: {{zoo: lenet5_digits}}
data: {{digits: true}}
steps:
  - {first}: {{}}
  - {second}: {{}}
"""
    with pytest.raises(RecipeError) as refused:
        parse_recipe(text, source="pair.yaml")
    [problem] = refused.value.problems
    assert problem.startswith(f"pair.yaml:7: steps.1.{second}: cannot follow {first} (steps.0): ")
    assert re.search(REFUSED[first, second], problem)


def test_every_pair_of_families_runs_or_is_refused():
    kinds = {name: TECHNIQUES[name] for name in FAMILIES}
    refused = {(a, b) for a, b in PAIRS if order_problems([kinds[a], kinds[b]], TECHNIQUES)}
    assert refused == set(REFUSED)


@pytest.mark.parametrize("name", [name for name in TECHNIQUES if name != "distill.quantized"])
def test_nothing_works_on_the_floats_of_a_quantized_model(name):
    assert order_problems([TECHNIQUES["quantize.static"], TECHNIQUES[name]], TECHNIQUES)


@pytest.mark.parametrize("pattern", ["prune.n_m", "prune.load_balanced"])
def test_a_pattern_of_zeros_is_not_cut(pattern):
    [(index, message)] = order_problems([TECHNIQUES[pattern], TECHNIQUES["prune.structured"]], TECHNIQUES)
    assert index == 1
    assert "the pattern of zeros" in message


def test_the_reason_stands_across_steps_that_change_nothing():
    steps = [TECHNIQUES[name] for name in ("prune.magnitude", "distill.logits", "factorize.tucker")]
    [(index, message)] = order_problems(steps, TECHNIQUES)
    assert index == 2
    assert "cannot follow prune.magnitude (steps.0)" in message


def test_a_model_that_comes_quantized_is_refused(digits, trained):
    context = _context(digits, _built(trained))
    quantized = TECHNIQUES["quantize.static"](calibration=64).apply(_built(trained), context)
    for name, settings in FAMILIES.items():
        assert TECHNIQUES[name](**settings).check(quantized)
    assert TECHNIQUES["distill.quantized"]().check(quantized) == []


@pytest.mark.parametrize("name", ["quantize.qat", "distill.quantized"])
def test_zeros_stay_while_integers_are_trained(name, digits, trained):
    context = _context(digits, _built(trained))
    sparse = TECHNIQUES["prune.magnitude"](sparsity=0.6).apply(_built(trained), context)
    before = zeros(sparse)
    settings = {"calibration": 64, "epochs": 0.5, "fit": {"learning_rate": 0.01}}
    quantized = TECHNIQUES[name](**settings).apply(sparse, context)
    assert lost_zeros(before, float_model(quantized)) == []
    assert sum(int(zero.sum()) for zero in before.values()) > 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("first", "second"), WHOLE)
def test_a_pair_of_families_through_the_whole_pipeline(first, second, tmp_path: Path):
    steps = json.dumps([{name: FAMILIES[name]} for name in (first, second)])
    text = f"""\
version: 1
name: pair
model: {{zoo: resnet_digits}}
data: {{digits: true, validation: 100, calibration: 100}}
steps: {steps}
profile: {{threads: [1], batch_sizes: [1], repeats: 2, warmup: 1}}
export: {{min_agreement: 0.99}}
"""
    report = compress(parse_recipe(text), tmp_path / "run", progress=False)
    assert report.certificate.passed
    assert report.final.bytes < report.baseline.bytes


def test_a_model_that_comes_with_a_pattern_of_zeros_refuses_what_would_break_it(digits, trained):
    context = _context(digits, _built(trained))
    patterned = TECHNIQUES["prune.n_m"](permute=False).apply(_built(trained), context)
    for name in ("prune.structured", "prune.magnitude"):
        assert any("pattern" in problem for problem in TECHNIQUES[name]().check(patterned))
    assert TECHNIQUES["quantize.static"]().check(patterned) == []


def test_sparse_factors_are_not_taken_apart_again():
    [(index, message)] = order_problems([TECHNIQUES["factorize.sparse_svd"], TECHNIQUES["factorize.svd"]], TECHNIQUES)
    assert index == 1
    assert "zeros would be lost" in message
