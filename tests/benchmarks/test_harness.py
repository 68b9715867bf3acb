import json
import subprocess

import pytest
from click.testing import CliRunner

from benchmarks import pages
from benchmarks.__main__ import main
from benchmarks.harness import results, scripts
from benchmarks.harness.peers import PEERS, Peer, Peers
from benchmarks.harness.suite import NotHere, Place
from benchmarks.harness.turns import ratio, turns
from benchmarks.suites import SUITES


def place(tmp_path, size="smoke"):
    return Place(size, None, tmp_path, Peers())


def test_ways_take_turns_and_warm_up_is_not_counted():
    called = []
    times = turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=2, warm_up=1)
    assert called == ["a", "b"] * 3
    assert [len(each) for each in times.values()] == [2, 2]


def test_ratios_are_taken_within_a_turn():
    assert ratio({"a": [1.0, 30.0], "b": [1.0, 10.0]}, "a", "b")["median"] == 2.0


def test_a_peer_that_is_not_installed_is_named_with_the_reason(monkeypatch):
    monkeypatch.setitem(PEERS, "no-such-peer", Peer("no-such-peer", "no_such_peer", ("no-such-peer",)))
    peers = Peers()
    assert peers.module("no-such-peer") is None
    assert "adaptkit[bench]" in peers.found["no-such-peer"]["missing"]


def test_a_peer_that_stands_apart_is_not_made_unless_asked_for(tmp_path):
    peers = Peers()
    assert peers.python("nncf") is None
    assert "--peers-env" in peers.found["nncf"]["missing"]


def test_an_environment_that_cannot_be_made_gives_the_reason_of_pip(tmp_path, monkeypatch):
    def fails(folder, peer):
        raise subprocess.CalledProcessError(1, "pip", stderr="noise\nERROR: No matching distribution found\nhint\n")

    monkeypatch.setattr("benchmarks.harness.peers._make", fails)
    peers = Peers(tmp_path)
    assert peers.python("nncf") is None
    assert peers.found["nncf"]["missing"].endswith("ERROR: No matching distribution found")


def test_results_carry_where_they_come_from(tmp_path):
    path = results.write(place(tmp_path), "cache_lookup", {"answer": 42}, 1.23)
    found = json.loads(path.read_text())
    assert found["figures"] == {"answer": 42}
    assert found["machine"]["commit"]
    assert {"torch", "onnxruntime"} <= set(found["versions"])
    assert (found["size"], found["threads"], found["seconds"]) == ("smoke", 1, 1.2)


def test_a_night_has_three_hours():
    suites = sum(suite.minutes for suite in SUITES.values())
    alone = sum(each.minutes for each in scripts.SCRIPTS.values() if each.nightly is not None)
    assert 0 < suites + alone <= 180


def test_a_nightly_suite_without_data_says_what_it_needs(tmp_path):
    answer = CliRunner().invoke(main, ["run", "cache_lookup", "--results", str(tmp_path)], env={"ADAPTKIT_DATA": ""})
    assert answer.exit_code == 1
    assert "needs ADAPTKIT_DATA or --data" in answer.output
    assert list(tmp_path.iterdir()) == []


def test_unknown_suites_are_refused():
    answer = CliRunner().invoke(main, ["run", "prunning"])
    assert answer.exit_code == 2
    assert "no suite is called prunning; there are pruning" in answer.output


def test_every_suite_and_script_is_listed():
    answer = CliRunner().invoke(main, ["list"])
    assert all(name in answer.output for name in [*SUITES, *scripts.SCRIPTS])


@pytest.mark.parametrize("script", scripts.SCRIPTS.values(), ids=lambda script: script.file)
def test_scripts_are_there(script):
    assert (scripts.FOLDER / script.file).is_file()


def test_a_script_without_a_smoke_size_says_so(tmp_path):
    with pytest.raises(NotHere, match=r"selector\.py has no smoke size"):
        scripts.run_script(scripts.SCRIPTS["selector"], place(tmp_path), {})


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_suites_name_peers_that_are_known(suite):
    assert set(suite.peers) <= set(PEERS)


def test_pages_are_what_the_results_say():
    stale = [path.name for path, text in pages.pages().items() if path.read_text() != text]
    assert stale == [], "run python -m benchmarks tables"


def test_losses_and_missing_peers_are_shown(tmp_path):
    figures = {"keys": {"10": {
        "adaptkit, exact": {"exact": True, "recall": 1.0, "recall_of_strangers": 1.0, "search_us": 9.0, "add_us": 1.0},
        "adaptkit, lists": {"exact": False, "recall": 1.0, "recall_of_strangers": 1.0, "search_us": 9.0, "add_us": 1.0},
        "faiss, exact": {"exact": True, "recall": 1.0, "recall_of_strangers": 1.0, "search_us": 3.0, "add_us": 1.0},
    }}, "lists": 1, "probes": 1, "queries": 5}  # fmt: skip
    given = place(tmp_path)
    given.peers.found["faiss-cpu"] = {"version": "1"}
    given.peers.found["usearch"] = {"missing": "does not build"}
    results.write(given, "cache_lookup", figures, 1.0)
    page = pages.readme(tmp_path)
    assert "| 9.0 µs | 3.0 µs (faiss, exact) | **worse** |" in page
    assert "| cache_lookup | usearch | – | does not build | – |" in page
    assert "| cache_lookup | hnswlib | – | was not asked for | – |" in page
