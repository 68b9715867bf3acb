"""The measured tables of which models each technique takes."""

import json
import statistics
import textwrap
from typing import Any

from benchmarks.machine import RESULTS

_FEW, _WIDEST = 4, 300
"""Of a list, and of a remark in letters: a table cell holds no more."""


def coverage() -> str:
    """What works on which model, and what the dependency engine takes."""
    table: dict[str, Any] = json.loads((RESULTS / "coverage.json").read_text())
    columns = ("prune", "factorize", "int8", "export")
    rows = ["| model | " + " | ".join(columns) + " | seconds | left alone, or what fails |"]
    rows.append("|---" * (len(columns) + 3) + "|")
    for name, cells in table["models"].items():
        found = [cells.get(column) for column in columns]
        seconds = cells.get("prune", {}).get("seconds")
        rows.append(
            f"| `{name}` | {' | '.join(map(_sign, found))} | {'–' if seconds is None else f'{seconds:.1f}'} "
            f"| {_remarks(dict(zip(columns, found, strict=True)))} |"
        )
    place = table["machine"]["prune"]
    counts = (f"{column} {_passed(table, column)}" for column in columns if _tried(table, column))
    apart = [cells["int8"]["difference"] for cells in table["models"].values() if "difference" in cells.get("int8", {})]
    rows += [
        "",
        f"Passed, of those tried: {', '.join(counts)}; “–” has not been run. Outputs in 8 bits are "
        f"{statistics.median(apart):.3f} deviations away from the float model's (median; at most {max(apart):.3f}). "
        f"Seconds of the processor to find the "
        f"groups and to cut, one thread of {place['cpu']}, {place['cores']} cores at a load average of "
        f"{place['load_average']}, which makes them longer; torch {place['torch']}; commit {place['commit']}; "
        "`python benchmarks/coverage.py`.",
    ]
    return "\n".join(rows)


def coverage_peer() -> str:
    """How long the analysis and the cut take, here and with Torch-Pruning."""
    table: dict[str, Any] = json.loads((RESULTS / "coverage.json").read_text())
    both = [cells["peer"] for cells in table["models"].values() if cells.get("peer", {}).get("ok")]
    silent = [name for name, cells in table["models"].items() if "peer" in cells and not cells["peer"]["ok"]]
    handled = [cell for cell in both if cell["torch_pruning"]["ok"]]
    ours = sum(cell["seconds"] for cell in handled)
    theirs = sum(cell["torch_pruning"]["seconds"] for cell in handled)
    place = table["machine"]["peer"]
    return (
        f"Timed on {len(both)} of torchvision's classification models; Torch-Pruning 1.6.1 handles {len(handled)} of "
        f"them without exceptions by hand. On {', '.join(silent) or 'none'} the comparison gave no answer in the time "
        f"and memory it was given; adaptkit handles them, see above. "
        f"Over the {len(handled)} adaptkit takes {ours:.1f} s, "
        f"and Torch-Pruning {theirs:.1f} s of one thread of {place['cpu']}, model by model in the same process, on the "
        f"same small images, {place['cores']} cores at a load average of {place['load_average']}; "
        f"commit {place['commit']}; `python benchmarks/coverage.py --columns peer`."
    )


def _sign(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    parts = f" ({', '.join(f'`{part}`' for part in cell['parts'])})" if "parts" in cell else ""
    return f"yes{parts}" if cell["ok"] else f"**no**{parts}"


def _tried(table: dict[str, Any], column: str) -> list[dict[str, Any]]:
    return [cells[column] for cells in table["models"].values() if column in cells]


def _passed(table: dict[str, Any], column: str) -> str:
    tried = _tried(table, column)
    return f"{sum(cell['ok'] for cell in tried)} of {len(tried)}"


def _remarks(cells: dict[str, dict[str, Any] | None]) -> str:
    left = _first([_short_list(line) for line in (cells["prune"] or {}).get("left_alone", [])])
    failed = [f"{column}: {_reason(cell)}" for column, cell in cells.items() if cell and not cell["ok"]]
    lines = (textwrap.shorten(line, _WIDEST, placeholder=" …") for line in (*left, *failed))
    return "<br>".join(line.replace("|", "\\|") for line in lines)


def _reason(cell: dict[str, Any]) -> str:
    """Say why a cell failed."""
    if "error" in cell:
        return str(cell["error"])
    if not cell.get("trains", True):
        return "the loss of the training step is not finite"
    return f"the outputs are {cell['difference']:.2g} apart"


def _short_list(line: str) -> str:
    """Name the first few of the things that a sentence lists after its last colon."""
    start, colon, listed = line.rpartition(": ")
    return f"{start}{colon}{', '.join(_first(listed.split(', ')))}" if colon else line


def _first(items: list[str]) -> list[str]:
    return items if len(items) <= _FEW else [*items[:_FEW], f"and {len(items) - _FEW} more"]
