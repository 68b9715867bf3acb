"""How long the command line takes to start: `python benchmarks/cli_start.py` writes results/cli_start.json.

Each command runs in a fresh process, commands alternating, after one warm-up run that fills the disk cache. The time of
the processor is given beside the time on the clock: on a busy machine only the first says what adaptkit itself costs.
"""

import json
import resource
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


def seconds(command: list[str]) -> tuple[float, float]:
    """Time one run of a command: on the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print and write."""
    for command in COMMANDS.values():
        seconds(command)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    found = {name: summary(values, TARGET_SECONDS[name]) for name, values in times.items()}
    for name, figures in found.items():
        print(f"{name:9} {figures}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cli_start.json").write_text(json.dumps({"machine": machine(), "runs": RUNS, **found}, indent=1) + "\n")


def summary(values: list[tuple[float, float]], target: float) -> dict[str, float | bool]:
    """Give the median and quartiles on the clock, whether the median meets the target, and the processor's median."""
    clock, processor = zip(*values, strict=True)
    low, median, high = statistics.quantiles(clock, n=4)
    return {
        "median_s": round(median, 4),
        "low_s": round(low, 4),
        "high_s": round(high, 4),
        "processor_s": round(statistics.median(processor), 4),
        "target_s": target,
        "met": median <= target,
    }


if __name__ == "__main__":
    main()
