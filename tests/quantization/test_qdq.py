import copy
import json

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import ModelError
from adaptkit.export.onnx import to_onnx
from adaptkit.quantization import Grid, QuantizationPlan
from adaptkit.quantization.inspect import float_islands, island_notes, optimized, saturation_risk
from adaptkit.quantization.plan import ExampleInput
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit_zoo.cifar_resnet import resnet20_cifar
from tests.quantization.nets import Residual, exported, quantize, run, settled


def agree(simulated: torch.Tensor, file: np.ndarray) -> bool:
    """Integer kernels round a few values the other way: as far apart as a fraction of what quantization changes."""
    return bool(np.abs(simulated.detach().numpy() - file).mean() < 0.02 * np.std(file))


@pytest.fixture(scope="module")
def x():
    return torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def residual(x):
    quantized = quantize(settled(Residual(), 3, 32, 32), x)
    return quantized, exported(quantized, x)


def test_the_file_computes_what_the_simulator_computes(residual, x):
    quantized, proto = residual
    np.testing.assert_allclose(quantized(x).detach().numpy(), run(proto, x), atol=1e-5)
    assert agree(quantized(x), run(proto, x, optimize=False))


def test_the_file_is_near_the_float_model(residual, x):
    quantized, proto = residual
    exact = quantized.model(x).detach().numpy()
    assert 0 < np.abs(run(proto, x) - exact).mean() < 0.1 * exact.std()


def test_everything_runs_in_integers(residual):
    _, proto = residual
    assert float_islands(proto) == []
    types = [node.op_type for node in optimized(proto).graph.node]
    assert types.count("QLinearConv") == 5
    assert {"Conv", "Add", "Relu", "Clip", "Gemm", "GlobalAveragePool"}.isdisjoint(types)
    assert types.count("QuantizeLinear") == 1


def test_float_layers_between_integer_ones_are_reported(x):
    quantized = quantize(settled(Residual(), 3, 32, 32), x, ignore=("grow",))
    islands = float_islands(exported(quantized, x))
    assert any(island.startswith(("Conv", "FusedConv")) for island in islands)


def test_every_batch_size_runs(residual, x):
    _, proto = residual
    whole = run(proto, x)
    for size in (1, 3):
        np.testing.assert_allclose(run(proto, x[:size]), whole[:size], atol=1e-5)


def test_weights_are_stored_as_integers(residual):
    _, proto = residual
    stored = {t.name: numpy_helper.to_array(t).dtype for t in proto.graph.initializer if t.name.endswith("_quantized")}
    assert sum(dtype == np.int8 for dtype in stored.values()) == 6
    assert sum(dtype == np.int32 for dtype in stored.values()) == 6
    assert not any(t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 32 for t in proto.graph.initializer)


def test_a_bias_has_the_product_of_the_scales(residual):
    quantized, _ = residual
    tensors = quantized.plan.tensors
    first = np.float32(tensors["conv2d.weight"].scale) * np.float32(tensors["x"].scale[0])
    assert np.array_equal(np.float32(tensors["conv2d.bias"].scale), first)


