"""Corruptions do what they are called, and more of it at a higher severity."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.metrics.corruptions import CORRUPTIONS, corrupted_accuracy, gaussian_blur, gaussian_noise, jpeg


def images(size=16, channels=3, count=4):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [8, 16, 80])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_stay_pixels_and_the_damage_grows(name, size, channels):
    x = images(size, channels)
    before = x.clone()
    damaged = [CORRUPTIONS[name](x, severity, 0) for severity in range(1, 6)]
    assert torch.equal(x, before)
    assert all(each.shape == x.shape and each.dtype == x.dtype for each in damaged)
    assert all(each.min() >= 0 and each.max() <= 1 for each in damaged)
    harm = [(each - x).square().mean().item() for each in damaged]
    assert harm == sorted(harm)
    assert 0 < harm[0] < harm[4]
    assert torch.equal(CORRUPTIONS[name](x, 2, 0), damaged[1])


@pytest.mark.parametrize(("size", "deviation"), [(64, 0.08), (65, 0.18)])
def test_noise_has_the_deviation_of_its_severity(size, deviation):
    x = torch.full((4, 1, size, size), 0.5)
    assert (gaussian_noise(x, 3) - x).std().item() == pytest.approx(deviation, rel=0.05)
    assert not torch.equal(gaussian_noise(x, 3, seed=1), gaussian_noise(x, 3, seed=0))


def test_a_point_is_blurred_to_a_bell():
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    found = gaussian_blur(x, 5)[0, 0]  # deviation 1
    bell = np.array([math.exp(-(i**2) / 2) for i in range(-4, 5)])
    assert found[7, 3:12].numpy() == pytest.approx(bell / bell.sum() ** 2, abs=1e-5)


def test_jpeg_keeps_what_is_smooth():
    smooth = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()
    assert (jpeg(smooth, 1) - smooth).abs().max() < 0.06
    assert (jpeg(images(), 1) - images()).abs().max() > 0.1


class Sharp(nn.Module):
    """Says 1 where neighbours differ as they do in a checkerboard."""

    def forward(self, x):
        contrast = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.stack([torch.full_like(contrast, 0.7), contrast], dim=1)


def test_accuracy_is_counted_for_each():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    x = board.float().expand(6, 1, 8, 8).clone()
    found = corrupted_accuracy(Sharp(), x, torch.ones(6, dtype=torch.long), ("gaussian_noise", "gaussian_blur"))
    assert found.clean.value == 1
    assert [each.value for each in found.corrupted["gaussian_noise"]] == [1] * 5
    assert [each.value for each in found.corrupted["gaussian_blur"]] == [1, 0, 0, 0, 0]
    assert found.mean.value == pytest.approx(0.6)
    assert found.mean.method == "none: all resamples are alike"
    assert found.clean.low == pytest.approx(0.025 ** (1 / 6))


X, Y = images(), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: corrupted_accuracy(Sharp(), X, Y, ("fog",)),
            AdaptkitError,
            "gaussian_noise, gaussian_blur, jpeg; got fog",
        ),
        (lambda: corrupted_accuracy(Sharp(), X, Y, ()), AdaptkitError, "got none"),
        (
            lambda: corrupted_accuracy(Sharp(), 2 * X - 1, Y),
            DataError,
            "give them from 0 to 1 and put the normalization",
        ),
        (lambda: corrupted_accuracy(Sharp(), X * float("nan"), Y), DataError, "pixels are from nan"),
        (lambda: corrupted_accuracy(Sharp(), X[:0], Y[:0]), DataError, "give images"),
        (lambda: corrupted_accuracy(Sharp(), X, Y[:2]), DataError, "y: has 2 samples"),
        (lambda: corrupted_accuracy(Sharp(), X, Y + 2), DataError, "classes go from 0 to 1; sample 0 has 2"),
        (lambda: jpeg(X[:, :2], 1), DataError, "1 or 3 channels; the images have 2"),
        (lambda: jpeg(X, 6), AdaptkitError, "severity is a whole number from 1 to 5; got 6"),
        (lambda: gaussian_noise(X[0], 1), DataError, r"N × C × H × W .*\(3, 16, 16\)"),
        (lambda: gaussian_blur((255 * X).to(torch.uint8), 1), DataError, "floating point; got torch.uint8"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
