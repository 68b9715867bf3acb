import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["library.md", "privacy-robustness.md"])
def test_the_page_runs_as_it_stands(page):
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert tried > 20
    assert failed == 0
