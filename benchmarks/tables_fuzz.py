"""The table of made-up and damaged input."""

import json
from typing import Any

from benchmarks.machine import RESULTS

_WHAT = {"recipe": "recipes", "manifest": "artifacts, saved models and run folders", "onnx": "ONNX files"}


def fuzz() -> str:
    """What came of made-up input, reader by reader."""
    results: dict[str, Any] = json.loads((RESULTS / "fuzz.json").read_text())
    rows = ["| read | inputs | accepted | refused in one message | tracebacks | no answer in 10 s, or dead |"]
    rows.append("|---|---|---|---|---|---|")
    for name, what in _WHAT.items():
        found = results[name]
        rows.append(
            f"| {what} | {found['inputs']:,} in {found['seconds'] / 60:.0f} minutes | {found['accepted']:,} "
            f"| {found['refused']:,} | {found['failed']:,} | {found['hung'] + found['died']:,} |"
        )
    commits = ", ".join(sorted({found["machine"]["commit"] for found in results.values()}))
    limit = "one process with 4 GB beside other work"
    return "\n".join([*rows, "", f"{limit}; commit {commits}; `python benchmarks/fuzz.py`."])
