import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "least"), [("library.md", 20), ("metrics.md", 12)])
def test_the_page_runs_as_it_stands(page, least):
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert tried > least
    assert failed == 0
