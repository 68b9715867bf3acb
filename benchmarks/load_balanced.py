"""Load-balanced pruning of a character LSTM on the shared Shakespeare text.

Three networks of the same shape: trained densely; the same, pruned 10 × by `prune.load_balanced` while it trains on;
the same, trained on densely for as long, which is what the pruned one competes with. Perplexity is exp of the mean
cross entropy on the last tenth of the text, which nothing trains on.

Run: `ADAPTKIT_DATA=… python benchmarks/load_balanced.py`; the result goes to benchmarks/results/load_balanced.json.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, machine
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.loading.batches import Batches
from adaptkit.pruning import LoadBalancedPruning
from adaptkit.pruning.load_balance import busiest_to_mean
from adaptkit.pruning.masks import find_weights
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings

RESULT = RESULTS / "load_balanced.json"
LENGTH, BATCH, HIDDEN = 64, 32, 256
DENSE_EPOCHS, PRUNING_EPOCHS = 4, 4
SPARSITY, ELEMENTS = 0.9, 32
SEEDS = (0, 1, 2)


class CharLSTM(nn.Module):
    """Predict the next character at every place: N × length numbers in, N × characters × length scores out."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 64)
        self.lstm = nn.LSTM(64, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Score every next character."""
        scores: Tensor = self.head(self.lstm(self.embed(x))[0]).transpose(1, 2)
        return scores


def read_text(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Give (x, y) of the first nine tenths and of the last tenth, and the number of characters."""
    text = path.read_text(encoding="utf-8")
    known = sorted(set(text))
    numbers = torch.tensor([known.index(character) for character in text])
    cut = len(numbers) * 9 // 10
    return _windows(numbers[:cut]), _windows(numbers[cut:]), len(known)


def _windows(numbers: Tensor) -> tuple[Tensor, Tensor]:
    count = (len(numbers) - 1) // LENGTH
    return numbers[: count * LENGTH].view(count, LENGTH), numbers[1 : count * LENGTH + 1].view(count, LENGTH)


@torch.no_grad()
def perplexity(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Return exp of the mean cross entropy."""
    model.eval()
    x, y = test
    losses = [F.cross_entropy(model(a), b, reduction="sum") for a, b in zip(x.split(256), y.split(256), strict=True)]
    return math.exp(float(torch.stack(losses).sum()) / y.numel())


def measure(seed: int) -> dict[str, Any]:
    """Train, prune and compare for one seed."""
    train, test, characters = read_text(Path(os.environ["ADAPTKIT_DATA"], "data", "tinyshakespeare.txt"))
    settings = FitSettings(optimizer="adamw", learning_rate=2e-3, weight_decay=1e-3, gradient_clip=1.0)
    torch.manual_seed(seed)
    dense = CharLSTM(characters)

    def batches() -> Batches:
        return Batches(*train, batch_size=BATCH, shuffle=True, seed=seed)

    fit(dense, batches(), epochs=DENSE_EPOCHS, settings=settings, seed=seed)
    longer, pruned = copy.deepcopy(dense), copy.deepcopy(dense)
    fit(longer, batches(), epochs=PRUNING_EPOCHS, settings=settings, seed=seed + 1)
    technique = LoadBalancedPruning(
        targets=("LSTM",), sparsity=SPARSITY, elements=ELEMENTS, epochs=PRUNING_EPOCHS, fit=settings
    )
    technique.apply(pruned, Context(example_inputs=(train[0][:1],), train=batches(), seed=seed + 1))
    weights = find_weights(pruned, ("LSTM",)).values()
    return {
        "seed": seed,
        "perplexity": {
            "dense": perplexity(dense, test),
            "dense_trained_on": perplexity(longer, test),
            "pruned": perplexity(pruned, test),
        },
        "weights": sum(weight.numel() for weight in weights),
        "kept": sum(int((weight != 0).sum()) for weight in weights),
        "busiest_to_mean": max(busiest_to_mean(weight, ELEMENTS) for weight in weights),
    }


def main() -> None:
    """Measure every seed and write the result."""
    started = time.monotonic()
    runs = [measure(seed) for seed in ([int(text) for text in sys.argv[1:]] or SEEDS)]
    result = {"runs": runs, "seconds": round(time.monotonic() - started), "machine": machine()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for run in runs:
        print(json.dumps(run))


if __name__ == "__main__":
    main()
