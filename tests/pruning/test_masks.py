import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.loading.packed import pack, unpack
from adaptkit.loading.saved import WEIGHTS, load, save
from adaptkit.pruning import StructuredPruning
from adaptkit.pruning.masks import (
    apply_masks,
    find_weights,
    highest,
    lost_zeros,
    magnitude_masks,
    mark,
    marked,
    n_m_mask,
    zeros,
)
from adaptkit.pruning.schedules import cubic_sparsity, is_update
from adaptkit.surgery import describe, rebuild
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings

NUMBERS = st.floats(-4, 4, width=16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=8), min_size=1, max_size=4), st.floats(0, 1))
def test_highest_is_a_stable_sort(values, share):
    tensors = [torch.tensor(one) for one in values]
    flat = np.concatenate(values)
    kept = round(share * len(flat))
    wanted = np.zeros(len(flat), dtype=bool)
    wanted[np.argsort(-flat, kind="stable")[:kept]] = True
    assert torch.cat(highest(tensors, kept)).tolist() == wanted.tolist()


def test_highest_tells_signs_zeros_and_extremes_apart():
    scores = torch.tensor([0.0, -0.0, -1e-38, 1e-38, -torch.inf, torch.inf, -5.0])
    assert highest([scores], 1)[0].nonzero().flatten().tolist() == [5]
    assert highest([scores], 3)[0].nonzero().flatten().tolist() == [0, 3, 5]
    assert highest([scores], 6)[0].nonzero().flatten().tolist() == [0, 1, 2, 3, 5, 6]
    assert highest([scores], 0)[0].sum() == 0
    assert highest([scores], 7)[0].all()


def _lamp_by_hand(weight: torch.Tensor) -> torch.Tensor:
    squares = weight.double().flatten().square()
    order = squares.argsort(stable=True, descending=True)
    scores = torch.zeros_like(squares)
    for place, index in enumerate(order):
        scores[index] = squares[index] / sum(squares[other] for other in order[: place + 1])
    return scores


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.93])
def test_rankings_against_sorting_by_hand(sparsity):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 7, generator=generator), 10 * torch.randn(4, 3, 3, 3, generator=generator)]
    total = sum(weight.numel() for weight in weights)
    for weight, mask in zip(weights, magnitude_masks(weights, sparsity, "per_layer"), strict=True):
        cut = weight.abs().flatten().sort().values[: round(sparsity * weight.numel())]
        assert torch.equal(mask, weight.abs() > cut[-1])
    for ranking, scores in (
        ("global", torch.cat([weight.abs().flatten() for weight in weights])),
        ("lamp", torch.cat([_lamp_by_hand(weight) for weight in weights])),
    ):
        kept = total - round(sparsity * total)
        if ranking == "global":  # the largest weight of the small layer stays in any case
            scores[weights[0].abs().argmax()] = 1e9
        wanted = torch.zeros(total, dtype=torch.bool)
        wanted[scores.argsort(descending=True, stable=True)[:kept]] = True
        found = torch.cat([mask.flatten() for mask in magnitude_masks(weights, sparsity, ranking)])
        assert torch.equal(found, wanted), ranking


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 8), (1, 4)])
@pytest.mark.parametrize("shape", [(3, 8), (2, 16, 3, 3), (4, 8, 1)])
def test_n_of_m_by_a_slow_loop(n, m, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[0] = 1.0  # ties: the first stay
    mask = n_m_mask(weight, n, m)
    flat, found = weight.flatten(2) if weight.dim() > 2 else weight[..., None], mask.reshape(shape[0], shape[1], -1)
    for out in range(shape[0]):
        for place in range(flat.shape[2]):
            for start in range(0, shape[1], m):
                group = flat[out, start : start + m, place].abs()
                stays = sorted(range(m), key=lambda i, group=group: (-group[i], i))[:n]
                assert found[out, start : start + m, place].nonzero().flatten().tolist() == sorted(stays)


def test_weights_are_found_by_layer_pattern_or_module_around_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 2, 2))
            self.attention = nn.MultiheadAttention(4, 2)
            self.memory = nn.GRU(4, 3)
            self.head = nn.Linear(3, 2)
            self.tied = nn.Linear(3, 2)
            self.tied.weight = self.head.weight

    net = Net()
    everything = ["body.0.weight", "body.2.weight", "attention.in_proj_weight", "attention.out_proj.weight",
                  "memory.weight_ih_l0", "memory.weight_hh_l0", "head.weight"]  # fmt: skip
    assert list(find_weights(net, ["*"])) == everything
    assert list(find_weights(net, ["body", "Linear"])) == ["body.0.weight", "body.2.weight", "head.weight"]
    assert list(find_weights(net, ["*"], ["body", "GRU", "attention"])) == ["head.weight"]
    mark(net, ["head.weight"])
    assert list(marked(net)) == ["head.weight", "tied.weight"]


