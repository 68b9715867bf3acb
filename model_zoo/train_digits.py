"""Trains the weights that come with the zoo, on the digits; rewrites them and their lines in index.yaml.

    python -m adaptkit_zoo.train_digits

Only the train split is trained on; the accuracy is that of the test split, which the digits keep whatever the seed.
"""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from ruamel.yaml import YAML

from adaptkit.files import write_atomically
from adaptkit.loading.data import load_data
from adaptkit.metrics.task import accuracy
from adaptkit.specs import DataSpec
from adaptkit.training.fit import fit
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.index import builders

FOLDER = Path(__file__).parent
EPOCHS = 40
SETTINGS = {
    "lenet5_digits": FitSettings(optimizer="adamw", learning_rate=0.01, weight_decay=0.01, label_smoothing=0.1),
    "resnet_digits": FitSettings(learning_rate=0.1, weight_decay=1e-3, label_smoothing=0.1),
}


def main() -> None:
    """Train each model and record where its weights are and how good they are."""
    torch.set_num_threads(1)
    data = load_data(DataSpec(digits=True, validation=150, calibration=200, batch_size=64), seed=0)
    index = YAML()
    index.width = 400
    entries = index.load(FOLDER / "index.yaml")
    for name, settings in SETTINGS.items():
        torch.manual_seed(0)
        model = builders()[name]()
        fit(model, data.train, epochs=EPOCHS, settings=settings, seed=0)
        weights = safetensors.torch.save({key: value.contiguous() for key, value in model.state_dict().items()})
        write_atomically(FOLDER / f"{name}.safetensors", weights)
        entries[name].update(
            weights=f"{name}.safetensors",
            sha256=hashlib.sha256(weights).hexdigest(),
            accuracy=round(accuracy(model, data.test), 4),
            trained=f"train_digits.py, {EPOCHS} epochs on {data.train.num_samples} of the digits",
            licence="Apache-2.0",
        )
    with (FOLDER / "index.yaml").open("w", encoding="utf-8") as file:
        index.dump(entries, file)


if __name__ == "__main__":
    main()
