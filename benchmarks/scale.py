"""Pruning and 8-bit integers for models of up to a billion parameters: peak memory of a fresh process, and time.

Run as  python benchmarks/scale.py [BLOCKS …] [--prune structured|magnitude]; adds to benchmarks/results/scale.json.
Blocks of 33.6 million random weights each (2, 8 and 30: 67 million, 268 million and a billion parameters) are pruned to
half, quantized with 16 calibration samples and exported, by one thread. Memory is the largest resident set of the
process, the interpreter, torch and the model itself included; time is that of the processor. A second process opens the
file in ONNX Runtime and compares its outputs with the simulator's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, machine
from torch import Tensor, nn

from adaptkit.export.files import file_bytes
from adaptkit.export.onnx import export_onnx
from adaptkit.pruning import MagnitudePruning, StructuredPruning
from adaptkit.quantization import StaticQuantization
from adaptkit.technique import Context, Technique

SIZES = (2, 8, 30)
WIDTH = 2048
SAMPLES = 16
PRUNING: dict[str, Technique] = {
    "structured": StructuredPruning(params=0.5),
    "magnitude": MagnitudePruning(sparsity=0.5, ranking="global"),
}


class Block(nn.Module):
    """x + W₂ max(W₁ norm(x), 0), as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return x + self.down(torch.relu(self.up(self.norm(x))))


def build(blocks: int) -> nn.Module:
    """Make a stack of blocks with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, WIDTH), *(Block() for _ in range(blocks)), nn.Linear(WIDTH, 10)).eval()


def run(blocks: int, pruning: str, folder: Path) -> dict[str, object]:
    """Prune, quantize and export in this process."""
    stages: dict[str, dict[str, float]] = {}

    def done(name: str, start: float) -> float:
        stages[name] = {"seconds": round(time.process_time() - start, 1), "peak_bytes": peak_bytes()}
        return time.process_time()

    at = done("start", 0.0)
    model = build(blocks)
    own = sum(parameter.nbytes for parameter in model.parameters())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    at = done("build", at)
    x = torch.randn(SAMPLES, 256)
    context = Context(example_inputs=(x[:2],), calibration=(x, torch.zeros(SAMPLES, dtype=torch.long)))
    model = PRUNING[pruning].apply(model, context)
    at = done("prune", at)
    model = StaticQuantization(calibration=SAMPLES).apply(model, context)
    at = done("quantize", at)
    export_onnx(model, (x[:2],), folder / "model.onnx")
    done("export", at)
    peak = peak_bytes()
    with torch.no_grad():
        np.savez(folder / "expected.npz", x=x.numpy(), y=model(x).numpy())
    return {
        "parameters": parameters,
        "model_bytes": own,
        "peak_bytes": peak,
        "peak_to_model": round(peak / own, 3),
        "seconds": round(sum(stage["seconds"] for name, stage in stages.items() if name not in ("start", "build")), 1),
        "file_bytes": file_bytes(folder / "model.onnx"),
        "stages": stages,
    }


def peak_bytes() -> int:
    """Return the largest resident set of this process so far; unlike ru_maxrss, not that of its parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def compare(folder: Path) -> dict[str, object]:
    """Run the file in ONNX Runtime beside what the simulator gave."""
    from adaptkit.runtime.model import AdaptedModel

    expected = np.load(folder / "expected.npz")
    found = AdaptedModel.load(folder / "model.onnx").predict(expected["x"])
    error = float(np.abs(found - expected["y"]).max() / np.abs(expected["y"]).max())
    return {"largest_error": error, "same_class": float((found.argmax(1) == expected["y"].argmax(1)).mean())}


def in_fresh_process(*arguments: str) -> dict[str, object]:
    """Call this script again, and read what it prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure the sizes that were named, or all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("blocks", nargs="*", type=int, default=SIZES)
    parser.add_argument("--prune", choices=PRUNING, default="structured")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.blocks[0], options.prune, options.run)))
        return
    if options.compare:
        print(json.dumps(compare(options.compare)))
        return
    path = RESULTS / "scale.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    for blocks in options.blocks:
        with tempfile.TemporaryDirectory() as folder:
            measured = in_fresh_process(str(blocks), "--prune", options.prune, "--run", folder)
            measured |= in_fresh_process("--compare", folder)
        result.setdefault(options.prune, {})[str(blocks)] = measured | {"machine": machine()}
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
