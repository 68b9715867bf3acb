import copy

import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError, UnsupportedLayer
from adaptkit.pruning import rules
from adaptkit.pruning.channels import dependency_groups, remove
from adaptkit.surgery import describe, rebuild
from tests.pruning import networks
from tests.pruning.reference import masked_norms, outputs_of, random_selection, randomize, zeroed


def _made(kind) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return randomize(kind()).double().eval(), (torch.randn(2, 3, 4, 4, dtype=torch.double),)


@pytest.mark.parametrize("kind", networks.ALL, ids=lambda kind: kind.__name__)
def test_pruned_equals_the_original_with_zeros(kind):
    model, inputs = _made(kind)
    graph = dependency_groups(model, inputs)
    for seed, ratio in enumerate((0.2, 0.6)):
        selection = random_selection(graph, ratio, seed)
        pruned = remove(copy.deepcopy(model), graph, selection)
        masked, kept = zeroed(model, graph, selection)
        with masked_norms(kept):
            wanted = outputs_of(masked, inputs)
        for got, want in zip(outputs_of(pruned, inputs), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        before = sum(p.numel() for p in model.parameters())
        assert (sum(p.numel() for p in pruned.parameters()) < before) == bool(selection)


WANTED = {
    networks.Residual: [("stem", 8, 1), ("inner", 12, 1)],
    networks.Dense: [("a", 6, 1), ("b", 4, 1)],
    networks.Shuffle: [("a", 4, 4), ("b", 8, 1), ("up", 3, 4)],
    networks.Auxiliary: [("a", 8, 1), ("b", 8, 1)],
    networks.Grouped: [("a", 2, 6), ("large", 4, 2), ("squeeze", 4, 1)],
    networks.OptionA: [("stem", 8, 1), ("block.conv", 4, 2)],
    networks.TwoPads: [("stem", 8, 1), ("block.conv", 8, 1)],
    networks.ClosedOptionA: [("stem", 8, 1)],
    networks.Attention: [("embed", 12, 1), ("packed", 4, 18)],
    networks.Packed: [("embed", 16, 1), ("attention.q_proj", 4, 4)],
    networks.Norms: [("a", 3, 2), ("a", 5, 2), ("b", 4, 1), ("c", 4, 1)],
    networks.Tied: [("first", 10, 1), ("a", 8, 1)],
    networks.Whole: [("c", 4, 1)],
    networks.Odd: [],
    networks.Recurrent: [("embed", 12, 1), ("lstm", 6, 1), ("gru", 7, 1)],
    networks.Cells: [("cell", 9, 1), ("second", 6, 1)],
    networks.Windowed: [("embed", 4, 3), ("wide", 20, 1)],
    networks.Lender: [("embed", 6, 1), ("embed", 8, 1)],
    networks.SharedHeads: [("query", 2, 12)],
    networks.Sorted: [("a", 8, 1)],
    networks.Transposed: [("up", 8, 1)],
    networks.Detector: [("body.0", 8, 1), ("tower.0", 10, 1), ("tower.2", 7, 1)],
}


@pytest.mark.parametrize("kind", WANTED, ids=lambda kind: kind.__name__)
def test_groups_are_those_worked_out_by_hand(kind):
    graph = dependency_groups(*_made(kind))
    assert [(group.label, group.size, group.width) for group in graph.groups] == WANTED[kind]


def test_notes_say_what_was_left_alone_and_why():
    assert dependency_groups(*_made(networks.Residual)).notes == ()
    assert dependency_groups(*_made(networks.Odd)).notes == ("op aten.cummax.default: dimension left alone",)
    closed = dependency_groups(*_made(networks.ClosedOptionA))
    assert closed.notes == ("_Lambda does not follow a change of block.conv: left alone",)


def test_attributes_follow_the_cut():
    model, inputs = _made(networks.Attention)
    remove(model, dependency_groups(model, inputs), {0: [1, 2, 3], 1: [0]})
    assert (model.width, model.heads, model.dim) == (9, 3, 6)
    assert model.norm.normalized_shape == (9,)
    assert (model.embed.out_channels, model.packed.in_features, model.packed.out_features) == (9, 9, 54)

    model, inputs = _made(networks.TwoPads)
    remove(model, dependency_groups(model, inputs), {1: [0, 1, 7]})
    assert (model.block.low, model.block.high) == (2, 3)

    model, inputs = _made(networks.Grouped)
    remove(model, dependency_groups(model, inputs), {0: [1], 1: [0]})
    assert (model.depthwise.groups, model.small.groups, model.large.groups) == (6, 4, 2)
    assert (model.large.in_channels, model.large.out_channels) == (8, 6)


def test_recurrent_layers_follow_the_cut():
    model, inputs = _made(networks.Recurrent)
    graph = dependency_groups(model, inputs)
    remove(model, graph, {0: [3, 4, 5], 1: [0, 1], 2: [2]})
    assert (model.embed.out_features, model.lstm.input_size, model.lstm.hidden_size) == (9, 9, 4)
    assert (model.gru.input_size, model.gru.hidden_size, model.head.in_features) == (8, 6, 6)
    assert all(a is b for a, b in zip(model.lstm._flat_weights, model.lstm.parameters(), strict=True))
    twin = rebuild(networks.Recurrent(), describe(model, networks.Recurrent())).double()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(*inputs), model(*inputs))


def test_parts_are_named_and_what_is_used_from_outside_stays():
    model, inputs = _made(networks.Detector)
    graph = dependency_groups(model, inputs)
    assert len(graph.notes) == 1
    assert graph.notes[0].startswith("the model cannot be captured: the model itself raised ")
    assert graph.notes[0].endswith("; captured in parts, whose outputs are left alone: body, tower, shared")
    assert not any("shared" in piece.name for group in graph.groups for piece in group.slices)


