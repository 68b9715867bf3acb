import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from adaptkit.training.checkpoint import CHECKPOINT

SCRIPT = Path(__file__).with_name("killed_fit.py")


def steps_done(workspace: Path) -> int:
    path = workspace / CHECKPOINT
    return torch.load(path, weights_only=True)["step"] if path.exists() else 0


def start(workspace: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, SCRIPT, workspace], stdout=subprocess.PIPE, text=True)


def output_of(workspace: Path) -> str:
    with start(workspace) as process:
        return process.communicate(timeout=300)[0]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_bits(tmp_path):
    """SIGKILL once the checkpoint has moved on by so many steps; the moment within the step is the machine's."""
    undisturbed = output_of(tmp_path / "whole")
    killed_at = []
    for more in (1, 12, 25):
        with start(tmp_path / "killed") as process:
            goal = steps_done(tmp_path / "killed") + more
            while steps_done(tmp_path / "killed") < goal:
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        killed_at.append(steps_done(tmp_path / "killed"))
    resumed = output_of(tmp_path / "killed")
    assert len(undisturbed) == 64
    assert resumed == undisturbed
    assert 0 < killed_at[0] < killed_at[1] < killed_at[2] < steps_done(tmp_path / "killed")
