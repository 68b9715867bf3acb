"""Where a result was measured: every results file carries this."""

import os
import platform
import subprocess
from pathlib import Path

import onnxruntime
import torch

from adaptkit.lock import cpu_name

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")


def machine() -> dict[str, object]:
    """Say which commit, processor and versions a number belongs to."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return {
        "commit": commit.stdout.strip(),
        "cpu": cpu_name(),
        "vnni": "vnni" in flags,
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load_average": round(os.getloadavg()[0], 2),
    }
