import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adaptkit.errors import ModelError
from adaptkit.metrics.task import accuracy, evaluate, first_output


class Mixed(nn.Module):
    """Scores in eval mode, a tuple of wrong ones in training; one part stays in eval mode for good."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(3)
        self.train()
        self.frozen.eval()

    def forward(self, x):
        assert torch.is_inference_mode_enabled()
        return (-x, x) if self.training else (x, None)


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(50) % 3


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_accuracy_does_not_depend_on_batches_and_modes_come_back(batch_size):
    x, y = scores()
    model = Mixed()
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size)
    expected = sum(int(row.argmax()) == int(label) for row, label in zip(x, y, strict=True)) / 50
    assert accuracy(model, loader) == evaluate(model, (x, y)) == expected
    assert model.training
    assert not model.frozen.training


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Linear(9, 2)).train()
    with pytest.raises(RuntimeError):
        accuracy(model, scores())
    assert model.training


def test_a_metric_of_the_users_own_is_a_mean_over_samples():
    x, y = scores()

    def mean_error(output, target):
        return (output[:, 0] - target).abs().mean()

    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    assert evaluate(nn.Identity(), loader, mean_error) == pytest.approx(float(mean_error(x, y)), rel=1e-6)


def test_outputs_that_are_none():
    assert first_output([torch.ones(1), None]).item() == 1
    with pytest.raises(ModelError, match="this one gives dict"):
        first_output({"out": torch.ones(1)})
    with pytest.raises(ModelError, match="this one gives tuple"):
        first_output(())
