"""Fixtures shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# Here already, since fixtures of a module run before those of a test: sums over two threads have other last bits.
torch.set_num_threads(1)

# A test that fails when the machine is busy says nothing about the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder with the shared data and weights; the test is skipped where it is absent."""
    folder = os.environ.get("ADAPTKIT_DATA", "")
    if not folder or not Path(folder, "data").is_dir():
        pytest.skip("ADAPTKIT_DATA does not name a folder with data/ and weights/")
    return Path(folder)
