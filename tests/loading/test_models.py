import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.loading.models import load_model, load_weights
from adaptkit.specs import ModelSpec


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_zoo_by_name_with_weights(tmp_path):
    spec = ModelSpec(zoo="resnet20_cifar")
    saved = load_model(spec, num_classes=7)
    assert saved(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert not saved.training
    with torch.no_grad():
        saved.linear.weight.fill_(3)
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    model = load_model(spec.model_copy(update={"weights": "w.safetensors"}), num_classes=7, folder=tmp_path)
    assert same(model, saved)


def test_random_weights_are_the_same_each_time_and_leave_the_random_state():
    state = torch.random.get_rng_state()
    first, second = (load_model(ModelSpec(zoo="resnet20_cifar")) for _ in range(2))
    assert same(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_shared_weights_fit(shared_data):
    path = shared_data / "weights" / "resnet20-cifar10-jpeg.safetensors"
    model = load_model(ModelSpec(zoo="resnet20_cifar", weights=str(path)), num_classes=10)
    assert torch.isfinite(model.conv1.weight).all()
    assert not same(model, load_model(ModelSpec(zoo="resnet20_cifar"), num_classes=10))
    with pytest.raises(ModelError, match=r"does not fit the model CifarResNet: \d+ missing: layer1.3.conv1.weight"):
        load_model(ModelSpec(zoo="resnet56_cifar", weights=str(path)))


def test_torchvision_takes_the_classes_of_the_data_unless_told():
    spec = ModelSpec(torchvision="squeezenet1_1")
    assert load_model(spec, 7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    told = spec.model_copy(update={"args": {"num_classes": 5}})
    assert load_model(told, 7)(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.slow
def test_googlenet_builds_without_a_warning():
    assert load_model(ModelSpec(torchvision="googlenet"), 3).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_function_beside_the_recipe(tmp_path):
    (tmp_path / "my_net.py").write_text("from torch import nn\ndef build(width=4): return nn.Linear(3, width)\n")
    torch.save({"weight": torch.ones(6, 3), "bias": torch.zeros(6)}, tmp_path / "w.pt")
    model = load_model(ModelSpec(python="my_net:build", weights="w.pt", args={"width": 6}), folder=tmp_path)
    assert model.weight.tolist() == [[1.0] * 3] * 6
    with pytest.raises(
        ModelError, match=r"does not fit .* 2 of another shape: weight \(\(6, 3\) in the file, \(4, 3\) in"
    ):
        load_model(ModelSpec(python="my_net:build", weights="w.pt"), folder=tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(zoo="resnet65_cifar"), r"the zoo has no model 'resnet65_cifar'; did you mean resnet56_cifar\?"),
        (ModelSpec(zoo="zzz"), r"the zoo has no model 'zzz'; it has .*resnet20_cifar, "),
        (
            ModelSpec(torchvision="resnet19"),
            r"torchvision has no classification model 'resnet19'; did you mean resnet1",
        ),
        (ModelSpec(torchvision="raft_large"), "torchvision has no classification model 'raft_large'"),
        (
            ModelSpec(torchvision="resnet18", weights="IMAGENET"),
            "has no weights 'IMAGENET', only IMAGENET1K_V1; and there",
        ),
        (ModelSpec(torchvision="resnet18", weights="no.pt"), r"there is no weights file .*no\.pt"),
        (ModelSpec(zoo="resnet20_cifar", args={"depth": 3}), "cannot build resnet20_cifar with {'depth': 3}: .*depth"),
        (ModelSpec(torchvision="resnet18", args={"depth": 3}), "cannot build resnet18 with .*depth"),
        (ModelSpec(python="math:sqrt"), "math:sqrt failed: TypeError"),
        (ModelSpec(python="collections:OrderedDict"), "returned OrderedDict; it must return a torch.nn.Module"),
        (ModelSpec(python="no_such_module:build"), "cannot import no_such_module: ModuleNotFoundError"),
    ],
)
def test_models_that_are_none(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_a_download_that_fails(tmp_path, monkeypatch, capsys):
    def no_network(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(
        ModelError, match=r"cannot get the weights IMAGENET1K_V1 of resnet18: .*no route.* Download https"
    ):
        load_model(ModelSpec(torchvision="resnet18", weights="IMAGENET1K_V1"))
    assert capsys.readouterr().out == "", "stdout is for the results of a command"


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_in_all_their_wrappings(tmp_path, wrap, prefix):
    saved, model = net(), net()
    state = {prefix + name: value for name, value in saved.state_dict().items()}
    torch.save(state if wrap is None else {wrap: state, "epoch": 3}, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    assert same(model, saved)


def test_a_counter_of_batches_may_be_missing(tmp_path):
    saved, model = net(), net()
    state = {name: value for name, value in saved.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert same(model, saved)


def test_another_architecture_is_told_apart(tmp_path):
    other = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2), nn.Linear(2, 2))
    torch.save(other.state_dict(), tmp_path / "w.pt")
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_weights(model, tmp_path / "w.pt")
    text = str(caught.value)
    assert "w.pt does not fit the model Sequential" in text
    assert "4 missing: 1.weight, 1.bias, 1.running_mean, …" in text
    assert "2 unexpected: 3.weight, 3.bias" in text
    assert "3 of another shape: 0.weight ((5, 3) in the file, (4, 3) in the model), 0.bias" in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


@pytest.mark.parametrize("content", [{"w": Evil()}, net()])
def test_pickles_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"w\.pt holds pickled Python objects, .* torch\.save\(model\.state_dict\(\), path\)"
    ):
        load_weights(net(), tmp_path / "w.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"w": Evil()}))
    with pytest.raises(ModelError, match=r"raw\.pt"):
        load_weights(net(), tmp_path / "raw.pt")
    assert not Evil.ran


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"half", b"PK\x03\x04 cut"])
def test_broken_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is no (weights|whole safetensors) file"):
        load_weights(net(), tmp_path / name)


def test_files_without_a_state_dict(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt holds no state_dict"):
        load_weights(net(), tmp_path / "w.pt")
