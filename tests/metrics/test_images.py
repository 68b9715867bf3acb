"""SSIM and PSNR against loops over pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.errors import AdaptkitError
from adaptkit.metrics.images import odd_window, psnr, ssim


def slow_ssim(x, y, data_range, window):
    """Wang et al. 2004, window by window, moments about the mean."""
    half = window // 2
    weight = np.array(
        [[math.exp(-((i - half) ** 2 + (j - half) ** 2) / 4.5) for j in range(window)] for i in range(window)]
    )
    weight /= weight.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for channel_x, channel_y in zip(x, y, strict=True):
        for top in range(x.shape[1] - window + 1):
            for left in range(x.shape[2] - window + 1):
                a = channel_x[top : top + window, left : left + window]
                b = channel_y[top : top + window, left : left + window]
                mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
                variance_a = (weight * (a - mean_a) ** 2).sum()
                variance_b = (weight * (b - mean_b) ** 2).sum()
                covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
                likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
                values.append(likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
    return np.mean(values)


@pytest.mark.parametrize(
    ("shape", "window", "data_range"), [((1, 8, 8), 7, 1), ((3, 13, 15), 11, 255), ((2, 6, 9), 3, 2)]
)
def test_ssim_is_the_formula(shape, window, data_range):
    rng = np.random.default_rng(0)
    x = data_range * rng.random((2, *shape))
    y = np.clip(x + 0.2 * data_range * rng.normal(size=x.shape), 0, data_range)
    wanted = [slow_ssim(a, b, data_range, window) for a, b in zip(x, y, strict=True)]
    assert ssim(x, y, data_range, window).tolist() == pytest.approx(wanted)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 300))
def test_ranges_and_what_changes_nothing(seed, scale):
    x, y = torch.rand(2, 2, 3, 12, 12, generator=torch.Generator().manual_seed(seed)).double()
    likeness, decibels = ssim(x, y), psnr(x, y)
    assert ((likeness > -1) & (likeness < 1)).all()
    assert ssim(y, x).tolist() == pytest.approx(likeness.tolist())
    assert ssim(scale * x, scale * y, scale).tolist() == pytest.approx(likeness.tolist())
    assert psnr(scale * x, scale * y, scale).tolist() == pytest.approx(decibels.tolist())
    assert ssim(x, x).tolist() == pytest.approx([1, 1])


def test_psnr_is_the_formula():
    x = torch.zeros(2, 1, 4, 4)
    y = x.clone()
    y[0, 0, 0, 0] = 0.5
    assert psnr(x, y).tolist() == [pytest.approx(10 * math.log10(1 / (0.25 / 16))), math.inf]
    assert psnr(255 * x, 255 * y, 255)[0].item() == pytest.approx(psnr(x, y)[0].item())


def test_windows_that_fit():
    assert [odd_window(side) for side in (3, 4, 8, 9, 11, 12, 32)] == [3, 3, 7, 9, 11, 11, 11]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ssim(x, x), "a window of 11 does not fit images of 8 pixels; give window=7"),
        (lambda x: ssim(x, x, window=4), "window is odd and at least 3, such as 11; got 4"),
        (lambda x: ssim(x, x[:1], window=7), r"one shape; got \(2, 1, 8, 8\) and \(1, 1, 8, 8\)"),
        (lambda x: psnr(x[0], x[0]), r"images N × C × H × W .* got \(1, 8, 8\)"),
        (lambda x: psnr(x, x, 0), "data_range is above 0"),
        (lambda x: psnr(x, x * float("nan")), "references: 2 of 2 samples hold NaN"),
        (lambda x: psnr(x[:0], x[:0]), "images: 0 samples are too few"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(AdaptkitError, match=message):
        call(torch.ones(2, 1, 8, 8))
