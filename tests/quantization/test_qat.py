import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError, ModelError
from adaptkit.loading.saved import load, save
from adaptkit.quantization import MixedPrecision, QuantizationAwareTraining
from adaptkit.quantization.batch_norm import reestimate
from adaptkit.quantization.inspect import float_islands, saturation_risk
from adaptkit.quantization.learned_step import LearnedSteps, learned_rounding
from adaptkit.quantization.plan import Accumulator, ExampleInput, Grid, QuantizationPlan
from adaptkit.quantization.simulate import FakeQuantize, QuantizedModel
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.digits import resnet_digits
from tests.quantization.nets import Residual, exported, quantize, run, settled
from tests.quantization.test_static import digits, trained_digits_net

FAST = {"learning_rate": 0.05, "schedule": "cosine", "gradient_clip": 1.0}


@pytest.fixture(scope="module")
def x():
    return torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def slow_gradient(x: np.ndarray, step: float, grid: Grid, values: int) -> float:
    """The step's gradient of a sum of outputs, value by value as the paper writes it."""
    zero, total = grid.zero_point[0], 0.0
    below, above = grid.lowest - zero, grid.highest - zero
    for value in x.ravel() / step:
        total += below if value <= below else above if value >= above else round(value) - value
    return total / (values * above) ** 0.5


@pytest.mark.parametrize(
    "grid", [Grid((1.0,), (0,), bits=4), Grid((1.0,), (100,), signed=False), Grid((1.0,), (0,), bits=2, signed=False)]
)
def test_gradients_are_those_of_the_paper(grid):
    x = (torch.randn(500, generator=torch.Generator().manual_seed(0)) * 8).requires_grad_()
    step = torch.tensor([0.31], requires_grad=True)
    rounded = learned_rounding(x, step, grid, values=500)
    rounded.sum().backward()
    expected = slow_gradient(x.detach().numpy().astype(np.float64), 0.31, grid, 500)
    assert float(step.grad) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    scaled = x.detach() / 0.31
    inside = (scaled > grid.lowest - grid.zero_point[0]) & (scaled < grid.highest - grid.zero_point[0])
    assert torch.equal(x.grad, inside.float())


@pytest.mark.parametrize("odd", [False, True])
def test_it_rounds_as_the_plan_will(odd):
    x = torch.randn(4, 9)
    grid = Grid((0.3, 0.2, 0.1, 0.4), (0,) * 4, bits=2, axis=0, odd=odd)
    step = torch.tensor(grid.scale, requires_grad=True)
    rounded = learned_rounding(x, step, grid, values=9)
    assert torch.equal(rounded, FakeQuantize(grid)(x))
    rounded.square().sum().backward()
    assert (step.grad != 0).all()


def test_untrained_it_computes_what_the_quantized_model_computes(x):
    quantized = quantize(settled(Residual(), 3, 32, 32), x)
    learner = LearnedSteps(quantized)
    assert (learner(x) - quantized(x)).abs().mean() < 0.02 * quantized(x).std()
    finished = learner.finished()
    assert torch.equal(finished(x), quantized(x))
    assert finished.plan.tensors.keys() == quantized.plan.tensors.keys()


def test_every_weight_and_step_learns_and_shared_grids_stay_shared(x):
    learner = LearnedSteps(quantize(settled(Residual(), 3, 32, 32), x, weight_bits=7))
    learner(x).square().sum().backward()
    assert [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()] == []
    before = learner.plan.tensors
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.sub_(0.2 * parameter.abs() * parameter.grad.sign())
    finished = learner.finished()
    tensors = finished.plan.tensors
    # The bound of ReLU6 keeps its step from growing.
    assert [key for key in before if tensors[key] == before[key]] in ([], ["relu6"])
    assert tensors["cat"] == tensors["max_pool2d"] == tensors["relu_2"]
    assert tensors["relu"] == tensors["pad"]
    assert (learner(x) - finished(x)).abs().mean() < 0.02 * finished(x).std()
    assert tensors["relu6"].scale[0] * 255 <= 6
    assert float_islands(exported(finished, x)) == []


def test_limited_partial_sums_are_not_trained(x):
    plan = QuantizationPlan(
        {"input": Grid((0.1,), (0,)), "linear.weight": Grid((0.1,), (0,))},
        (ExampleInput((1, 4)),),
        accumulators={"linear": Accumulator(16, 4)},
    )
    with pytest.raises(ModelError, match="learn the steps first"):
        LearnedSteps(QuantizedModel(nn.Sequential(nn.Linear(4, 2)), plan))


def test_statistics_are_measured_anew(x):
    quantized = quantize(settled(Residual(), 3, 32, 32), x, weight_bits=7, bias_correction=False)
    with torch.no_grad():
        quantized.model.norm.running_mean += 1.0
        quantized.model.norm.running_var *= 3.0
    renewed = reestimate(quantized, [(x[:16],), (x[16:],)])
    seen = {}
    hooked = renewed.simulator.module

    def normalized(name: str) -> torch.Tensor:
        from adaptkit.quantization.capture import observe

        def record(node, value):
            if node.name == name:
                seen[name] = value

        with torch.no_grad():
            observe(hooked, renewed.simulator.captured.arguments(renewed.model, (x,)), record)
        return seen[name].transpose(0, 1).flatten(1)

    for name, norm in (("conv2d", renewed.model.norm), ("conv2d_2", renewed.model.grow_norm)):
        values = normalized(name)
        torch.testing.assert_close(values.mean(1), norm.bias.detach(), rtol=0, atol=0.02)
        torch.testing.assert_close(values.std(1), norm.weight.detach().abs(), rtol=0.02, atol=0)


