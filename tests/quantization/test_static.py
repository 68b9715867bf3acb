import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from adaptkit.errors import DataError, ModelError, TargetError
from adaptkit.export.onnx import to_onnx
from adaptkit.quantization import StaticQuantization
from adaptkit.quantization.correct import correct_biases
from adaptkit.technique import Context
from tests.quantization.nets import Residual, exported, quantize, run, settled


@pytest.fixture(scope="module")
def x():
    return torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"ranges": "minmax"},
        {"ranges": "percentile", "percentile": 99.9},
        {"ranges": "entropy"},
        {"activations": "int8"},
        {"per_channel": False},
        {"weight_bits": 7, "bias_correction": False},
    ],
    ids=str,
)
def test_every_setting_reaches_the_file(settings, x):
    model = settled(Residual(), 3, 32, 32)
    exact = model(x).detach().numpy()
    quantized = quantize(model, x, **settings)
    file = run(exported(quantized, x), x)
    assert np.abs(file - quantized(x).detach().numpy()).mean() < 0.02 * exact.std()
    assert np.abs(file - exact).mean() < 0.2 * exact.std()
    grids = quantized.plan.tensors
    assert grids["x"].signed == (settings.get("activations") == "int8")
    assert len(grids["conv2d.weight"].scale) == (1 if settings.get("per_channel") is False else 8)
    assert grids["conv2d.weight"].bits == settings.get("weight_bits", 8)


def test_only_the_samples_asked_for_are_read(x):
    poisoned = torch.cat([x, torch.full_like(x, float("nan"))])
    quantize_few = StaticQuantization(calibration=len(x))
    for data in ((poisoned, torch.zeros(64)), [(poisoned[:20], 0), (poisoned[20:40], 0), (poisoned[40:], 0)]):
        model = settled(Residual(), 3, 32, 32)
        plan = quantize_few.apply(model, Context(example_inputs=(x[:1],), calibration=data)).plan
        assert plan.tensors["x"].scale[0] < 1


def test_batches_of_any_size_give_the_same_plan(x):
    plans = []
    for data in ((x, None), [(x[:5], 0), (x[5:], 0)]):
        context = Context(example_inputs=(x[:1],), calibration=data)
        plans.append(StaticQuantization(bias_correction=False).apply(settled(Residual(), 3, 32, 32), context).plan)
    whole, cut = plans
    assert whole.tensors.keys() == cut.tensors.keys()
    for name, grid in whole.tensors.items():
        # The convolutions of some processors give other last bits for another batch size.
        assert cut.tensors[name].scale == pytest.approx(grid.scale, rel=1e-5)
        assert cut.tensors[name].zero_point == grid.zero_point


def test_a_value_that_is_not_finite_is_named(x):
    broken = x.clone()
    broken[3, 0, 0, 0] = float("inf")
    with pytest.raises(DataError, match="activation x is not finite"):
        quantize(settled(Residual(), 3, 32, 32), broken)
    model = settled(Residual(), 3, 32, 32)
    model.left.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match="left has weights or biases that are NaN"):
        quantize(model, x)


def test_no_data_is_refused():
    context = Context(example_inputs=(torch.zeros(1, 3, 32, 32),), calibration=[])
    with pytest.raises(DataError, match="calibration data is empty"):
        StaticQuantization().apply(Residual(), context)


def test_nothing_to_quantize_is_refused(x):
    technique = StaticQuantization(targets=("ReLU",))
    assert technique.check(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())) != []
    with pytest.raises(TargetError, match="no convolution or linear layer"):
        StaticQuantization(ignore=("*",)).apply(Residual(), Context(example_inputs=(x[:1],), calibration=(x, None)))


def test_patterns_choose_the_layers(x):
    model = Residual()
    assert StaticQuantization().check(model) == []
    assert StaticQuantization(ignore=("stemm",)).check(model) == ["stemm matches no module of the model"]
    plan = quantize(settled(model, 3, 32, 32), x, targets=("Conv2d",), ignore=("depthwise",)).plan
    layers = sorted(key for key in plan.tensors if key.endswith(".weight"))
    assert layers == ["conv2d.weight", "conv2d_2.weight", "conv2d_3.weight", "conv2d_4.weight"]


def test_bias_correction_brings_the_mean_back(x):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten()), 3, 32, 32)
    exact = model(x).detach()
    quantized = quantize(model, x + 2, weight_bits=7, bias_correction=False)
    exact = quantized.model(x + 2).detach().mean((0,))

    def shift() -> float:
        return float((quantized(x + 2).detach().mean(0) - exact).reshape(8, -1).mean(1).abs().mean())

    before = shift()
    assert correct_biases(quantized, [(x + 2,)]) == 1
    assert shift() < before / 3


class TimeFirst(nn.Module):
    """A linear layer on time × batch × features, so the batch is not the first dimension."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 8)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


def test_bias_correction_counts_every_row_whatever_comes_first():
    model, x = TimeFirst().eval(), torch.randn(32, 5, 6) + 2
    quantized = quantize(model, x, weight_bits=7, bias_correction=False)
    exact = quantized.model(x).detach().mean((0, 1))

    def shift() -> float:
        return float((quantized(x).detach().mean((0, 1)) - exact).abs().mean())

    before = shift()
    assert correct_biases(quantized, [(x[:20],), (x[20:],)]) == 1
    assert shift() < before / 2


def digits():
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(data.target)


def trained_digits_net() -> nn.Module:
    images, labels = digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(12):
        for rows in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    return net.eval()


def test_no_worse_than_the_quantizer_of_onnx_runtime(tmp_path):
    images, labels = digits()
    net = trained_digits_net()
    exact = net(images[1400:]).detach().numpy()
    proto = to_onnx(net, (images[:1],))
    theirs = run(_by_onnx_runtime(proto, images[1200:1400], tmp_path), images[1400:])
    ours = run(exported(quantize(net, images[1200:1400]), images[:1]), images[1400:])
    truth = labels[1400:].numpy()
    assert (exact.argmax(1) == truth).mean() > 0.9
    assert (ours.argmax(1) == truth).mean() >= (theirs.argmax(1) == truth).mean() - 0.005
    assert np.square(ours - exact).mean() < np.square(theirs - exact).mean()


def _by_onnx_runtime(proto, images, folder):
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"input": images.numpy()}])

        def get_next(self):
            return next(self.rest, None)

    onnx.save(proto, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(folder / "int8.onnx")


def test_notes_count_the_layers_and_warn_of_eight_bits(x):
    notes: list[str] = []
    context = Context(example_inputs=(x[:1],), calibration=(x, None), notes=notes)
    StaticQuantization(weight_bits=8).apply(settled(Residual(), 3, 32, 32), context)
    assert notes[0].startswith("6 layers")
    assert "without VNNI" in notes[1]


def test_channels_last_inputs_after_a_contiguous_capture():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(16, 3, 6, 6)
    y = torch.zeros(16, dtype=torch.long)
    context = Context(example_inputs=(x[:2],), calibration=(x.to(memory_format=torch.channels_last), y))
    quantized = StaticQuantization(calibration=16).apply(model, context)
    other = quantized(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, quantized(x), rtol=0, atol=1e-5)
