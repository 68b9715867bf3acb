"""Write the measured tables of README.md and docs/ from benchmarks/results/.

    python benchmarks/tables.py

A table stands between <!-- table:NAME --> and <!-- /table --> and is replaced there.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main_job() -> str:
    """The before/after table of the main job."""
    rows = ["| recipe | top-1, test | parameters | MACs | ONNX file | latency, batch 1 | latency, batch 64 | run |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    results: dict[str, Any] = json.loads((RESULTS / "main_job.json").read_text())
    for name, result in results.items():
        before, after = result["baseline"], result["final"]
        rows.append(
            f"| `{name}` | {100 * before['accuracy']:.2f} → {100 * after['accuracy']:.2f} % "
            f"| {_times(before['parameters'], after['parameters'])} fewer "
            f"| {_times(before['macs'], after['macs'])} fewer | {_times(before['bytes'], after['bytes'])} smaller "
            f"| {_speedup(after, 't1_b1')} | {_speedup(after, 't1_b64')} | {result['seconds']:.0f} s |"
        )
    place = next(iter(results.values()))["machine"]
    vnni = "with" if place["vnni"] else "without"
    commits = ", ".join(sorted({result["machine"]["commit"] for result in results.values()}))
    rows += [
        "",
        f"{place['cores']} cores of {place['cpu']}, {vnni} VNNI; ONNX Runtime {place['onnxruntime']}, one thread; "
        f"ratios to the fp32 file, median and quartiles of alternating runs; commit {commits}; "
        "`python benchmarks/main_job.py`.",
    ]
    return "\n".join(rows)


def _times(before: float, after: float) -> str:
    return f"{before / after:.1f} ×"


def _speedup(figures: dict[str, Any], key: str) -> str:
    ratio = figures["speedup"].get(key)
    return f"{ratio['median']:.2f} × lower ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "–"


TABLES = {"main_job": main_job}


def main() -> None:
    """Rewrite every table in place."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        for name, made in TABLES.items():
            pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)", re.DOTALL)
            if pattern.search(text):
                table = made()
                text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        path.write_text(text)


if __name__ == "__main__":
    main()
