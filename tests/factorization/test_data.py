"""What is taken from calibration data: second moments of inputs, and which neurons matter."""

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import DataError
from adaptkit.factorization.layers import on_inputs
from adaptkit.factorization.moments import input_moments, whitening
from adaptkit.factorization.neurons import by_activation, by_loss, by_weight, least_important


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))


def data(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 4, 4, generator=generator), torch.arange(count) % 4


def test_moments_are_means_over_samples_and_pixels():
    model, (x, y) = net(), data()
    found = input_moments(model, ["0", "3"], (x, y), 3)
    pixels = [x[n, :, i, j].double() for n in range(3) for i in range(4) for j in range(4)]
    torch.testing.assert_close(found["0"].double(), sum(torch.outer(p, p) for p in pixels) / len(pixels))
    hidden = [row.double() for row in model[:3](x[:3]).detach()]
    torch.testing.assert_close(found["3"].double(), sum(torch.outer(h, h) for h in hidden) / 3)
    assert model.training
    assert not model[0]._forward_hooks


def test_moments_need_finite_samples():
    x, y = data()
    with pytest.raises(DataError, match="input of 0 is not finite"):
        input_moments(net(), ["0"], (x / 0, y), 3)
    with pytest.raises(DataError, match="calibration data is empty"):
        input_moments(net(), ["0"], [], 3)


def test_whitening_is_a_root_and_its_inverse():
    rows = torch.randn(50, 6)
    moment = rows.T @ rows / 50
    root, inverse = whitening(moment)
    torch.testing.assert_close(
        root @ root, moment + 1e-3 * moment.diagonal().mean() * torch.eye(6), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(root @ inverse, torch.eye(6), rtol=0, atol=1e-4)
    assert all(torch.isfinite(matrix).all() for matrix in whitening(torch.zeros(3, 3)))


def test_inputs_of_kernels_are_weighed():
    weight, matrix = torch.randn(4, 3, 2, 5), torch.randn(3, 3)
    np.testing.assert_allclose(on_inputs(weight, matrix), torch.einsum("oihw,ij->ojhw", weight, matrix), atol=1e-5)


def test_scores_by_weight_and_by_activation():
    model, (x, y) = net(), data()
    outputs, inputs = by_weight(model[0].weight.detach())
    for o in range(3):
        assert float(outputs[o]) == pytest.approx(float(model[0].weight[o].detach().abs().sum()))
    for i in range(2):
        assert float(inputs[i]) == pytest.approx(float(model[0].weight[:, i].detach().abs().sum()))
    found = by_activation(model, ["0", "3"], (x, y), 4)
    torch.testing.assert_close(found["0"][0], model[0](x[:4]).detach().abs().sum((0, 2, 3)))
    torch.testing.assert_close(found["0"][1], x[:4].abs().sum((0, 2, 3)))
    torch.testing.assert_close(found["3"][0], model(x[:4]).detach().abs().sum(0))
    assert model.training


def test_scores_by_loss_are_its_change_to_first_order():
    model, (x, y) = net().double(), data()
    batches = [(x[:3].double(), y[:3]), (x[3:].double(), y[3:])]
    outputs, inputs = by_loss(model, ["3"], batches, 5, nn.functional.cross_entropy)["3"]
    step = 1e-6
    for side, scores in (("out", outputs), ("in", inputs)):
        for i, score in enumerate(scores):
            changes = []
            for bx, by in batches:
                losses = []
                for factor in (1 + step, 1 - step):
                    weight = model[3].weight.detach().clone()
                    (weight[i] if side == "out" else weight[:, i]).mul_(factor)
                    hidden = model[:3](bx)
                    losses.append(nn.functional.cross_entropy(hidden @ weight.T + model[3].bias, by))
                changes.append(abs(float(losses[0].detach() - losses[1].detach())) / (2 * step))
            assert float(score) == pytest.approx(sum(changes), abs=1e-6)


def test_the_least_important_are_the_lowest():
    assert least_important(torch.tensor([3.0, 1.0, 1.0, 0.5, 2.0]), 0.5).tolist() == [False, True, False, True, False]
    assert not least_important(torch.ones(3), 0.3).any()
