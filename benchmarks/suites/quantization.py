"""Integers after training, by benchmarks/quantization.py, with the peers' environments."""

from __future__ import annotations

import json
import os
from typing import Any

from benchmarks.harness.scripts import Script, run_script
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.table_parts import deciles

SCRIPT = Script("quantization.py", ("resnet20",), ("digits",), 8)
APART = {"NNCF_PYTHON": "nncf", "INC_PYTHON": "onnx-neural-compressor"}
OURS = "adaptkit auto"


def run(place: Place) -> Found:
    """Run the script with the interpreters of the peers that are there, and read what it wrote."""
    pythons = {variable: place.peers.python(peer) for variable, peer in APART.items()}
    variables = {variable: str(python) for variable, python in pythons.items() if python is not None}
    run_script(SCRIPT, place, {**os.environ, **variables})
    written: dict[str, Any] = json.loads((place.results / "quantization.json").read_text())
    names = SCRIPT.arguments(place.size) or ()
    return {name: written[name]["ways"] for name in names}


def table(figures: Found) -> str:
    """One row for each quantizer."""
    rows = ["| network | quantizer | top-1 | lost, points | faster, batch 1 | faster, batch 64 | quantized in |"]
    rows.append("|---" * 7 + "|")
    for name, ways in figures.items():
        for way, found in ways.items():
            if "refused" in found:
                rows.append(f"| {name} | {way} | ONNX Runtime does not run the file | – | – | – | – |")
                continue
            single, many = (deciles(found["speedup"][batch]) for batch in ("b1", "b64"))
            lost = f"{100 * found['lost']:.2f} ± {100 * found['standard_error']:.2f}"
            rows.append(
                f"| {name} | {way} | {100 * found['accuracy']:.2f} % | {lost} | {single} | {many} "
                f"| {found['cpu_seconds']:.1f} s |"
            )
    return "\n".join([
        *rows, "",
        "The same calibration images for everybody; points lost with the standard error of the paired difference; "
        "median and deciles of alternating runs; processor time of the quantization.",
    ])  # fmt: skip


def verdicts(figures: Found) -> list[Verdict]:
    """Compare adaptkit's default, and learned rounding, with the best peer."""
    return [verdict for name, ways in figures.items() for verdict in _of_one(name, ways)]


def _of_one(name: str, ways: Found) -> list[Verdict]:
    ran = {way: found for way, found in ways.items() if "accuracy" in found and way != "float32"}
    theirs = {way: found for way, found in ran.items() if not way.startswith("adaptkit")}
    ours, learned = ran[OURS], ran[f"{OURS}, learned rounding"]
    accurate = max(theirs, key=lambda way: theirs[way]["accuracy"])
    fast = max(theirs, key=lambda way: theirs[way]["speedup"]["b1"]["median"])
    quick = min(theirs, key=lambda way: theirs[way]["cpu_seconds"])

    def top(way: str, found: Found) -> Verdict:
        pair = [100 * each["accuracy"] for each in (found, theirs[accurate])]
        better = outcome(*pair, lower_is_better=False, within=0.002)
        return Verdict(f"{name}, int8: top-1, {way}", f"{pair[0]:.2f} %", f"{pair[1]:.2f} %", accurate, better)

    speed = [each["speedup"]["b1"]["median"] for each in (ours, theirs[fast])]
    seconds = [each["cpu_seconds"] for each in (ours, theirs[quick])]
    return [
        top("default", ours),
        top("learned rounding", learned),
        Verdict(
            f"{name}, int8: latency, batch 1, to float32", f"{speed[0]:.2f} × faster", f"{speed[1]:.2f} × faster", fast,
            outcome(*speed, lower_is_better=False),
        ),
        Verdict(
            f"{name}, int8: time to quantize", f"{seconds[0]:.1f} s", f"{seconds[1]:.1f} s", quick,
            outcome(*seconds, lower_is_better=True),
        ),
    ]  # fmt: skip


SUITE = Suite(
    about="Integers after training: accuracy, latency, time; onnxruntime.quantization comes with adaptkit",
    run=run, table=table, verdicts=verdicts, peers=tuple(APART.values()), minutes=8,
)  # fmt: skip
