"""A selector of three networks on CIFAR-10 against always the large one.

    ADAPTKIT_DATA=… python benchmarks/selector.py WORK

Writes benchmarks/results/selector.json; the folder WORK keeps networks and answers, see cascade.py. Neighbours and
thresholds come from half of the test images (every second one), since the networks have seen the training images, and
accuracy, shares and latency from the other half. Latency as in cascade.py, with the time of the features.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, machine
from resnets import answers
from sklearn.metrics import roc_auc_score

from adaptkit.conditional.finished import Finished
from adaptkit.conditional.members import Run, all_opened, sample_seconds
from adaptkit.conditional.selector import ModelSelection, Selected
from adaptkit.conditional.selector_calibration import halves, learn, look, worth_having
from adaptkit.conditional.thresholds import NEVER, Answers, choose
from adaptkit.export.packaging import Packaging
from adaptkit.runtime import AdaptedModel

NAMES = ["resnet20", "resnet56_int8", "resnet56"]
SETTINGS = ModelSelection(models=[{"folder": name} for name in NAMES[:-1]], folds=5)


def main() -> None:
    """Measure the selector, and how much its features tell."""
    files, said = answers(Path(sys.argv[1]), NAMES)
    members = tuple(Finished(file) for file in files)
    known, held = said.part(np.arange(0, len(said.y), 2)), said.part(np.arange(1, len(said.y), 2))
    stored, tested = halves(known, 0)
    with all_opened(members) as models:
        seconds = sample_seconds([Run(model) for model in models], said.x)
    kept = worth_having(SETTINGS, stored, seconds)
    while True:
        premodel = learn(SETTINGS, stored, kept, 0)
        (looking,) = sample_seconds([look(premodel)], said.x)
        seen = Answers(premodel.votes(tested.x), tested.right[:, kept], tested.original, looking + seconds[kept])
        outcome = choose(seen, SETTINGS.max_accuracy_drop, SETTINGS.confidence, 0, "vote")
        taken = [n for n, limit in zip(kept, [*outcome.thresholds, 0], strict=True) if limit != NEVER]
        if taken == kept:
            break
        kept = taken
    made = Selected(premodel.proto, tuple(members[n] for n in kept), outcome.thresholds, 10, outcome)
    with tempfile.TemporaryDirectory() as folder, all_opened(members[-1:]) as alone:
        made.write(Path(folder), Packaging())
        model = AdaptedModel.load(folder, threads=1)
        logits = np.concatenate([model(held.x[i : i + 250]).logits for i in range(0, len(held.y), 250)])
        shares = {each.name: each.share for each in model.statistics}
        order = np.random.default_rng(0).permutation(len(held.y))
        spent = sample_seconds([Run(model), Run(alone[0])], held.x[order], samples=300)
    right = logits.argmax(1) == held.y
    votes = learn(SETTINGS, stored, [0, len(NAMES) - 1], 0).votes(held.x)[:, 0]
    document = {
        "models": [NAMES[number] for number in kept],
        "accuracy": float(right.mean()),
        "accuracy_each": dict(zip(NAMES, held.right.mean(axis=0).tolist(), strict=True)),
        "lost": int((held.original & ~right).sum()),
        "gained": int((right & ~held.original).sum()),
        "samples": len(held.y),
        "bound": outcome.bound,
        "shares": shares,
        "mean_ms": float(spent[0] * 1e3),
        "alone_ms": float(spent[1] * 1e3),
        "each_ms": dict(zip(NAMES, (1e3 * seconds).tolist(), strict=True)),
        "look_ms": float(1e3 * looking),
        "speedup": float(spent[1] / spent[0]),
        "features": premodel.features,
        "judged": [vars(judged) for judged in premodel.judged],
        "auc_smallest": float(roc_auc_score(held.right[:, 0], votes)),
        "max_accuracy_drop": SETTINGS.max_accuracy_drop,
        "machine": machine(),
    }
    print(json.dumps(document, indent=1))
    (RESULTS / "selector.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
