"""A command line to call, and recipes that do not change with the real techniques."""

import pytest
from click.testing import CliRunner, Result

from adaptkit import techniques
from adaptkit_cli.main import main
from tests.reading.fake_techniques import FAKES

RECIPE = """\
version: 1
name: tiny
model: {zoo: lenet5_digits}
data: {digits: true}
steps:
  - prune.fake: {macs: 0.5}
"""


@pytest.fixture
def run():
    """Run `adaptkit` with some arguments."""

    def call(*args: str) -> Result:
        return CliRunner().invoke(main, list(args), prog_name="adaptkit", terminal_width=80)

    return call


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The name of a recipe file in the current folder, of fake techniques."""
    monkeypatch.setattr(techniques, "TECHNIQUES", FAKES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return "tiny.yaml"
