"""The parts of a result cache against slow references: orders, indexes, the store, the file."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from adaptkit.errors import DataError, RunFolderError
from adaptkit.runtime.cache_file import read_entries, write_entries
from adaptkit.runtime.cache_index import NOTHING, BitIndex, ExactIndex, ListIndex, best_two, nearest
from adaptkit.runtime.cache_order import LeastFrequent, LeastRecent
from adaptkit.runtime.cache_store import Store, runs_to_trust, trusted

STEPS = st.lists(st.tuples(st.sampled_from(["add", "touch", "remove", "victim"]), st.integers(0, 9)), max_size=80)


@pytest.mark.parametrize("kind", [LeastRecent, LeastFrequent])
@given(steps=STEPS)
def test_orders_give_up_what_a_full_search_finds(kind, steps):
    order, seen = kind(), {}
    for now, (step, slot) in enumerate(steps):
        if step == "add" and slot not in seen:
            order.add(slot)
            seen[slot] = (0, now)
        elif step == "touch" and slot in seen:
            order.touch(slot)
            seen[slot] = (seen[slot][0] + 1, now)
        elif step == "remove" and slot in seen:
            order.remove(slot)
            del seen[slot]
        wanted = sorted(seen, key=lambda s: seen[s] if kind is LeastFrequent else seen[s][1])
        assert order.slots() == wanted
        assert [order.uses(s) for s in wanted] == [seen[s][0] for s in wanted]
        assert not wanted or order.victim() == wanted[0]


def unit(rng, count, dimensions=4):
    keys = rng.standard_normal((count, dimensions)).astype(np.float32)
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def brute_force(stored, query, distance):
    """Slot, distance, and distance to the nearest of another label; stored maps slots to keys and labels."""
    found = sorted((distance(query, key), slot, label) for slot, (key, label) in stored.items())
    if not found:
        return NOTHING, np.inf, np.inf
    nearest, slot, label = found[0]
    return slot, nearest, min((d for d, _, other in found if other != label), default=np.inf)


def cosine(a, b):
    return 1 - sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def bits(a, b):
    return bin(int(a) ^ int(b)).count("1")


@pytest.mark.parametrize("kind", ["exact", "bits", "lists", "one list of two"])
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 11), st.integers(0, 2)), max_size=60),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_indexes_find_what_a_loop_finds(kind, steps, seed):
    rng = np.random.default_rng(seed)
    centres = unit(rng, 2 if kind == "one list of two" else 5)
    index = {
        "exact": lambda: ExactIndex(12, 4),
        "bits": lambda: BitIndex(12),
        "lists": lambda: ListIndex(12, centres, 5),
        "one list of two": lambda: ListIndex(12, centres, 1),
    }[kind]()
    stored = {}
    for add, slot, label in steps:
        if add and slot not in stored:
            key = rng.integers(0, 2**64, dtype=np.uint64) if kind == "bits" else unit(rng, 1)[0]
            index.add(slot, key, label)
            stored[slot] = key, label
        elif not add and slot in stored:
            index.remove(slot)
            del stored[slot]
    queries = rng.integers(0, 2**64, 6, np.uint64) if kind == "bits" else unit(rng, 6)
    found = nearest(index, queries)
    for row, query in enumerate(queries):
        seen = stored
        if kind == "one list of two":
            place = (centres @ query).argmax()
            seen = {s: entry for s, entry in stored.items() if (centres @ entry[0]).argmax() == place}
        slot, distance, other = brute_force(seen, query, bits if kind == "bits" else cosine)
        if distance > 1 and kind == "exact":  # as far as a free slot, and never a hit
            continue
        assert found.distances[row] == pytest.approx(distance, abs=1e-5)
        if kind != "bits":  # bits have ties, of which any will do
            assert found.slots[row] == slot
            assert other > 1 or found.others[row] == pytest.approx(other, abs=1e-5)
        elif slot != NOTHING:
            assert bits(query, stored[int(found.slots[row])][0]) == distance
    slots = np.array(sorted(stored), np.int64)
    assert np.array_equal(
        index.keys_of(slots), np.array([stored[s][0] for s in slots.tolist()]).reshape(index.keys_of(slots).shape)
    )


@given(
    cosines=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60),
    labels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_best_two_are_those_of_a_sort(cosines, labels, seed):
    """With one label, or few others, the largest ones all have one, and all labels are looked at."""
    given_labels = np.random.default_rng(seed).integers(0, labels, len(cosines)) // 2
    place, largest, other = best_two(np.array(cosines, np.float32), given_labels.item, lambda: given_labels)
    assert place == cosines.index(max(cosines))
    assert largest == max(cosines)
    others = [c for c, label in zip(cosines, given_labels, strict=True) if label != given_labels[place]]
    assert other == max(others, default=-np.inf)


def test_keys_in_several_blocks():
    rng, dimensions, count = np.random.default_rng(0), 8192, 60
    keys, index = unit(rng, count, dimensions), ExactIndex(count, dimensions)
    for slot in rng.permutation(count).tolist():
        index.add(slot, keys[slot], slot % 2)
    found = index.search(keys)
    assert [each.slot for each in found] == list(range(count))
    cosines = keys @ keys.T
    for slot, each in enumerate(found):
        assert each.other == pytest.approx(1 - cosines[slot, (slot + 1) % 2 :: 2].max(), abs=1e-5)
    assert np.array_equal(index.keys_of(np.array([59, 0])), keys[[59, 0]])


def make(capacity=3, dimensions=4, clock=time.time, **settings):
    return Store(
        ExactIndex(capacity, dimensions), capacity, (2,), "float32", threshold=0.2, ratio=0.5, clock=clock, **settings
    )


def test_an_empty_store_finds_nothing():
    assert make().find(unit(np.random.default_rng(0), 3)) == [NOTHING] * 3


def test_keys_that_are_no_numbers_are_near_to_nothing():
    store = make()
    store.add(np.eye(4, dtype=np.float32)[0], np.array([1.0, 0.0]))
    assert store.find(np.full((1, 4), np.nan, np.float32)) == [NOTHING]


def test_an_entry_between_two_answers_does_not_answer():
    store, keys = make(), np.eye(4, dtype=np.float32)
    near = np.array([0.98, 0.199, 0, 0], np.float32)
    store.add(keys[0], np.array([1.0, 0.0]))
    assert store.find(near[None]) == [0]
    store.add(np.array([0.92, 0.392, 0, 0], np.float32), np.array([0.0, 1.0]))
    assert store.find(near[None]) == [NOTHING]


def test_a_full_store_gives_up_the_least_recent_or_the_least_frequent():
    keys = np.eye(4, dtype=np.float32)
    for eviction, left in (("lru", [True, False, True, True]), ("lfu", [True, True, False, True])):
        store = make(eviction=eviction)
        for key in keys[:3]:
            store.add(key, np.array([1.0, 0.0]))
        for slot in (1, 1, 2, 0, 0):
            assert store.find(keys[slot][None])[0] != NOTHING
        store.add(keys[3], np.array([1.0, 0.0]))
        assert store.evicted == 1
        assert [slot != NOTHING for slot in store.find(keys)] == left


def test_old_entries_are_not_served():
    now = [100.0]
    store, keys = make(clock=lambda: now[0], ttl_seconds=10), np.eye(4, dtype=np.float32)
    store.add(keys[0], np.array([1.0, 0.0]))
    now[0] = 105
    store.add(keys[1], np.array([1.0, 0.0]))
    now[0] = 111
    assert [slot != NOTHING for slot in store.find(keys)] == [False, True, False, False]
    assert (store.expired, len(store)) == (1, 1)


CAT, DOG = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_an_entry_that_is_gone_learns_nothing():
    store, keys = make(capacity=1), np.eye(4, dtype=np.float32)
    store.add(keys[0], CAT)
    serial = int(store.serials([0])[0])
    store.add(keys[1], CAT)
    store.learn(0, serial, keys[2], DOG, sure=True)
    assert store.find(keys[2][None]) == [0]
    assert store.answers([0])[0].tolist() == DOG.tolist()
    assert store.may_answer(0)


def test_an_unsure_answer_waits_until_it_is_trusted():
    store, key = make(trust=0.8), np.eye(4, dtype=np.float32)[0]
    store.learn(NOTHING, 0, key, CAT, sure=False)
    serial = int(store.serials([0])[0])
    for runs in range(1, 4):
        assert store.may_answer(0) == (runs >= runs_to_trust(0.8) == 3)
        store.learn(0, serial, key, CAT, sure=False)
    assert len(store) == 1


def test_a_sure_answer_that_was_wrong_waits_and_one_mostly_wrong_gives_way():
    store, key = make(trust=0.8), np.eye(4, dtype=np.float32)[0]
    store.add(key, CAT)
    serial = int(store.serials([0])[0])
    assert store.may_answer(0)
    store.learn(0, serial, key, DOG, sure=True)
    assert not store.may_answer(0)
    assert store.answers([0])[0].tolist() == CAT.tolist()
    store.learn(0, serial, key, DOG, sure=True)
    assert store.answers([0])[0].tolist() == DOG.tolist()
    assert store.may_answer(0)
    assert len(store) == 1
    assert not store.may_answer(NOTHING)


@given(agreed=st.integers(0, 60), missed=st.integers(0, 20), trust=st.floats(0.55, 0.99))
def test_trust_is_the_mean_of_the_posterior(agreed, missed, trust):
    mean = beta.mean(agreed + 1, missed + 1)
    if abs(mean - trust) > 1e-9:
        assert trusted(agreed, agreed + missed, trust) == (mean >= trust)


@pytest.mark.parametrize("eviction", ["lru", "lfu"])
@given(steps=st.lists(st.integers(0, 7), max_size=40))
@settings(max_examples=30)
def test_entries_come_back_as_they_were(eviction, steps, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "entries.cache"
    keys = unit(np.random.default_rng(0), 8, 16)
    store = make(5, 16, eviction=eviction)
    for step in steps:
        if store.find(keys[step][None])[0] == NOTHING:
            store.add(keys[step], np.array([float(step), -1.0]), sure=step % 2 == 0, runs=(3, 2))
    write_entries(path, "abcd", store.entries())
    again = make(5, 16, eviction=eviction)
    again.fill(read_entries(path, "abcd"))
    for name, array in store.entries().items():
        assert np.array_equal(array, again.entries()[name]), name
    slots = again.find(keys)
    assert [s != NOTHING for s in slots] == [s != NOTHING for s in store.find(keys)]
    assert [again.may_answer(s) for s in slots] == [store.may_answer(s) for s in store.find(keys)]
    for step, slot in enumerate(slots):
        assert slot == NOTHING or again.answers([slot])[0, 0] == step


ENTRIES = {"uses": np.arange(50), "answers": np.ones((50, 3), np.float32)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "is damaged"),
        (lambda b: b[:30], "is damaged"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "is damaged"),
        (lambda b: b"", "holds no entries"),
        (lambda b: b"PK" + b, "holds no entries"),
        (lambda b: b.replace(b"entries 2", b"entries 3"), "holds no entries"),
    ],
)
def test_a_damaged_file(tmp_path, damage, message):
    path = tmp_path / "entries.cache"
    write_entries(path, "ab", ENTRIES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        read_entries(path, "ab")


@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
@settings(max_examples=50)
def test_no_byte_can_change_unseen(place, flip, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "entries.cache"
    write_entries(path, "ab", ENTRIES)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= flip
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_entries(path, "ab")


def test_a_file_of_another_model_and_no_file(tmp_path):
    path = tmp_path / "entries.cache"
    write_entries(path, "ab", ENTRIES)
    with pytest.raises(DataError, match="answers of another model or another preprocessing"):
        read_entries(path, "cd")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_entries(tmp_path / "none", "ab")


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "entries.cache"
    write_entries(path, "ab", ENTRIES)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="the disk is full"):
        write_entries(path, "ab", {"uses": np.zeros(1)})
    assert read_entries(path, "ab")["uses"].tolist() == list(range(50))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from adaptkit.runtime.cache_file import write_entries
for number in range(10**9):
    write_entries(Path(sys.argv[1]), "ab", {"uses": np.full(400_000, number)})
    print(number, flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "entries.cache"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "0\n"
        parts = []
        while not parts:  # until it is in the middle of a file
            parts = list(tmp_path.glob(".entries.cache.*.part"))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    uses = read_entries(path, "ab")["uses"]
    assert len(uses) == 400_000
    assert len(np.unique(uses)) == 1
