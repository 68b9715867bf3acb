"""A few seconds of what `benchmarks/fuzz.py` does for half an hour, and its own judgement."""

import multiprocessing

import pytest

from adaptkit.errors import ModelError
from benchmarks.fuzzing.running import READERS, Outcome, _asked, outcome, tally


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTKIT_DATA", "")  # the reader of recipes sets it, and this puts it back
        yield {name: make(tmp_path_factory.mktemp(name)) for name, make in READERS.items()}


@pytest.mark.parametrize(("name", "count"), [("recipe", 60), ("manifest", 150), ("onnx", 150)])
def test_whatever_is_read_is_accepted_or_refused_in_words(readers, name, count):
    found = [outcome(readers[name], 1, number) for number in range(count)]
    assert [(number, each) for number, each in enumerate(found) if not each.good] == []
    assert {each.kind for each in found} == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (None, "accepted", ""),
        (ModelError("export it again"), "refused", "export it again"),
        (ModelError(" "), "failed", "an error without a message"),
        (KeyError("name"), "failed", "KeyError: 'name'"),
        (MemoryError(), "failed", "MemoryError"),
    ],
)
def test_what_counts_as_a_failure(error, kind, message):
    def reader(_):
        if error is not None:
            raise error

    found = outcome(reader, 0, 0)
    assert found.kind == kind
    assert found.message.startswith(message)


def test_the_same_number_gives_the_same_input():
    seen = []
    for _ in range(2):
        outcome(lambda rng: seen.append(rng.random()), 3, 7)
    outcome(lambda rng: seen.append(rng.random()), 3, 8)
    assert seen[0] == seen[1] != seen[2]


def test_no_answer_is_a_hang_and_no_process_a_death():
    here, there = multiprocessing.Pipe()
    assert _asked(here, 0, 0.01).kind == "hung"
    there.close()
    assert _asked(here, 1, 0.01).kind == "died"


def test_a_tally_keeps_one_number_of_each_failure():
    shown = []
    outcomes = [Outcome("accepted"), Outcome("failed", "a"), Outcome("failed", "a"), Outcome("hung", "b")]
    found = tally(iter(enumerate(outcomes)), shown.append)
    assert (found["inputs"], found["accepted"], found["failed"], found["hung"]) == (4, 1, 2, 1)
    assert found["wrong"] == [
        {"what": "failed: a", "times": 2, "first": 1},
        {"what": "hung: b", "times": 1, "first": 3},
    ]
    assert shown == ["1: failed: a", "3: hung: b"]
