"""The pages that are made from results: README.md, docs/ and benchmarks/README.md."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import tables
from benchmarks.harness import results
from benchmarks.harness.suite import Found, Suite, Verdict
from benchmarks.machine import RESULTS
from benchmarks.suites import SUITES

ROOT = Path(__file__).parents[1]
INTRODUCTION = """\
# Beside the peers

Written by `python -m benchmarks tables` from `results/peers_*.json`; do not edit.

```sh
pip install -e ".[bench]"                          # the peers that get along with adaptkit's own packages
python -m benchmarks list
python -m benchmarks run --all --size smoke        # digits only, a few minutes; what CI runs
ADAPTKIT_DATA=… python -m benchmarks run --all --peers-env ~/peers
python -m benchmarks run pruning                   # one suite
python -m benchmarks tables                        # this page, README.md and docs/
```

Everybody gets the same networks, data, seeds, budget of training and one thread, and takes turns with the others (A B A
B); ratios are taken within a turn. A peer that does not install is named with the reason. Losses stand beside wins:
*worse* in the last column is a loss of adaptkit's, *equal* a difference of at most 5 %, in
top-1 of at most 0.2 %.
"""


def pages(folder: Path = RESULTS) -> dict[Path, str]:
    """Give the text that each page should have."""
    texts = {ROOT / "benchmarks" / "README.md": readme(folder)}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        texts[path] = tables.filled(path.read_text(), {"peers": partial(peers_table, folder)})
    return texts


def readme(folder: Path) -> str:
    """Write benchmarks/README.md."""
    parts = [INTRODUCTION, peers_table(folder)]
    known = [found for name in SUITES if (found := results.read(folder, name)) is not None]
    if known:
        minutes = sum(found["seconds"] for found in known) / 60
        parts.append(f"The seconds of the {len(known)} suites that were measured add up to {minutes:.0f} minutes.")
    for name, suite in SUITES.items():
        result = results.read(folder, name)
        measured = "Not measured yet." if result is None else f"{suite.table(result['figures'])}\n\n{_facts(result)}"
        parts.append(f"## {name}\n\n{suite.about}.\n\n{measured}\n\n`python -m benchmarks run {name}`")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def peers_table(folder: Path) -> str:
    """Write who is better at what, suite by suite."""
    rows = ["| suite | what | adaptkit | best of the peers | adaptkit is |", "|---|---|---|---|---|"]
    for name, suite in SUITES.items():
        result = results.read(folder, name)
        if result is None:
            rows.append(f"| {name} | not measured yet | – | – | – |")
            continue
        rows += [_row(name, verdict) for verdict in suite.verdicts(result["figures"])]
        rows += [f"| {name} | {peer} | – | {reason} | – |" for peer, reason in _missing(suite, result).items()]
    return "\n".join(rows)


def _row(name: str, verdict: Verdict) -> str:
    outcome = f"**{verdict.outcome}**" if verdict.outcome == "worse" else verdict.outcome
    return f"| {name} | {verdict.what} | {verdict.ours} | {verdict.theirs} ({verdict.peer}) | {outcome} |"


def _missing(suite: Suite, result: Found) -> dict[str, str]:
    states = {peer: result["peers"].get(peer, {"missing": "was not asked for"}) for peer in suite.peers}
    return {peer: state["missing"] for peer, state in states.items() if "missing" in state}


def _facts(result: Found) -> str:
    machine, versions = result["machine"], result["versions"]
    peers = [f"{peer} {state['version']}" for peer, state in result["peers"].items() if "version" in state]
    changed = "" if machine["clean"] else " with changes"
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {'with' if machine['vnni'] else 'without'} VNNI, one thread, "
        f"load average {machine['load_average']}; torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}"
        f"{''.join(f', {peer}' for peer in peers)}; {result['size']} size, seed {result['seed']}, "
        f"{result['seconds']:.0f} s; commit {machine['commit']}{changed}."
    )
