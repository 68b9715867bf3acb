import math
import warnings

import pytest
import torch

from adaptkit.training.schedule import rate_factor


def torchs_own(total: int, make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


@pytest.mark.parametrize("total", [4, 7, 10, 100, 391])
def test_one_cycle_is_torchs(total):
    rates = torchs_own(
        total, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=total + 1, cycle_momentum=False)
    )
    # torch spreads the cycle over the steps it is told of, of which the last one is not taken here.
    ours = [rate_factor("one_cycle", step, total + 1) for step in range(total)]
    assert ours == pytest.approx(rates, abs=1e-9)


@pytest.mark.parametrize("total", [1, 2, 5, 50])
def test_cosine_is_torchs(total):
    rates = torchs_own(total, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total))
    assert [rate_factor("cosine", step, total) for step in range(total)] == pytest.approx(rates, abs=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 9])
def test_short_fits_have_rates_that_train(schedule, total):
    rates = [rate_factor(schedule, step, total) for step in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) > 0.4
    assert all(math.isfinite(rate) for rate in rates)


def test_constant_is_constant():
    assert {rate_factor("constant", step, 9) for step in range(9)} == {1.0}
