"""Run the main job on shipped recipes and keep the figures.

    python benchmarks/main_job.py digits-edge resnet20-cifar10 resnet56-cifar10

Each recipe is run as a user would run it, in a process of its own; the wall time counts from the command to its end.
Latency ratios are the report's own: ONNX Runtime sessions of both files, alternating, in one process.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, machine

KEPT = ("accuracy", "validation_accuracy", "parameters", "macs", "bytes", "latency_ms", "speedup", "energy_mj")


def measure(recipe: str) -> dict[str, Any]:
    """Run one recipe and pick the figures out of its report."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "run")
        command = [str(Path(sys.executable).parent / "adaptkit"), "compress", recipe, "--output", str(folder), "-q"]
        started = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        seconds = time.monotonic() - started
        if code not in (0, 3):
            raise SystemExit(f"{recipe} ended with exit code {code}")
        report = json.loads((folder / "report.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "exit_code": code,
        "baseline": {key: report["baseline"][key] for key in KEPT},
        "steps": [{"name": step["name"], **{key: step["figures"][key] for key in KEPT}} for step in report["steps"]],
        "final": {key: report["final"][key] for key in KEPT},
        "agreement": report["certificate"]["agreement"],
        "gates": report["gates"],
    }


def main() -> None:
    """Measure the recipes named on the command line; earlier results of other recipes stay."""
    path = RESULTS / "main_job.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for recipe in sys.argv[1:] or ["digits-edge"]:
        results[recipe] = {**measure(recipe), "machine": machine()}
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(recipe, json.dumps(results[recipe]["final"]["speedup"]), results[recipe]["seconds"], "s")


if __name__ == "__main__":
    main()
