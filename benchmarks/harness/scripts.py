"""The scripts that measure adaptkit's own figures, run by the same command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.suite import NotHere, Place, Size

FOLDER = Path(__file__).parents[1]


@dataclass(frozen=True)
class Script:
    """A script that writes a results file of its own.

    Args:
        file: In benchmarks/.
        nightly: Its arguments in the nightly size; None where it takes longer than a night allows.
        smoke: Its arguments in the smoke size; None where it has nothing that small.
        minutes: How long the nightly size takes, about; by itself where a night does not allow it, None for hours.
        needs_data: Whether it reads the data folder.
    """

    file: str
    nightly: tuple[str, ...] | None
    smoke: tuple[str, ...] | None
    minutes: float | None
    needs_data: bool = True

    @property
    def length(self) -> str:
        """How long it takes, in words."""
        about = "hours" if self.minutes is None else f"about {self.minutes:g} minutes"
        return about if self.nightly is not None else f"{about}, by name only"

    def arguments(self, size: Size) -> tuple[str, ...] | None:
        """Give the arguments for a size."""
        return self.smoke if size == "smoke" else self.nightly


_WORK = "runs/benchmarks-work"
SCRIPTS = {
    "main_job": Script("main_job.py", ("digits-edge", "resnet20-cifar10"), None, 15, False),
    "cli_start": Script("cli_start.py", (), None, 1, False),
    "factorization_time": Script("factorization.py", (), None, 4, False),
    "result_cache": Script("result_cache.py", None, None, 30),
    "activation_cache": Script("activation_cache.py", None, None, None),
    "cascade": Script("cascade.py", (_WORK,), None, 10),
    "coverage": Script("coverage.py", None, None, None, False),
    "distillation_gain": Script("distillation.py", None, None, None, False),
    "exits": Script("early_exit.py", None, None, None),
    "load_balanced": Script("load_balanced.py", None, None, None),
    "fuzz": Script("fuzz.py", ("--seconds", "120"), ("--seconds", "5"), 6, False),
    "loader": Script("loader.py", None, None, None),
    "mixed_precision": Script("mixed_precision.py", None, None, None),
    "quantization_draws": Script("quantization_draws.py", None, None, 30),
    "scale": Script("scale.py", None, None, 10, False),
    "selector": Script("selector.py", (_WORK,), None, 10),
    "sparsity": Script("sparsity.py", None, None, None),
}


def run_script(script: Script, place: Place, environment: Mapping[str, str]) -> None:
    """Run a script in a process of its own, with its results in the folder of this run.

    Raises:
        NotHere: It needs data that is not there, has nothing as small, or failed.
    """
    arguments = script.arguments(place.size)
    if arguments is None and place.smoke:
        raise NotHere(f"{script.file} has no smoke size")
    given = {**environment, "BENCHMARK_RESULTS": str(place.results), "OMP_NUM_THREADS": "1"}
    if script.needs_data and not place.smoke:
        given["ADAPTKIT_DATA"] = str(place.folder())
    place.results.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(FOLDER / script.file), *(arguments or ())]
    if subprocess.run(command, env=given, check=False).returncode:
        raise NotHere(f"{script.file} failed, see above")