def data():
    images, labels = digits()
    return (
        images,
        labels,
        Context(
            example_inputs=(images[:2],), train=(images[:1200], labels[:1200]), calibration=(images[:256], labels[:256])
        ),
    )


@pytest.fixture(scope="module")
def trained():
    return trained_digits_net()


def share_right(output, labels) -> float:
    return float((torch.as_tensor(output).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("bits", "batch_norm"), [(2, "frozen"), (1, "reestimated")])
def test_training_brings_few_bits_back_and_the_file_agrees(bits, batch_norm, trained, tmp_path):
    images, labels, context = data()
    untrained = QuantizationAwareTraining(
        weight_bits=bits, epochs=0.01, rounding="nearest", fit={"learning_rate": 1e-9}
    )
    before = untrained.apply(copy.deepcopy(trained), context)
    technique = QuantizationAwareTraining(weight_bits=bits, epochs=12, batch_norm=batch_norm, fit=FAST)
    quantized = technique.apply(copy.deepcopy(trained), context)
    simulated = quantized(images).detach()
    right = share_right(simulated[1200:], labels[1200:])
    assert right > share_right(trained(images[1200:]).detach(), labels[1200:]) - 0.06
    assert right > share_right(before(images[1200:]).detach(), labels[1200:])
    proto = exported(quantized, images)
    file = torch.from_numpy(run(proto, images))
    assert (file.argmax(1) == simulated.argmax(1)).float().mean() >= 0.999
    assert saturation_risk(proto) == []
    assert any("accuracy on the training batches" in note for note in context.notes)


@pytest.mark.slow
def test_a_model_with_residuals_agrees_with_its_file(tmp_path):
    images, _, context = data()
    torch.manual_seed(0)
    quantized = QuantizationAwareTraining(epochs=3, alpha=0, rounding="nearest").apply(
        settled(resnet_digits(), 1, 8, 8), context
    )
    file = torch.from_numpy(run(exported(quantized, images), images))
    agreement = (file.argmax(1) == quantized(images).argmax(1)).float().mean()
    assert agreement >= 0.999
    save(quantized, resnet_digits(), tmp_path)
    assert torch.equal(load(resnet_digits, tmp_path)(images), quantized(images))


def test_without_training_data_it_is_refused(trained):
    _, _, context = data()
    with pytest.raises(DataError, match="needs training data"):
        QuantizationAwareTraining().apply(copy.deepcopy(trained), context.replace(train=None))


def test_eight_bits_warn(trained):
    _, _, context = data()
    QuantizationAwareTraining(weight_bits=8, epochs=0.01).apply(copy.deepcopy(trained), context)
    assert any("without VNNI" in note for note in context.notes)


@pytest.mark.parametrize("budget", ["bytes", "energy"])
def test_mixed_bits_keep_the_budget(budget, trained):
    images, labels, context = data()
    share = 0.09 if budget == "bytes" else 0.6
    technique = MixedPrecision(budget=budget, share=share, epochs=8, samples=64, fit=FAST)
    quantized = technique.apply(copy.deepcopy(trained), context)
    bits = [grid.bits for key, grid in quantized.plan.tensors.items() if key.endswith(".weight")]
    assert min(bits) < 7
    if budget == "bytes":
        proto = exported(quantized, images)
        stored = sum(len(t.raw_data) for t in proto.graph.initializer if t.name.endswith(("_packed", "weight_scale")))
        weights = sum(p.numel() for p in trained.parameters() if p.dim() > 1)
        assert stored <= share * 4 * weights
    assert (
        share_right(quantized(images[1200:]).detach(), labels[1200:])
        > share_right(trained(images[1200:]).detach(), labels[1200:]) - 0.05
    )
    assert any(note.startswith("layers by the width") for note in context.notes)


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match="at least one width"):
        MixedPrecision(bits=())
    with pytest.raises(ValueError, match="less than or equal to 8"):
        MixedPrecision(bits=(2, 9))
    assert MixedPrecision(bits=(4, 2, 4)).bits == (2, 4)


def test_any_loss_trains_the_steps(x):
    from adaptkit.training.fit import fit

    learner = LearnedSteps(quantize(settled(Residual(), 3, 32, 32), x, weight_bits=7))
    wanted = torch.zeros(len(x), 5)

    def loss(model, inputs, target):
        output = model(inputs)
        return F.mse_loss(output, wanted[: len(inputs)]), output

    before = float(loss(learner, x, None)[0].detach())
    fit(learner, (x, torch.zeros(len(x), dtype=torch.long)), epochs=5, loss=loss)
    assert float(loss(learner, x, None)[0].detach()) < 0.5 * before


def test_training_in_half_precision_is_refused():
    technique = QuantizationAwareTraining(fit=FitSettings(precision="bfloat16"))
    assert technique.check(Residual()) == [
        "integers are simulated exactly in float32 only: leave out fit.precision=bfloat16"
    ]
