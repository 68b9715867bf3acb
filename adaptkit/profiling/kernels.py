"""What ONNX Runtime's own profiler says: which kernels ran, how long, and how many bytes they took and gave."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort

from adaptkit.errors import RunFolderError
from adaptkit.profiling.inputs import Feeds
from adaptkit.runtime.session import open_session, session_options

_EVENT = "_kernel_time"


@dataclass
class Kernel:
    """One kernel of a run.

    Args:
        name: As ONNX Runtime calls it: that of a node, or of what it puts out, with endings for what was fused.
        op: Its type of operation.
        bytes: Of the activations that it reads and writes in a call.
        durations: Microseconds of every time it ran.
    """

    name: str
    op: str
    bytes: int
    durations: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class KernelRun:
    """All kernels of a model, in the order in which they ran.

    Args:
        kernels: Each with the same number of calls behind it.
        calls: How many that is.
        call_us: The median of a whole call while profiled.
    """

    kernels: list[Kernel]
    calls: int
    call_us: float

    @property
    def all_microseconds(self) -> float:
        """The time of all kernels in a call."""
        return sum(self.microseconds(kernel) for kernel in self.kernels)

    def microseconds(self, kernel: Kernel) -> float:
        """Give the time of a kernel in a call: the median, as often as it runs in one."""
        return median(kernel.durations) * len(kernel.durations) / self.calls


def run_kernels(
    model: Path | bytes,
    make_feeds: Callable[[ort.InferenceSession], Feeds],
    *,
    threads: int = 1,
    repeats: int = 30,
    weights_in: Path | None = None,
) -> KernelRun:
    """Run a model under ONNX Runtime's profiler. It slows small kernels down a little.

    Args:
        model: A file, or the bytes of one.
        make_feeds: Makes the inputs.
        threads: Threads within an operator.
        repeats: Calls that count, after a fifth as many for warming up.
        weights_in: The folder of weights that bytes name by file.
    """
    warmup = max(1, repeats // 5)
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = open_session(model, options=options, weights_in=weights_in)
        feeds = make_feeds(session)
        for _ in range(warmup + repeats):
            session.run(None, feeds)
        return _sorted_out(_events(Path(session.end_profiling())), warmup, repeats)


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:  # ONNX Runtime says nothing where the disk is full
        raise RunFolderError(
            f"ONNX Runtime could not write its profile into {path.parent}: free some space there, or name another "
            "folder in TMPDIR, and run the same command again"
        ) from error
    return found


def _sorted_out(events: list[dict[str, Any]], warmup: int, repeats: int) -> KernelRun:
    whole = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: float(event["ts"]))
    counted = whole[warmup:]
    start = float(counted[0]["ts"])
    kernels: dict[str, Kernel] = {}
    for event in events:
        name = event["name"]
        if event.get("cat") != "Node" or not name.endswith(_EVENT) or float(event["ts"]) < start:
            continue
        name, args = name.removesuffix(_EVENT), event["args"]
        kernel = kernels.get(name)
        if kernel is None:
            size = int(args.get("activation_size", 0)) + int(args.get("output_size", 0))
            kernel = kernels[name] = Kernel(name, args["op_name"], size)
        kernel.durations.append(float(event["dur"]))
    return KernelRun(list(kernels.values()), repeats, median(float(event["dur"]) for event in counted))
