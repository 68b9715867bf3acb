import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adaptkit.errors import DataError, TargetError
from adaptkit.pruning import LoadBalancedPruning
from adaptkit.pruning.load_balance import busiest_to_mean, load_balanced_mask
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings


def slow_mask(weight: torch.Tensor, kept: int, elements: int) -> torch.Tensor:
    """Sort every element's entries by hand."""
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for element in range(elements):
        places = [(row, col) for row in range(element, len(weight), elements) for col in range(weight.shape[1])]
        places.sort(key=lambda place: -abs(float(weight[place])))
        for place in places[:kept]:
            mask[place] = True
    return mask


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 6),
    elements=st.integers(1, 12),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_every_element_keeps_its_largest_and_as_many(rows, columns, elements, sparsity, seed):
    elements = min(elements, rows)
    weight = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed)).reshape(rows, columns) - 5.1
    mask = load_balanced_mask(weight, sparsity, elements)
    kept = (rows * columns - round(rows * columns * sparsity)) // elements
    assert torch.equal(mask, slow_mask(weight, kept, elements))
    loads = {int(mask[element::elements].sum()) for element in range(elements)}
    if rows % elements == 0:
        assert loads == {kept}
        assert busiest_to_mean(mask.float(), elements) == 1


def test_the_load_of_the_busiest():
    weight = torch.zeros(4, 3)
    assert busiest_to_mean(weight, 2) == 1
    weight[0] = 1
    assert busiest_to_mean(weight, 2) == 2
    assert busiest_to_mean(weight, 1) == 1


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(200, 5, 3, generator=torch.Generator().manual_seed(1))
    return x, (x[:, :, 0].sum(1) > 0).long()


def test_an_lstm_ends_balanced_and_still_learns():
    notes: list[str] = []
    context = Context(example_inputs=(torch.zeros(1, 5, 3),), train=sequences(), notes=notes)
    technique = LoadBalancedPruning(
        sparsity=0.75, elements=4, epochs=60, targets=("LSTM",), fit=FitSettings(learning_rate=0.2)
    )
    assert technique.check(Recurrent()) == []
    net = technique.apply(Recurrent(), context)
    for weight, kept in ((net.lstm.weight_ih_l0, 6), (net.lstm.weight_hh_l0, 16)):
        assert [int((weight[element::4] != 0).sum()) for element in range(4)] == [kept] * 4
    assert int((net.head.weight == 0).sum()) == 0
    x, y = sequences()
    assert float((net(x).argmax(1) == y).float().mean()) > 0.9
    assert notes[-1] == "load of the busiest of 4 processing elements to the mean: 1.000"


def test_what_cannot_be_is_said():
    context = Context(example_inputs=(torch.zeros(1, 5, 3),), train=sequences())
    technique = LoadBalancedPruning(elements=4)
    message = "head.weight has 2 rows for 4 elements: lower elements, or add it to ignore"
    assert technique.check(Recurrent()) == [message]
    with pytest.raises(TargetError, match=message):
        technique.apply(Recurrent(), context)
    with pytest.raises(DataError, match=r"prune\.load_balanced needs training data"):
        LoadBalancedPruning(elements=2).apply(Recurrent(), context.replace(train=None))
    with pytest.raises(ValueError, match="elements"):
        LoadBalancedPruning(elements=0)
    with pytest.raises(ValueError, match="begin must be before end"):
        LoadBalancedPruning(begin=0.9)