def test_marks_travel_in_the_structure_and_add_no_state():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))

    net = build()
    apply_masks(net, {"0.weight": torch.zeros(4, 1, 3, 3, dtype=torch.bool)})
    assert net.state_dict().keys() == build().state_dict().keys()
    assert not net[0].weight.any()
    again = rebuild(build(), describe(net, build()))
    assert list(marked(again)) == ["0.weight"]
    assert list(marked(copy.deepcopy(net))) == ["0.weight"]


def _toy(seed: int = 0):
    x = torch.randn(128, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def _sparse_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    masks = magnitude_masks([net[0].weight, net[3].weight], 0.75, "per_layer")
    apply_masks(net, dict(zip(("0.weight", "3.weight"), masks, strict=True)))
    return net


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "adamw", "learning_rate": 0.01}, {"ema": 0.5}, {"gradient_clip": 0.1}]
)
def test_training_leaves_zeros_at_zero_and_moves_the_rest(changes):
    net = _sparse_net()
    before, weight = zeros(net), net[0].weight.detach().clone()
    fit(net, _toy(), epochs=6, settings=FitSettings(**changes))
    after = zeros(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(net[0].weight, weight)


def test_without_a_mark_zeros_move():
    net = _sparse_net()
    before = zeros(net)
    for module in (net[0], net[3]):
        del module.sparse_parameters
    fit(net, _toy(), epochs=1)
    mark(net, ["0.weight", "3.weight"])
    first, second = lost_zeros(before, net)
    assert first.endswith(" of 72 zeros of 0.weight were lost")
    assert second.endswith(" of 24 zeros of 3.weight were lost")


def test_lost_zeros_names_what_was_cut_or_replaced():
    net = _sparse_net()
    before = zeros(net)
    assert lost_zeros(before, net) == []
    net[0] = nn.Identity()
    net[3].weight = nn.Parameter(torch.ones(2, 8))
    assert lost_zeros(before, net) == [
        "the 72 zeros of 0.weight went with it",
        "3.weight was cut from (2, 16) to (2, 8) and has no zero left",
    ]


def test_a_structured_cut_keeps_the_zeros_of_what_stays():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
    masks = magnitude_masks([net[0].weight, net[2].weight], 0.9, "per_layer")
    apply_masks(net, dict(zip(("0.weight", "2.weight"), masks, strict=True)))
    before = zeros(net)
    StructuredPruning(macs=0.5).apply(net, Context(example_inputs=(torch.zeros(1, 3, 8, 8),)))
    assert net[0].out_channels == 16
    assert lost_zeros(before, net) == []
    assert list(marked(net)) == ["0.weight", "2.weight"]
    left = zeros(net)
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8) % 2
    head = nn.Sequential(net, nn.Flatten(), nn.Linear(128, 2))
    fit(head, (x, y), epochs=2)
    assert all(torch.equal(left[name], zeros(net)[name]) for name in left)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=3), st.floats(0, 1), st.sampled_from([torch.float32, torch.float16]))
def test_packing_there_and_back(shape, density, dtype):
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.rand(shape, generator=generator) + 0.1) * (torch.rand(shape, generator=generator) < density)
    state = {"weight": tensor.to(dtype), "bias": torch.zeros(2)}
    packed = pack(state, ["weight"])
    assert sum(t.nbytes for t in packed.values()) <= sum(t.nbytes for t in state.values())
    back = unpack(packed, {name: value.shape for name, value in state.items()})
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_a_saved_sparse_model_is_smaller_and_the_same(tmp_path):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    net = build()
    apply_masks(net, {"0.weight": magnitude_masks([net[0].weight], 0.9, "per_layer")[0]})
    save(net, build(), tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 0.5 * 4 * sum(p.numel() for p in net.parameters())
    again = load(build, tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())
    assert list(marked(again)) == ["0.weight"]
    with pytest.raises(ModelError, match=r"0\.weight does not fit the model"):
        load(lambda: nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), tmp_path)


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 60))
def test_updates_are_as_many_as_asked_and_end_at_the_end(begin, length, updates):
    end = begin + length
    steps = [step for step in range(1, end + 30) if is_update(step, begin, end, updates)]
    assert len(steps) == min(updates, length)
    assert steps[-1] == end
    assert steps[0] > begin


def test_the_cubic_schedule_rises_from_first_to_last():
    values = [cubic_sparsity(step, 5, 25, 0.2, 0.9) for step in range(40)]
    assert values[:6] == pytest.approx([0.2] * 6)
    assert values[25:] == [0.9] * 15
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert values[15] == pytest.approx(0.9 - 0.7 / 8)
