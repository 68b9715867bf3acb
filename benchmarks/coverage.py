"""Which models can be pruned, factorized, quantized and exported: the coverage table.

    python benchmarks/coverage.py                               every model, every column of adaptkit's own
    python benchmarks/coverage.py 'swin*' --columns prune
    python benchmarks/coverage.py --columns peer                adaptkit and Torch-Pruning, model by model, timed

A process of its own works through the models; where it dies or gives no answer in time, that is written down and
another one goes on with the next model. Cells are written to benchmarks/results/coverage.json as they come; those that
were not asked for stay. `peer` needs `pip install torch-pruning==1.6.1`.
"""

import argparse
import json
import multiprocessing
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from typing import Any

from coverage_cells import COLUMNS, cell
from coverage_models import CASES
from machine import RESULTS, machine

FILE = RESULTS / "coverage.json"
OWN = ("prune", "export", "factorize", "int8")
WARM_UP = "alexnet"  # the first calls of a process load parts of torch, which must not be timed


def cells(names: list[str], column: str, limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Work out a column, in a process that is started again after it died or was stopped."""
    left = list(names)
    fork = multiprocessing.get_context("fork")
    while left:
        here, there = fork.Pipe(duplex=False)
        worker = fork.Process(target=_work, args=(left, column, there))
        worker.start()
        there.close()
        while left:
            found = _received(here, limit)
            yield left.pop(0), found
            if "died" in found:
                break
        worker.kill()
        worker.join()


def _work(names: list[str], column: str, results: Connection) -> None:
    warnings.simplefilter("ignore")
    if column == "peer":
        cell(WARM_UP, column)
    for name in names:
        results.send(cell(name, column))


def _received(results: Connection, limit: float) -> dict[str, Any]:
    """Wait for a cell; where none comes, say why."""
    if not results.poll(limit):
        return {"ok": False, "died": True, "error": f"no answer within {limit:.0f} s"}
    try:
        found: dict[str, Any] = results.recv()
    except EOFError:
        return {"ok": False, "died": True, "error": "the process was killed"}
    return found


def write(name: str, column: str, found: dict[str, Any]) -> None:
    """Put a cell into the results file."""
    table = json.loads(FILE.read_text()) if FILE.is_file() else {"machine": {}, "models": {}}
    table["machine"][column] = machine()
    for each, case in CASES.items():
        table["models"].setdefault(each, {"input": case.size})
    table["models"][name][column] = found
    FILE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="which models, in this order")
    parser.add_argument("--columns", nargs="+", default=OWN, choices=tuple(COLUMNS))
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one cell")
    parser.add_argument("--missing", action="store_true", help="only cells that are not there or not ok")
    arguments = parser.parse_args()
    wanted = dict.fromkeys(n for pattern in arguments.patterns for n in CASES if fnmatchcase(n, pattern))
    for column in arguments.columns:
        done = json.loads(FILE.read_text())["models"] if arguments.missing and FILE.is_file() else {}
        names = [name for name in wanted if not done.get(name, {}).get(column, {}).get("ok")]
        for name, found in cells(names, column, arguments.limit):
            print(name, column, json.dumps(found), flush=True)
            write(name, column, found)


if __name__ == "__main__":
    main()
