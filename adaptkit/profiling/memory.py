"""How much memory a process needs that does nothing but run the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from adaptkit.errors import ModelError

_SECONDS = 300

_SCRIPT = """
import pathlib, resource, sys
import numpy, onnxruntime
batch, *paths = int(sys.argv[1]), *sys.argv[2:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths]
types = {"float": "float32", "double": "float64"}
for session in 2 * sessions:
    feeds = {}
    for x in session.get_inputs():
        kind = x.type.removeprefix("tensor(").removesuffix(")")
        shape = [batch if isinstance(size, str) or size is None else size for size in x.shape]
        feeds[x.name] = numpy.zeros(shape, types.get(kind, kind))
    session.run(None, feeds)
status = pathlib.Path("/proc/self/status")
if status.exists():
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(path: Path, batch_size: int = 1, others: Sequence[Path] = ()) -> int:
    """Measure the peak resident memory of a fresh process that loads a file and runs it twice, in bytes.

    Nothing is subtracted: Python, numpy and ONNX Runtime themselves are in it, about the same for every file.

    Args:
        path: An ONNX file.
        batch_size: Samples in a call.
        others: Files that are loaded with it, and run as well: the other networks of a conditional model.

    Raises:
        ModelError: The process failed; its last words are in the message.
    """
    command = [sys.executable, "-P", "-c", _SCRIPT, str(batch_size), *map(str, (path, *others))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        reason = words[-1] if words else f"killed with status {done.returncode}, perhaps for want of memory"
        raise ModelError(f"cannot run {path.name} in a process of its own: {reason}")
    return int(done.stdout)
