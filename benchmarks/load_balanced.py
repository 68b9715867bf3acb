"""Load-balanced pruning of a character LSTM on the shared Shakespeare text.

Three networks of the same shape: trained densely; the same, pruned 10 × by `prune.load_balanced` while it trains on;
the same, trained on densely for as long, which says what the further training alone is worth. Perplexity is exp of the
mean cross entropy on the last twentieth of the text; settings were chosen on the twentieth before it. Nothing trains on
either.

Run: `ADAPTKIT_DATA=… python benchmarks/load_balanced.py [SEED …]`; the result goes to
benchmarks/results/load_balanced.json after every seed. A run that was killed goes on where it was: its checkpoints are
in a folder `load_balanced` among the temporary files.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
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
LENGTH, BATCH, HIDDEN = 64, 32, 512
DENSE_EPOCHS, PRUNING_EPOCHS = 5, 8
SPARSITY, ELEMENTS = 0.9, 32
SEEDS = (0, 1, 2)
DENSE_FIT = FitSettings(optimizer="adamw", learning_rate=2e-3, weight_decay=1e-3, gradient_clip=1.0)
PRUNING_FIT = FitSettings(optimizer="adamw", learning_rate=3e-3, weight_decay=1e-3, gradient_clip=1.0)
END = 0.5
"""Share of the pruning epochs after which the sparsity is reached; the rest is recovery."""

Windows = tuple[Tensor, Tensor]


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


@dataclass(frozen=True)
class Text:
    """The characters as numbers, in windows (x, y) where y is one character later."""

    train: Windows
    validation: Windows
    test: Windows
    characters: int


def read_text(path: Path) -> Text:
    """Split a text: its last twentieth is for the test, the one before for validation."""
    text = path.read_text(encoding="utf-8")
    known = {character: number for number, character in enumerate(sorted(set(text)))}
    numbers = torch.tensor([known[character] for character in text])
    first, second = len(numbers) * 18 // 20, len(numbers) * 19 // 20
    return Text(_windows(numbers[:first]), _windows(numbers[first:second]), _windows(numbers[second:]), len(known))


def _windows(numbers: Tensor) -> Windows:
    count = (len(numbers) - 1) // LENGTH
    return numbers[: count * LENGTH].view(count, LENGTH), numbers[1 : count * LENGTH + 1].view(count, LENGTH)


@torch.no_grad()
def perplexity(model: nn.Module, windows: Windows) -> float:
    """Return exp of the mean cross entropy."""
    model.eval()
    x, y = windows
    losses = [F.cross_entropy(model(a), b, reduction="sum") for a, b in zip(x.split(256), y.split(256), strict=True)]
    return math.exp(float(torch.stack(losses).sum()) / y.numel())


def measure(seed: int, text: Text) -> dict[str, Any]:
    """Train, prune and compare for one seed."""
    torch.manual_seed(seed)
    dense = CharLSTM(text.characters)

    def batches() -> Batches:
        return Batches(*text.train, batch_size=BATCH, shuffle=True, seed=seed)

    def workspace(name: str) -> Path:
        folder = Path(tempfile.gettempdir(), "load_balanced", f"{seed}-{name}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    fit(dense, batches(), epochs=DENSE_EPOCHS, settings=DENSE_FIT, seed=seed, workspace=workspace("dense"))
    longer, pruned = copy.deepcopy(dense), copy.deepcopy(dense)
    technique = LoadBalancedPruning(
        targets=("LSTM",), sparsity=SPARSITY, elements=ELEMENTS, epochs=PRUNING_EPOCHS, end=END, fit=PRUNING_FIT
    )
    context = Context(
        example_inputs=(text.train[0][:1],), train=batches(), seed=seed + 1, workspace=workspace("pruned")
    )
    technique.apply(pruned, context)
    fit(
        longer,
        batches(),
        epochs=PRUNING_EPOCHS,
        settings=PRUNING_FIT,
        seed=seed + 1,
        workspace=workspace("dense_trained_on"),
    )
    weights = find_weights(pruned, ("LSTM",)).values()
    networks = {"dense": dense, "dense_trained_on": longer, "pruned": pruned}
    return {
        "seed": seed,
        "perplexity": {name: perplexity(network, text.test) for name, network in networks.items()},
        "validation": {name: perplexity(network, text.validation) for name, network in networks.items()},
        "weights": sum(weight.numel() for weight in weights),
        "kept": sum(int((weight != 0).sum()) for weight in weights),
        "busiest_to_mean": max(busiest_to_mean(weight, ELEMENTS) for weight in weights),
    }


def main() -> None:
    """Measure every seed and write the result."""
    torch.set_num_threads(1)
    text = read_text(Path(os.environ["ADAPTKIT_DATA"], "data", "tinyshakespeare.txt"))
    result: dict[str, Any] = {
        "hidden": HIDDEN,
        "elements": ELEMENTS,
        "dense_epochs": DENSE_EPOCHS,
        "pruning_epochs": PRUNING_EPOCHS,
        "machine": machine(),
        "runs": [],
    }
    for seed in [int(given) for given in sys.argv[1:]] or SEEDS:
        started = time.process_time()
        run = measure(seed, text) | {"cpu_seconds": round(time.process_time() - started)}
        result["runs"].append(run)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(run))


if __name__ == "__main__":
    main()
