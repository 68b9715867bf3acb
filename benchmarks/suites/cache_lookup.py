"""Looking a key up, as a result cache does it at every request: one key at a time, one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adaptkit.conditional.cache_fit import key_maker
from adaptkit.conditional.keys import centres
from adaptkit.conditional.result_cache import ResultCache
from adaptkit.runtime.session import open_session
from benchmarks.harness.data import digits, everything, photographs
from benchmarks.harness.suite import Found, Place, Suite, Verdict, outcome
from benchmarks.harness.turns import ratio, turns
from benchmarks.suites.indexes import MAKERS, Array, Face, Needs, indexes

DIMENSIONS, BATCH, PROBES = 32, 50, 2
SIZES = {"smoke": (500, 1_000), "nightly": (1_000, 10_000, 100_000)}
LISTS = {"smoke": 32, "nightly": 512}
QUERIES = {"smoke": 100, "nightly": 1_000}
ROUNDS = {"smoke": 3, "nightly": 20}


def run(place: Place) -> Found:
    """Fill every index with the same keys in the same order, and send it the same queries."""
    sizes = SIZES[place.size]
    keys = _keys(place)
    middle = centres(torch.from_numpy(keys.stored[:20_000]), LISTS[place.size], place.seed).numpy()
    measured = {str(size): _measure(place, keys, size, middle) for size in sizes}
    return {
        "keys": measured, "dimensions": DIMENSIONS, "lists": len(middle), "probes": PROBES,
        "queries": QUERIES[place.size],
    }  # fmt: skip


@dataclass(frozen=True)
class _Keys:
    """What is stored, and what is asked for: images of the smallest store that come again, and others."""

    stored: Array
    repeats: Array
    strangers: Array


def _keys(place: Place) -> _Keys:
    """Make keys of images as a cache does; each image comes changed, and as often as keys are needed."""
    data = digits(place) if place.smoke else photographs(place)
    settings, rng = ResultCache(dimensions=DIMENSIONS), np.random.default_rng(place.seed)
    images, asked = everything(data.train)[0], everything(data.test)[0]
    maker = key_maker(settings, everything(data.calibration)[0], rng)
    session = open_session(maker.onnx(tuple(data.sample_shape)).SerializeToString(), 1)

    def keys(x: torch.Tensor, many: int) -> Array:
        drawn = [settings.perturbations.apply(part, rng) for part in torch.split(x[torch.arange(many) % len(x)], 1000)]
        return np.concatenate([session.run(None, {"input": part.numpy()})[0] for part in drawn])

    sizes, half = SIZES[place.size], QUERIES[place.size] // 2
    return _Keys(keys(images, max(sizes)), keys(images[: min(sizes)], half), keys(asked, half))


def _measure(place: Place, keys: _Keys, size: int, middle: Array) -> Found:
    stored = keys.stored[:size]
    faces = indexes(place.peers, Needs(len(stored), DIMENSIONS, middle, PROBES))
    built = turns({name: _filler(face, stored) for name, face in faces.items()}, rounds=1, warm_up=0)
    queries = np.random.default_rng(place.seed).permutation(np.concatenate([keys.repeats, keys.strangers]))
    parts = np.array_split(queries, max(1, len(queries) // BATCH))
    times = turns({name: _seeker(face, parts) for name, face in faces.items()}, rounds=ROUNDS[place.size])
    return {name: {
        "recall": _recall(face, stored, keys.repeats),
        "recall_of_strangers": _recall(face, stored, keys.strangers),
        "exact": face.exact,
        "search_us": 1e6 * float(np.median(times[name])) / len(parts[0]),
        "add_us": 1e6 * built[name][0] / len(stored),
        "slower_than_exact": ratio(times, name, "adaptkit, exact"),
    } for name, face in faces.items()}  # fmt: skip


def _filler(face: Face, keys: Array) -> Callable[[], None]:
    def fill() -> None:
        for slot, key in enumerate(keys):
            face.add(slot, key)

    return fill


def _seeker(face: Face, parts: list[Array]) -> Callable[[], None]:
    """Search for another part of the queries each time."""
    turn = iter(range(10**9))

    def seek() -> None:
        for key in parts[next(turn) % len(parts)]:
            face.search(key)

    return seek


def _recall(face: Face, stored: Array, queries: Array) -> float:
    """Give the share of queries whose nearest key is found; one as near as the nearest counts."""
    best = (queries @ stored.T).max(1)
    slots = np.array([face.search(key) for key in queries])
    found = (queries * stored[slots]).sum(1)
    return float(((found >= best - 1e-6) & (slots >= 0)).mean())


def table(figures: Found) -> str:
    """One row for each index."""
    sizes = list(figures["keys"])
    rows = ["| index | " + " | ".join(f"{int(size):,} keys: search; recall; add" for size in sizes) + " |"]
    rows.append("|---" * (len(sizes) + 1) + "|")
    for name in figures["keys"][sizes[0]]:
        cells = [_cell(figures["keys"][size][name]) for size in sizes]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([
        *rows,
        "",
        f"Median time of the process for one search and mean for one insertion, one key at a time, called from Python; "
        f"recall: the share of {figures['queries'] // 2:,} stored images that come again, changed, whose nearest key "
        f"is found, then that of as many other images, which a cache does not answer. Lists: {figures['lists']}, "
        f"{figures['probes']} looked into, the same centres for everybody. Adaptkit's searches also find the nearest "
        "key with another answer, which the others' do not. usearch searches its graph's keys for *exact*, so that "
        "adding counts once.",
    ])  # fmt: skip


def _cell(found: Found) -> str:
    added = f"; {found['add_us']:.1f} µs" if found["add_us"] >= 0.2 else ""
    recall, strangers = (100 * found[key] for key in ("recall", "recall_of_strangers"))
    return f"{found['search_us']:.1f} µs; {recall:.1f} % and {strangers:.1f} %{added}"


def verdicts(figures: Found) -> list[Verdict]:
    """Compare the fastest exact search and the fastest approximate one, at every size."""
    return [
        verdict
        for size, found in figures["keys"].items()
        for exact in (True, False)
        if (verdict := _verdict(f"{int(size):,}", found, exact)) is not None
    ]


def _verdict(size: str, found: dict[str, Any], exact: bool) -> Verdict | None:
    ours = found["adaptkit, exact" if exact else "adaptkit, lists"]
    others = {
        name: other
        for name, other in found.items()
        if not name.startswith("adaptkit") and other["exact"] == exact and other["recall"] >= ours["recall"] - 0.01
    }
    if not others:
        return None
    name = min(others, key=lambda each: others[each]["search_us"])
    theirs = others[name]
    kind = "exact" if exact else f"approximate, recall of repeats ≥ {100 * ours['recall'] - 1:.0f} %"
    return Verdict(
        f"look-up among {size} keys, {kind}",
        f"{ours['search_us']:.1f} µs",
        f"{theirs['search_us']:.1f} µs",
        name,
        outcome(ours["search_us"], theirs["search_us"], lower_is_better=True),
    )


SUITE = Suite(
    about="Result cache: one look-up among 1,000 to 100,000 keys, exact and approximate",
    run=run, table=table, verdicts=verdicts, peers=tuple(MAKERS), minutes=5,
)  # fmt: skip
