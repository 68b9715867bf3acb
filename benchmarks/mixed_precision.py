"""Mixed precision of the CIFAR ResNets: bytes of weights, accuracy of the file, agreement with what was trained.

    ADAPTKIT_DATA=… python benchmarks/mixed_precision.py resnet20 resnet56 [--epochs 3]

Writes benchmarks/results/mixed_precision.json. Training: the training images without 5000 of validation and 512 of
calibration; accuracy: the whole test split, on ONNX Runtime. Bytes of weights: packed integers with their scales.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from machine import RESULTS, machine
from onnx import numpy_helper
from quantization import session
from safetensors.torch import load_file

from adaptkit.export.onnx import final_onnx
from adaptkit.loading.data import Data, load_data
from adaptkit.quantization import MixedPrecision
from adaptkit.specs import DataSpec
from adaptkit.technique import Context
from adaptkit_zoo.cifar_resnet import resnet20_cifar, resnet56_cifar

MODELS = {"resnet20": resnet20_cifar, "resnet56": resnet56_cifar}


def predictions(run: object, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Class of every test image by a function from images to scores, and the truth."""
    classes, truth = [], []
    for x, y in data.test.with_batch_size(500):
        classes.append(np.asarray(run(x)).argmax(1))
        truth.append(y.numpy())
    return np.concatenate(classes), np.concatenate(truth)


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Count packed weights and their scales."""
    tensors = [t for t in proto.graph.initializer if t.name.endswith(("_packed", ".weight_scale", ".weight_quantized"))]
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in tensors)


def measure(name: str, data: Data, weights: Path, epochs: float, share: float) -> dict[str, object]:
    """Train one model and measure its file."""
    model = MODELS[name]().eval()
    model.load_state_dict(load_file(weights))
    float_bytes = sum(4 * p.numel() for p in model.parameters() if p.dim() > 1)
    with torch.no_grad():
        before, truth = predictions(model, data)
    notes: list[str] = []
    context = Context(
        example_inputs=(torch.zeros(1, *data.sample_shape),),
        train=data.train,
        calibration=data.calibration,
        notes=notes,
    )
    started = time.monotonic()
    technique = MixedPrecision(epochs=epochs, share=share)
    quantized = technique.apply(model, context)
    seconds = time.monotonic() - started
    proto = final_onnx(quantized, context.example_inputs)
    opened = session(proto)
    after, _ = predictions(lambda x: opened.run(None, {"input": x.numpy()})[0], data)
    with torch.no_grad():
        simulated, _ = predictions(quantized, data)
    return {
        "accuracy_float": float((before == truth).mean()),
        "accuracy": float((after == truth).mean()),
        "agreement": float((after == simulated).mean()),
        "weight_ratio": float_bytes / weight_bytes(proto),
        "file_bytes": proto.ByteSize(),
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "notes": notes,
        "machine": machine(),
    }


def main() -> None:
    """Measure the named models; results of others stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--share", type=float, default=1 / 14.05)
    chosen = parser.parse_args()
    folder = Path(os.environ["ADAPTKIT_DATA"])
    spec = DataSpec(
        imagefolder=str(folder / "data" / "cifar10-jpeg.zip"),
        normalize="imagenet",
        augment=("pad_crop", "flip"),
        validation=5000,
    )
    data = load_data(spec, seed=0)
    path = RESULTS / "mixed_precision.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in chosen.models:
        weights = folder / "weights" / f"{name}-cifar10-jpeg.safetensors"
        results[name] = measure(name, data, weights, chosen.epochs, chosen.share)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, {key: value for key, value in results[name].items() if key not in ("notes", "machine")})


if __name__ == "__main__":
    main()
