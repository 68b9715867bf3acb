"""The decoder learns what can be learnt, on samples that it is not scored on."""

import pytest
import torch
from torch import nn

from adaptkit.errors import DataError
from adaptkit.metrics.images import psnr, ssim
from adaptkit.metrics.inversion import Decoder, inversion_attack


def blobs(count, channels=1, size=8, seed=0):
    """Smooth images: rebuilt from few numbers, but not from their mean."""
    coarse = torch.rand(count, channels, 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size, mode="bilinear")


def test_images_that_are_sent_are_rebuilt_and_noise_is_not():
    x = blobs(300)
    sent = inversion_attack(x[:200], x[:200], x[200:], x[200:], epochs=30)
    noise = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    nothing = inversion_attack(noise[:200], x[:200], noise[200:], x[200:], epochs=30)
    assert sent.psnr.low > sent.blind_psnr.high + 8
    assert sent.ssim.low > 0.9
    assert nothing.psnr.value < nothing.blind_psnr.high
    assert nothing.blind_psnr == sent.blind_psnr


def test_what_is_known_by_heart_does_not_count():
    """Noise tells the attacker's images apart, and nothing about the others."""
    x = blobs(60)
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    found = inversion_attack(noise[:30], x[:30], noise[30:], x[30:], epochs=100)
    assert found.psnr.value < found.blind_psnr.value + 1


def test_the_blind_scores_are_those_of_the_mean_image():
    x = blobs(60)
    found = inversion_attack(x[:30], x[:30], x[30:], x[30:], epochs=1)
    mean = x[:30].mean(0).expand(30, -1, -1, -1)
    assert found.blind_psnr.value == pytest.approx(psnr(mean, x[30:]).mean().item(), rel=1e-6)
    assert found.blind_ssim.value == pytest.approx(ssim(mean, x[30:], window=7).mean().item(), rel=1e-4)


def test_the_same_seed_gives_the_same_figures():
    x = blobs(60)
    first, again, other = (inversion_attack(x[:30], x[:30], x[30:], x[30:], epochs=2, seed=s) for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    "shape", [(5, 8, 8), (5, 4, 4), (5, 16, 16), (5, 3, 3), (5, 1, 1), (7,), (3, 5), (16, 2, 2)], ids=str
)
@pytest.mark.parametrize("image", [(1, 8, 8), (3, 9, 7)], ids=str)
def test_activations_of_any_shape_become_images(shape, image):
    decoder = Decoder(torch.randn(6, *shape), torch.Size(image))
    found = decoder(torch.randn(4, *shape))
    assert found.shape == (4, *image)
    assert ((found >= 0) & (found <= 1)).all()


def test_scales_of_activations_do_not_matter():
    x = blobs(60)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Decoder(x, x.shape[1:])
        torch.manual_seed(0)
        scaled = Decoder(1000 * x + 5, x.shape[1:])
    assert torch.allclose(plain(x), scaled(1000 * x + 5), atol=1e-4)


X, BIG = torch.rand(20, 1, 8, 8), torch.full((20, 1, 8, 8), 1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:19], X[:19], X, X), "known_images: 19 samples are too few, give at least 20"),
        ((X, X, X, BIG), r"images: pixels are from 1\.5 to 1\.5; give them from 0 to 1"),
        ((X, X - 1, X, X), "known_images: pixels are from -"),
        ((X, X, X[:, :, :4], X), r"activations: the attacker's and the others have shapes \(20, 1, 8, 8\) and"),
        ((X, X, X, X[:, :, :4]), "images: the attacker's and the others have shapes"),
        ((X[:, 0, 0, 0], X, X[:, 0, 0, 0], X), r"activations: .*\(20,\)"),
        ((torch.cat([X, X]), X, X, X), "known_activations: has 40 samples, what belongs to them has 20"),
        ((X, X, torch.cat([X, X]), X), "activations: has 40 samples"),
        ((X, X[:, 0], X, X[:, 0]), r"known_images: give images N × C × H × W .*\(20, 8, 8\)"),
        ((X, X[:, :, :2], X, X), "at least 3 × 3 pixels"),
        ((X * float("nan"), X, X, X), "known_activations: 20 of 20 samples hold NaN"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(DataError, match=message):
        inversion_attack(*arguments)
