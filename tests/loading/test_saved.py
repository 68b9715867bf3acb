"""Saved models that are damaged: one clear error, whatever the damage."""

import json

import pytest
import torch

from adaptkit.errors import ModelError
from adaptkit.loading.saved import STRUCTURE, WEIGHTS, load
from benchmarks.fuzzing import artifacts


@pytest.fixture
def folder(tmp_path):
    artifacts.saved(tmp_path)
    return tmp_path


def test_what_was_saved_is_loaded(folder):
    model = load(artifacts.saved_network, folder)
    assert model(torch.zeros(2, 4)).shape == (2, 3)
    assert model[0][0].weight.shape == (2, 4)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_a_structure_that_is_no_json(folder, content):
    (folder / STRUCTURE).write_bytes(content)
    with pytest.raises(ModelError, match=r"structure\.json or model\.safetensors is damaged .*; run the recipe again"):
        load(artifacts.saved_network, folder)


def without(key):
    return lambda entry: entry.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("class"), "is damaged.*KeyError: 'class'"),
        (without("arguments"), "is damaged.*KeyError: 'arguments'"),
        (lambda entry: entry.update(arguments=3), "is damaged.*TypeError: .*must be a mapping"),
        (lambda entry: entry.update({"class": "torch.nn.nothing.Linear"}), "is damaged.*ModuleNotFoundError"),
        (lambda entry: entry.update({"class": "os.system"}), "neither of torch.nn nor of adaptkit: not loaded"),
        (lambda entry: entry["inside"].update(removed=3), "is damaged.*TypeError"),
        (lambda entry: entry["inside"].pop("tensors"), "is damaged.*KeyError: 'tensors'"),
    ],
)
def test_a_structure_with_a_part_that_is_wrong(folder, change, message):
    structure = json.loads((folder / STRUCTURE).read_text())
    change(structure["replaced"]["0"])
    (folder / STRUCTURE).write_text(json.dumps(structure))
    with pytest.raises(ModelError, match=message):
        load(artifacts.saved_network, folder)


def test_weights_that_are_cut_off(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(ModelError, match="is damaged"):
        load(artifacts.saved_network, folder)
