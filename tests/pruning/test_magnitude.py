import pytest
import torch
from torch import nn

from adaptkit.distillation import LogitDistillation
from adaptkit.errors import DataError, TargetError
from adaptkit.export.files import file_bytes
from adaptkit.export.onnx import export_onnx
from adaptkit.export.sparse_notes import sparse_notes
from adaptkit.loading.saved import float_model, load, save
from adaptkit.pruning import MagnitudePruning
from adaptkit.pruning.masks import lost_zeros, zeros
from adaptkit.pruning.sparse import SPEED
from adaptkit.quantization import StaticQuantization
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.digits import lenet5_digits, resnet_digits

X = torch.zeros(2, 1, 8, 8)


def _data(samples: int = 96):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(samples, 1, 8, 8, generator=generator), torch.randint(10, (samples,), generator=generator)


def _weights(model):
    return [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


@pytest.mark.parametrize("ranking", ["per_layer", "global", "lamp"])
@pytest.mark.parametrize("sparsity", [0.3, 0.97])
def test_the_share_of_zeros_is_the_one_asked_for(ranking, sparsity):
    model = MagnitudePruning(sparsity=sparsity, ranking=ranking).apply(lenet5_digits(), Context(example_inputs=(X,)))
    weights = _weights(model)
    gone, size = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    assert abs(gone - sparsity * size) <= len(weights)
    assert min(int((w != 0).sum()) for w in weights) >= 1


def test_what_is_no_target_stays():
    torch.manual_seed(0)
    model = MagnitudePruning(sparsity=0.5, targets=("Linear",)).apply(lenet5_digits(), Context(example_inputs=(X,)))
    kinds = {type(m).__name__: bool((m.weight == 0).any()) for m in model.modules() if hasattr(m, "weight")}
    assert kinds == {"Conv2d": False, "Linear": True}


def test_zeros_survive_recovery_distillation_saving_and_integers(tmp_path):
    torch.manual_seed(0)
    context = Context(
        example_inputs=(X,), train=_data(), calibration=_data(32), teacher=lenet5_digits(), workspace=tmp_path / "a"
    )
    fit = FitSettings(learning_rate=0.01, ema=0.9)
    model = MagnitudePruning(sparsity=0.9, recovery_epochs=1, fit=fit).apply(lenet5_digits(), context)
    before = zeros(model)
    assert (tmp_path / "a" / "recovery" / "fit.pt").exists()
    model = LogitDistillation(epochs=1, fit=fit).apply(model, context.replace(workspace=tmp_path / "b"))
    assert lost_zeros(before, model) == []
    save(model, lenet5_digits(), tmp_path)
    model = load(lenet5_digits, tmp_path)
    quantized = StaticQuantization(calibration=32).apply(model, context)
    assert lost_zeros(before, float_model(quantized)) == []
    export_onnx(quantized, (X,), tmp_path / "sparse.onnx")
    promised = sum(int(zero.sum()) for zero in before.values())
    (note,) = sparse_notes(float_model(quantized), tmp_path / "sparse.onnx")
    assert note.startswith(f"{promised:,} of ")
    assert "all of them are there in sparse.onnx" in note
    export_onnx(StaticQuantization(calibration=32).apply(lenet5_digits(), context), (X,), tmp_path / "dense.onnx")
    assert file_bytes(tmp_path / "sparse.onnx") < 0.7 * file_bytes(tmp_path / "dense.onnx")
    assert "ONLY" in sparse_notes(float_model(quantized), tmp_path / "dense.onnx")[0]
    assert sparse_notes(lenet5_digits(), tmp_path / "dense.onnx") == []


def test_the_notes_say_how_sparse_and_what_it_is_worth():
    context = Context(example_inputs=(X,))
    MagnitudePruning(sparsity=0.8, ranking="per_layer").apply(resnet_digits(), context)
    assert context.notes[0].startswith("80.0 % of ")
    assert context.notes[1:] == [SPEED]


def test_what_is_missing_or_wrong_is_said():
    context = Context(example_inputs=(X,))
    with pytest.raises(TargetError, match="has no convolution, linear, recurrent or attention layer that targets"):
        MagnitudePruning(targets=("BatchNorm2d",)).apply(resnet_digits(), context)
    with pytest.raises(DataError, match=r"prune\.magnitude needs training data for 1 epochs"):
        MagnitudePruning(recovery_epochs=1).apply(lenet5_digits(), context)
    with pytest.raises(ValueError, match="less than 1"):
        MagnitudePruning(sparsity=1)
    with pytest.raises(ValueError, match="greater than 0"):
        MagnitudePruning(sparsity=0)


def test_check_lists_every_problem():
    assert MagnitudePruning(targets=("stage9", "Conv2d"), ignore=("conv7",)).check(resnet_digits()) == [
        "'stage9' matches no module of the model",
        "ignore: 'conv7' matches no module of the model",
    ]
    assert MagnitudePruning(targets=("BatchNorm2d",)).check(resnet_digits()) == [
        "targets and ignore together leave no layer with weights"
    ]
