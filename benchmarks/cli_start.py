"""How long the command line takes to start: `python benchmarks/cli_start.py` writes results/cli_start.json.

Each command runs in a fresh process, commands alternating, after one warm-up run that fills the disk cache.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import RESULTS, machine

ADAPTKIT = str(Path(sys.executable).with_name("adaptkit"))
COMMANDS = {"help": [ADAPTKIT, "--help"], "validate": [ADAPTKIT, "validate", "digits-edge"]}
TARGET_SECONDS = {"help": 0.5, "validate": 1.5}
RUNS = 21


def seconds(command: list[str]) -> float:
    """Time one run of a command."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    for command in COMMANDS.values():
        seconds(command)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    found = {name: summary(values, TARGET_SECONDS[name]) for name, values in times.items()}
    for name, figures in found.items():
        print(f"{name:9} median {figures['median_s']:.3f} s, {figures['low_s']:.3f} to {figures['high_s']:.3f} s")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cli_start.json").write_text(json.dumps({"machine": machine(), "runs": RUNS, **found}, indent=1) + "\n")


def summary(values: list[float], target: float) -> dict[str, float | bool]:
    """Give the median, the quartiles and whether the median meets the target."""
    low, median, high = statistics.quantiles(values, n=4)
    return {
        "median_s": round(median, 4),
        "low_s": round(low, 4),
        "high_s": round(high, 4),
        "target_s": target,
        "met": median <= target,
    }


if __name__ == "__main__":
    main()