def test_training_heads_are_cut_with_what_feeds_them():
    model, inputs = _made(networks.Auxiliary)
    pruned = remove(model, dependency_groups(model, inputs), {0: [0, 3]}).train()
    assert pruned.side.in_features == 6
    assert [output.shape for output in outputs_of(pruned, inputs)] == [(2, 5), (2, 5)]


def test_tied_parameters_stay_tied():
    model, inputs = _made(networks.Tied)
    remove(model, dependency_groups(model, inputs), {0: [4], 1: [1]})
    assert model.first.weight is model.second.weight
    assert model.first.weight.shape == (9, 7)


def test_outputs_are_protected():
    model, inputs = _made(networks.Residual)
    assert all("head.bias" not in {s.name for s in g.slices} for g in dependency_groups(model, inputs).groups)


def test_costs_are_those_of_the_cut_model():
    model, inputs = _made(networks.Grouped)
    graph = dependency_groups(model, inputs)
    kept = torch.tensor([1.0, 3.0, 2.0]).numpy()
    pruned = remove(model, graph, {0: [1], 1: [0], 2: [0, 1]})
    assert graph.parameters.total(kept) == sum(p.numel() for p in pruned.parameters())
    assert graph.macs.total(kept) == 2 * _macs_by_hooks(pruned, inputs)


def _macs_by_hooks(model: nn.Module, inputs) -> int:
    total = 0

    def count(module, _, output):
        nonlocal total
        pixels = output[0, 0].numel() if output.dim() == 4 else 1
        total += module.weight.numel() * pixels

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    outputs_of(model, inputs)
    return total


def test_a_pruned_model_trains_copies_saves_and_exports():
    model, inputs = _made(networks.Attention)
    pruned = remove(model, dependency_groups(model, inputs), {0: [1], 1: [2]})
    twin = copy.deepcopy(pruned)
    pruned.train()(*inputs).square().sum().backward()
    torch.optim.SGD(pruned.parameters(), lr=0.1).step()
    assert not torch.equal(pruned.out.weight, twin.out.weight)
    twin.load_state_dict(pruned.state_dict())
    exported = torch.export.export(twin.eval(), inputs, strict=False)
    torch.testing.assert_close(exported.module()(*inputs), pruned.eval()(*inputs))


def test_the_model_keeps_its_mode_and_weights_while_it_is_looked_at():
    model, inputs = _made(networks.Auxiliary)
    model.train()
    before = copy.deepcopy(model.state_dict())
    dependency_groups(model, inputs)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_forward_that_cannot_follow_its_parts_is_refused():
    class Rigid(networks.Detector):
        def forward(self, x):
            return super().forward(x) + self.tower[0].weight[9, 0] * 0

    with pytest.raises(ModelError, match=r"outside the parts .* fails when they are cut: index 9 is out of bounds"):
        dependency_groups(Rigid(), (torch.randn(2, 3, 4, 4),))


def test_what_cannot_be_captured_is_named():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.inner.register_forward_hook(lambda module, inputs, output: output if output.sum() > 0 else -output)

        def forward(self, x):
            return self.inner(x)

    with pytest.raises(ModelError, match="the model cannot be captured: inner raised"):
        dependency_groups(Branching(), (torch.ones(2, 3),))


def test_a_group_cannot_be_removed_whole():
    model, inputs = _made(networks.Residual)
    graph = dependency_groups(model, inputs)
    with pytest.raises(UnsupportedLayer, match="stem: asked to remove all of its 8 channels; keep at least one"):
        remove(model, graph, {0: range(8)})


def test_a_cut_that_goes_wrong_leaves_the_model_whole():
    model, inputs = _made(networks.TwoPads)
    graph = dependency_groups(model, inputs)
    graph.bindings.clear()
    before = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with pytest.raises(UnsupportedLayer, match="does not follow this cut"):
        remove(model, graph, {1: [0]})
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == before


def test_a_single_shared_head_leaves_every_head_of_queries_its_own():
    graph = dependency_groups(networks.SharedHeads(shared=1), (torch.randn(2, 3, 4, 4),))
    assert [(group.label, group.size, group.width) for group in graph.groups] == [("query", 6, 4)]


def test_a_call_that_its_rule_does_not_fit_is_left_alone(monkeypatch):
    def broken(call):
        call.counts("dim", call["self"].line(1))
        raise ValueError("shapes that the rule does not foresee")

    monkeypatch.setitem(rules.RULES, "sort", broken)
    model, inputs = _made(networks.Sorted)
    graph = dependency_groups(model, inputs)
    assert graph.groups == ()
    assert graph.notes == ("op aten.sort.default: dimension left alone",)


def test_outputs_are_where_the_layer_has_them():
    (group,) = dependency_groups(*_made(networks.Transposed)).groups
    assert group.producers() == ["up"]
    assert [(piece.name, piece.makes) for piece in group.slices] == [
        ("up.weight", True), ("up.bias", True), ("back.weight", False),
    ]  # fmt: skip


def test_old_weight_norm_is_to_be_removed_first():
    with pytest.warns(FutureWarning, match="deprecated"):
        first = torch.nn.utils.weight_norm(nn.Conv2d(3, 8, 1))
    model = nn.Sequential(first, nn.Conv2d(8, 4, 1))
    with pytest.raises(ModelError, match=r"^0 computes its weight by torch.nn.utils.weight_norm.*remove_weight_norm"):
        dependency_groups(model, (torch.randn(2, 3, 4, 4),))
