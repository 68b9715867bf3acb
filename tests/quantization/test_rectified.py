"""What counts of the operands of a sum that a ReLU cuts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from adaptkit.quantization.calibrate import histograms
from adaptkit.quantization.rectified import rectified, rectified_operands
from adaptkit.quantization.simulate import captured_and_folded, described
from tests.quantization.nets import exported, quantize, run

_VALUES = st.floats(-100, 100, width=32)


@given(_VALUES, _VALUES)
def test_the_sum_behind_its_relu_stays_with_one_operand_or_both(first, second):
    a, b = torch.tensor([first]), torch.tensor([second])
    exact = torch.relu(a + b)
    assert torch.equal(torch.relu(rectified(a, b) + b), exact)
    assert torch.equal(torch.relu(rectified(a, b) + rectified(b, a)), exact)


@given(_VALUES, _VALUES)
def test_an_operand_is_only_raised_and_never_above_zero_or_itself(first, second):
    a, b = torch.tensor([first]), torch.tensor([second])
    raised = rectified(a, b)
    assert bool((raised >= a).all())
    assert bool((raised <= a.clamp(min=0)).all())


class Block(nn.Module):
    """A residual block whose branch reaches far below zero."""

    def __init__(self, end=F.relu, projected: bool = False, tapped: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.end, self.tapped = end, tapped
        self.stem, self.branch = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.side = nn.Conv2d(4, 4, 1) if projected else nn.Identity()
        nn.init.normal_(self.branch.weight)
        nn.init.constant_(self.branch.bias, -3.0)

    def forward(self, x: torch.Tensor):
        x = F.relu(self.stem(x))
        y = self.branch(x)
        total = self.end(y + self.side(x))
        return (total, y) if self.tapped else total


def seen(net: nn.Module, x: torch.Tensor, quantized: tuple[str, ...]):
    captured = captured_and_folded(net, described((x[:1],)))
    return histograms(captured, net, {name: name for name in quantized}, lambda: [(x[:4],), (x[4:],)])


@pytest.fixture
def x():
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_branch_is_counted_from_where_it_counts(x):
    net = Block()
    found = seen(net, x, ("relu", "conv2d_1", "relu_1"))
    short = F.relu(net.stem(x))
    branch = net.branch(short)
    assert found["conv2d_1"].low == pytest.approx(float(-short[branch < -short].max()))
    assert found["conv2d_1"].low > float(branch.min()) + 1
    assert found["conv2d_1"].counts.sum() == branch.numel()
    assert found["relu"].high == pytest.approx(float(short.max()))


@torch.no_grad()
def test_both_operands_of_a_projected_block_are(x):
    net = Block(projected=True)
    found = seen(net, x, ("conv2d_1", "conv2d_2"))
    short = F.relu(net.stem(x))
    branch, side = net.branch(short), net.side(short)
    for name, one, other in (("conv2d_1", branch, side), ("conv2d_2", side, branch)):
        expected = torch.maximum(one, -other.clamp(min=0))
        assert (found[name].low, found[name].high) == pytest.approx((float(expected.min()), float(expected.max())))


@pytest.mark.parametrize(
    "net",
    [Block(end=torch.tanh), Block(end=lambda v: v), Block(end=lambda v: F.hardtanh(v)), Block(tapped=True)],
    ids=["no cut", "nothing", "cut below zero", "read elsewhere"],
)
@torch.no_grad()
def test_where_no_relu_cuts_all_of_it_counts(net, x):
    found = seen(net, x, ("conv2d_1",))
    assert found["conv2d_1"].low == pytest.approx(float(net.branch(F.relu(net.stem(x))).min()))


@pytest.mark.parametrize(
    "end", [F.relu, F.relu6, lambda v: v.clamp(min=0), lambda v: v.clamp(0, 3)], ids=["relu", "relu6", "min", "both"]
)
def test_every_cut_at_zero_is_found(end, x):
    sums = rectified_operands(captured_and_folded(Block(end), described((x[:1],))).graph)
    assert [[operand.name for operand in operands] for operands in sums.values()] == [["conv2d_1"]]


@torch.no_grad()
def test_the_file_has_finer_steps_and_computes_the_block(x):
    net = Block()
    exact = net(x)
    quantized = quantize(net, x, bias_correction=False)
    step = quantized.plan.tensors["conv2d_1"].scale[0]
    branch = net.branch(F.relu(net.stem(x)))
    assert step < float(branch.max().clamp(min=0) - branch.min()) / 255 * 0.8
    given = torch.from_numpy(run(exported(quantized, x), x))
    assert float((given - exact).abs().max()) < 0.05 * float(exact.abs().max())
