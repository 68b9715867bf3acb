"""How much of what static quantization loses is the luck of its calibration images.

    ADAPTKIT_DATA=… python benchmarks/quantization_draws.py resnet20 resnet56 [--draws 5]

Writes benchmarks/results/quantization_draws.json. Each draw is another 512 training images, the same for everybody; the
file of every quantizer is run on all test images. What one draw gains or loses beside another is a choice on no images
at all, so the mean over draws is the figure.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from machine import RESULTS, machine
from peer_onnxruntime import by_onnx_runtime
from quantization import MODELS, by_adaptkit, choices, images, quality
from safetensors.torch import load_file

from adaptkit.export.onnx import to_onnx

SAMPLES = 512


def measure(name: str, folder: Path, train: np.ndarray, test: tuple[np.ndarray, np.ndarray], draws: int) -> dict:
    """Quantize one network with every draw in every way."""

    def fresh() -> torch.nn.Module:
        build, weights = MODELS[name]
        model = build().eval()
        model.load_state_dict(load_file(folder / "weights" / f"{weights}.safetensors"))
        return model

    plain = to_onnx(fresh(), (torch.from_numpy(train[:1]),))
    exact = choices(plain, test[0])
    ways: dict[str, Callable[[np.ndarray], onnx.ModelProto]] = {
        "onnxruntime 8 bits": lambda x: by_onnx_runtime(plain, x, "MinMax"),
        "adaptkit auto": lambda x: by_adaptkit(fresh(), x),
        "adaptkit auto, learned rounding": lambda x: by_adaptkit(fresh(), x, rounding="learned"),
    }
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for draw in range(draws):
        x = train[draw * SAMPLES : (draw + 1) * SAMPLES]
        for way, quantize in ways.items():
            found[way].append(quality(choices(quantize(x), test[0]), exact, test[1]))
            print(name, draw, way, found[way][-1], flush=True)
    return {"accuracy_float": float((exact == test[1]).mean()), "ways": found, "machine": machine()}


def main() -> None:
    """Measure the networks named on the command line; results of others stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["resnet20", "resnet56"])
    parser.add_argument("--draws", type=int, default=5)
    chosen = parser.parse_args()
    folder = Path(os.environ["ADAPTKIT_DATA"])
    archive = folder / "data" / "cifar10-jpeg.zip"
    train, test = images(archive, "train", SAMPLES * chosen.draws)[0], images(archive, "test")
    path = RESULTS / "quantization_draws.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in chosen.models:
        results[name] = measure(name, folder, train, test, chosen.draws)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
