"""The attacks on small networks that are trained on scikit-learn's digits."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from adaptkit.metrics.adversary import Attack
from adaptkit.metrics.corruptions import corrupted_accuracy
from adaptkit.metrics.inversion import inversion_attack
from adaptkit.metrics.membership import lira_attack, tpr_at_fpr
from adaptkit.metrics.privacy import distance_correlation, smashed_mutual_information
from adaptkit.metrics.robustness import kl_robustness_upper_bound, robust_accuracy_upper_bound
from adaptkit.metrics.running import activations_at
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings


def digits():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x).float().reshape(-1, 1, 8, 8)[order] / 16, torch.tensor(y)[order]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    x, y = digits()
    fit(model, (x[:800], y[:800]), epochs=20)
    return model


@pytest.mark.slow
def test_an_early_cut_gives_more_away_than_a_late_one(network):
    x, _ = digits()
    known, unknown = x[800:1400], x[1400:]
    found = {}
    for layer in ("1", "6"):
        sent, others = activations_at(network, layer, known), activations_at(network, layer, unknown)
        found[layer] = inversion_attack(sent, known, others, unknown, epochs=12)
    early, late = found["1"], found["6"]
    assert early.psnr.low > late.psnr.high + 3
    assert early.ssim.low > late.ssim.high
    assert late.psnr.low > late.blind_psnr.high


def test_figures_of_dependence_agree(network):
    x, _ = digits()
    sent = [activations_at(network, layer, x[800:1300]) for layer in ("1", "6")]
    early, late = (distance_correlation(x[800:1300], z) for z in sent)
    assert early.low > late.high
    early, late = (smashed_mutual_information(x[800:1300], z) for z in sent)
    assert early.value > late.value > 0.3


def test_an_adversary_costs_more_than_noise_of_the_same_size(network):
    x, y = digits()
    x, y = x[1400:], y[1400:]
    found = robust_accuracy_upper_bound(network, x, y, Attack(0.1, steps=10, restarts=1))
    noisy = corrupted_accuracy(network, x, y, ("gaussian_noise",)).corrupted["gaussian_noise"][4]
    assert found.clean.low > 0.9
    assert found.robust.high < noisy.low
    weak, strong = (kl_robustness_upper_bound(network, x[:100], Attack(radius, steps=5)) for radius in (0.02, 0.1))
    assert weak.low > strong.high


@pytest.mark.slow
def test_an_overfitted_model_betrays_more_of_its_samples_than_a_regularized_one():
    x, y = digits()
    x = x.flatten(1)
    wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(1)) < 0.3
    y = torch.where(wrong, (y + 1) % 10, y)  # what can only be known by heart
    members, others = (x[:300], y[:300]), (x[300:], y[300:])

    def leak(epochs, weight_decay):
        def train(x, y, seed):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
            fit(model, (x, y), epochs=epochs, settings=settings, seed=seed)
            return model

        settings = FitSettings(learning_rate=0.2, weight_decay=weight_decay)
        inside, outside = lira_attack(train(*members, 5), train, members, others, shadows=8)
        return [tpr_at_fpr(inside, outside, fpr) for fpr in (0.01, 0.1)]

    overfitted, regularized = leak(60, 0.0), leak(20, 0.1)
    assert overfitted[1].low > regularized[1].high
    assert overfitted[0].value > 2 * regularized[0].value
    assert overfitted[0].low > 0.01
