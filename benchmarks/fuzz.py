"""Made-up and damaged recipes, artifacts and ONNX files: `python benchmarks/fuzz.py` writes results/fuzz.json.

    python benchmarks/fuzz.py                             every reader, ten minutes each
    python benchmarks/fuzz.py recipe --seconds 60 --seed 1
    python benchmarks/fuzz.py recipe --replay 1234        one input again, with its traceback

Each input comes from the seed and its number alone. It must be accepted, or refused with one AdaptkitError; any other
exception, ten seconds without an answer, and a process that dies or wants over 4 GB are failures.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

from fuzzing.running import READERS, fuzz, tally
from machine import RESULTS, machine

FILE = RESULTS / "fuzz.json"


def main() -> None:
    """Fuzz, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=int)
    arguments = parser.parse_args()
    for name in arguments.readers or READERS:
        if arguments.replay is not None:
            with tempfile.TemporaryDirectory() as folder:
                READERS[name](Path(folder))(random.Random(f"{arguments.seed} {arguments.replay}"))
            continue
        inputs = fuzz(name, arguments.seed, arguments.seconds)
        found = tally(inputs, lambda line, name=name: print(f"{name} {line}", flush=True))
        record(name, {"seed": arguments.seed, "seconds": arguments.seconds, **found, "machine": machine()})
        print(name, {key: value for key, value in found.items() if key != "wrong"}, flush=True)


def record(name: str, figures: dict[str, object]) -> None:
    """Write what one reader gave; what others gave stays."""
    known = json.loads(FILE.read_text()) if FILE.is_file() else {}
    RESULTS.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(known | {name: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
