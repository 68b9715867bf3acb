"""Single weights set to zero: accuracy, bytes and time of ResNet-20 on CIFAR-10, method by method.

Run as  ADAPTKIT_DATA=… python benchmarks/sparsity.py [METHOD …] ; adds to benchmarks/results/sparsity.json.
Every method that trains gets three tenths of an epoch in all, with the same settings: enough to rank the methods, too
little for any of them. Accuracy is that of the ONNX file over the whole test split, time is the dense file's over the
sparse one's, in turns, one thread.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from machine import RESULTS, machine
from safetensors.torch import load_file

from adaptkit.export.files import file_bytes
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.data import load_data
from adaptkit.metrics.file import file_accuracy
from adaptkit.profiling.latency import compare
from adaptkit.pruning import (
    ADMMPruning,
    GradualPruning,
    MagnitudePruning,
    MovementPruning,
    NMPruning,
    SingleShotPruning,
)
from adaptkit.quantization import StaticQuantization
from adaptkit.specs import DataSpec, ProfileSpec
from adaptkit.technique import Context
from adaptkit.training.settings import FitSettings
from adaptkit_zoo.cifar_resnet import resnet20_cifar

EPOCHS = 0.3
FIT = FitSettings(learning_rate=0.03, gradient_clip=5)
METHODS = {
    "dense": None,
    "magnitude 0.9, no training": MagnitudePruning(sparsity=0.9),
    "magnitude 0.9": MagnitudePruning(sparsity=0.9, recovery_epochs=EPOCHS, fit=FIT),
    "gradual 0.9": GradualPruning(sparsity=0.9, epochs=EPOCHS, fit=FIT),
    "movement 0.9": MovementPruning(sparsity=0.9, epochs=EPOCHS, fit=FIT),
    "admm 0.9": ADMMPruning(params=0.1, epochs=EPOCHS / 2, recovery_epochs=EPOCHS / 2, fit=FIT),
    "2:4, no training": NMPruning(),
    "2:4, no training, no permutation": NMPruning(permute=False),
    "2:4": NMPruning(recovery_epochs=EPOCHS, fit=FIT),
    "magnitude 0.5, no training": MagnitudePruning(sparsity=0.5),
    "admm 0.5, generated inputs": ADMMPruning(params=0.5, data="synthetic", growth=1.25),
    "single_shot 0.5": SingleShotPruning(macs=0.5, epochs=EPOCHS / 2, recovery_epochs=EPOCHS / 2, fit=FIT),
}


def measure(name: str, folder: Path) -> dict[str, object]:
    """Apply one method, and measure its float file and its 8-bit file."""
    archive = folder / "data" / "cifar10-jpeg.zip"
    spec = DataSpec(
        imagefolder=str(archive), normalize="imagenet", augment=("pad_crop", "flip"), validation=5000, batch_size=64
    )
    data = load_data(spec, 0, Path(), None)
    model = resnet20_cifar().eval()
    model.load_state_dict(load_file(folder / "weights" / "resnet20-cifar10-jpeg.safetensors"))
    x, _ = next(iter(data.calibration.with_batch_size(2)))
    context = Context(example_inputs=(x,), train=data.train, calibration=data.calibration)
    with tempfile.TemporaryDirectory() as place:
        dense, sparse, integers = (Path(place, file) for file in ("dense.onnx", "float.onnx", "int8.onnx"))
        export_onnx(model, (x,), dense)
        technique = METHODS[name]
        if technique is not None:
            model = technique.apply(model, context)
        export_onnx(model, (x,), sparse)
        export_onnx(StaticQuantization().apply(model, context), (x,), integers)
        timed = compare([dense, sparse], ProfileSpec(batch_sizes=(1, 64)))[-1]
        return {
            "accuracy": file_accuracy(sparse, data.test),
            "accuracy_int8": file_accuracy(integers, data.test),
            "bytes": file_bytes(sparse),
            "bytes_int8": file_bytes(integers),
            "speedup": {key: ratio.model_dump() for key, ratio in timed.speedup.items()},
            "notes": context.notes,
        }


def main() -> None:
    """Measure the methods that were named, or all of them."""
    folder, path = Path(os.environ["ADAPTKIT_DATA"]), RESULTS / "sparsity.json"
    result = json.loads(path.read_text()) if path.is_file() else {"epochs": EPOCHS, "methods": {}}
    for name in sys.argv[1:] or METHODS:
        result["methods"][name] = measure(name, folder)
        result["machine"] = machine()
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