def test_concatenation_and_movement_share_a_grid(residual):
    quantized, _ = residual
    tensors = quantized.plan.tensors
    assert tensors["cat"] == tensors["max_pool2d"] == tensors["relu_2"]
    assert tensors["relu"] == tensors["pad"]


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(x):
    first, second = (exported(quantize(settled(Residual(), 3, 32, 32), x), x) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_plan_rebuilds_the_model(residual, x):
    quantized, _ = residual
    plan = QuantizationPlan.from_json(json.dumps(json.loads(quantized.plan.to_json())))
    again = QuantizedModel(copy.deepcopy(quantized.model), plan).eval()
    assert torch.equal(again(x), quantized(x))


def test_it_is_a_module_like_any_other(residual, x):
    quantized, _ = residual
    clone = copy.deepcopy(quantized)
    assert set(clone.state_dict()) == {f"model.{name}" for name in quantized.model.state_dict()}
    with torch.no_grad():
        clone.model.head.bias += 1
    assert not torch.equal(clone(x), quantized(x))
    clone.load_state_dict(quantized.state_dict())
    assert torch.equal(clone(x), quantized(x))


def test_gradients_reach_every_parameter(residual, x):
    clone = copy.deepcopy(residual[0])
    clone(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in clone.parameters())
    assert clone.model.norm.weight.grad.abs().sum() > 0


def test_a_plan_of_another_model_is_refused():
    plan = QuantizationPlan({"conv2d_7": Grid((1.0,), (0,), signed=False)}, (ExampleInput((1, 3, 32, 32)),))
    with pytest.raises(ModelError, match="another model: it names conv2d_7"):
        QuantizedModel(Residual(), plan)


@pytest.mark.slow
def test_saturation_is_found_where_it_is(x):
    risky = exported(quantize(settled(Residual(), 3, 32, 32), x, weight_bits=8, bias_correction=False), x)
    found = saturation_risk(risky)
    assert found
    assert all("> 32767" in line for line in found)
    for bits in (7, "auto"):
        assert saturation_risk(exported(quantize(settled(Residual(), 3, 32, 32), x, weight_bits=bits), x)) == []


class LeNet(nn.Sequential):
    def __init__(self):
        convolutions = [nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()]
        super().__init__(
            *convolutions, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)
        )


def vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)
    nn.init.normal_(model.heads.head.weight, std=0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "size", "islands"),
    [
        (LeNet, 32, 2),
        (lambda: resnet20_cifar(), 32, 0),
        (torchvision.models.resnet18, 64, 0),
        (torchvision.models.vgg16_bn, 32, 3),  # at this size its pooling stretches 1 × 1 to 7 × 7
        (torchvision.models.mobilenet_v2, 64, 0),
        (lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False), 64, 0),
        (torchvision.models.densenet121, 64, 130),
        (vit, 32, 20),
    ],
    ids=["lenet", "resnet20", "resnet18", "vgg16_bn", "mobilenet_v2", "googlenet", "densenet121", "vit"],
)
def test_known_architectures(build, size, islands):
    x = torch.randn(8, 3, size, size)
    quantized = quantize(settled(build(), 3, size, size), x)
    proto = exported(quantized, x)
    file, simulated, exact = run(proto, x), quantized(x).detach().numpy(), quantized.model(x).detach().numpy()
    gap = np.abs(file - simulated).mean()
    assert gap < max(0.5 * np.abs(simulated - exact).mean(), 1e-3 * exact.std())
    assert len(float_islands(proto)) <= islands
    assert saturation_risk(proto) == []
    assert run(proto, x[:1]).shape == file[:1].shape


def test_the_exported_float_model_is_untouched(residual, x):
    quantized, _ = residual
    np.testing.assert_allclose(run(to_onnx(quantized.model, (x[:1],)), x), quantized.model(x).detach(), atol=1e-4)


def test_a_note_says_what_stayed_float(residual, x):
    assert island_notes(residual[1])[0].startswith("no float operation")
    islands = exported(quantize(settled(LeNet(), 3, 32, 32), x), x)
    assert island_notes(islands)[0].endswith(": 1 Tanh")


class Padded(nn.Module):
    def __init__(self, mode: str, value: float | None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.mode, self.value = mode, value

    def forward(self, x):
        return self.second(F.pad(F.relu(self.first(x)), (1, 1, 1, 1), self.mode, self.value))


@pytest.mark.parametrize(("mode", "value"), [("constant", 0.0), ("constant", 2.0), ("reflect", None)])
def test_what_is_padded_with_is_what_the_simulator_pads_with(x, mode, value):
    quantized = quantize(Padded(mode, value).eval(), x)
    assert agree(quantized(x), run(exported(quantized, x), x))
