import json

import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.surgery import as_structure, describe, find_modules, rebuild, replace_module, unmatched


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=(1, 1))
        self.block = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 4)
        self.dims = [8, 8]

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def rebuilt(model: nn.Module) -> nn.Module:
    structure = json.loads(json.dumps(describe(model, Net())))
    fresh = rebuild(Net(), structure)
    fresh.load_state_dict(model.state_dict())
    return fresh.eval()


@pytest.mark.parametrize(
    ("targets", "ignore", "found"),
    [
        (["*"], [], ["stem", "block", "block.0", "block.1", "block.2", "head"]),
        (["Conv2d"], [], ["stem", "block.2"]),
        (["Conv2d"], ["block.*"], ["stem"]),
        (["block.?"], ["BatchNorm2d"], ["block.1", "block.2"]),
        (["re:.*e.*"], [], ["stem", "head"]),
        (["re:e"], [], []),
        ([], [], []),
    ],
)
def test_find_modules(targets, ignore, found):
    assert list(find_modules(Net(), targets, ignore)) == found


def test_unmatched_patterns_are_named():
    assert unmatched(Net(), ["stem", "Conv3d", "re:x+"]) == ["Conv3d", "re:x+"]


def test_replaced_module_takes_over_the_mode():
    model = Net().eval()
    replace_module(model, "block.1", nn.Identity())
    assert isinstance(model.block[1], nn.Identity)
    assert not model.block[1].training


def test_new_convolutions_and_linear_layers_are_rebuilt_with_their_settings():
    model = Net().eval()
    first = nn.Conv2d(3, 2, (3, 1), padding=(1, 0), padding_mode="reflect", bias=False)
    replace_module(model, "stem", nn.Sequential(first, nn.Conv2d(2, 8, (1, 3), padding="same", dilation=2)))
    replace_module(model, "head", nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 4)))
    again = rebuilt(model)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(again(x), model(x))
    assert str(again) == str(model)
    assert vars(again.stem[0])["padding"] == (1, 0)


def test_nothing_changed_is_an_empty_description():
    structure = describe(Net(), Net())
    assert structure == {"version": 1, "replaced": {}, "removed": [], "attributes": {}, "tensors": {}}


def _narrow(model: nn.Module) -> nn.Module:
    model.stem.weight = nn.Parameter(model.stem.weight[:5])
    model.stem.bias = nn.Parameter(model.stem.bias[:5])
    model.stem.out_channels = 5
    model.dims = [5, 8]
    for key in ("weight", "bias"):
        setattr(model.block[0], key, nn.Parameter(getattr(model.block[0], key)[:5]))
    model.block[0].running_mean = model.block[0].running_mean[:5]
    model.block[0].running_var = model.block[0].running_var[:5]
    model.block[0].num_features = 5
    model.block[2].weight = nn.Parameter(model.block[2].weight[:, :5])
    model.block[2].in_channels = 5
    return model


def _without_norm(model: nn.Module) -> nn.Module:
    model.block[0] = nn.Identity()
    return model


def _factorized(model: nn.Module) -> nn.Module:
    model.head = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 4))
    return model


def _without_bias(model: nn.Module) -> nn.Module:
    model.stem.bias = None
    return model


@pytest.mark.parametrize("change", [_narrow, _without_norm, _without_bias])
def test_describe_and_rebuild_agree(change):
    model = change(Net()).eval()
    x = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(rebuilt(model)(x), model(x), rtol=0, atol=0)


def test_attributes_keep_their_types():
    model = Net()
    model.stem.padding = (0, 0)
    model.dims = [3, 4]
    fresh = rebuild(Net(), json.loads(json.dumps(describe(model, Net()))))
    assert fresh.stem.padding == (0, 0)
    assert fresh.dims == [3, 4]


def test_a_module_that_cannot_be_rebuilt_is_refused_when_saved():
    class Own(nn.Module):
        pass

    model = Net()
    model.head = Own()
    with pytest.raises(ModelError, match=r"head: a .*Own was put in, which cannot be rebuilt"):
        describe(model, Net())


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval"])
def test_a_foreign_class_in_structure_is_not_loaded(path):
    structure = describe(Net(), Net())
    structure["replaced"]["head"] = {"class": path, "arguments": {}, "inside": {}}
    with pytest.raises(ModelError, match=r"neither of torch\.nn nor of adaptkit"):
        rebuild(Net(), structure)


def test_a_function_in_structure_is_not_called():
    structure = describe(Net(), Net())
    structure["replaced"]["head"] = {"class": "torch.nn.factory_kwargs", "arguments": {}, "inside": {}}
    with pytest.raises(ModelError, match="is not a module"):
        rebuild(Net(), structure)


def test_structure_of_another_model_names_the_cure():
    structure = describe(_narrow(Net()), Net())
    with pytest.raises(ModelError, match="Pass the builder"):
        rebuild(nn.Sequential(), structure)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "of version None, this adaptkit reads version 1"),
        ({"version": 2}, "of version 2, this adaptkit reads version 1"),
        ({"version": 1, "replaced": [], "removed": [], "attributes": {}}, "damaged at replaced, tensors"),
    ],
)
def test_a_damaged_description(found, message):
    with pytest.raises(ModelError, match=message):
        as_structure(found)


class Sizes(nn.Module):
    """Keeps a size where others keep private things, and uses one weight twice."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self._size = size
        self.embed, self.head = nn.Embedding(10, size), nn.Linear(size, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x).view(-1, self._size))


def test_private_sizes_and_shared_weights_come_back():
    cut = Sizes(4)
    cut.embed.embedding_dim = cut.head.in_features = 4
    fresh = rebuild(Sizes(8), json.loads(json.dumps(describe(cut, Sizes(8)))))
    fresh.load_state_dict(cut.state_dict())
    assert fresh.head.weight is fresh.embed.weight
    assert sum(parameter.numel() for parameter in fresh.parameters()) == 40
    assert torch.equal(fresh(torch.arange(3)), cut(torch.arange(3)))


def test_new_layers_keep_their_precision():
    model = Net().double()
    replace_module(model, "head", nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 4)).double())
    fresh = rebuild(Net().double(), json.loads(json.dumps(describe(model, Net().double()))))
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(fresh.eval()(x), model.eval()(x))
