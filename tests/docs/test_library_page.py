import doctest
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_runs_as_it_stands():
    failed, tried = doctest.testfile(str(DOCS / "library.md"), module_relative=False)
    assert tried > 20
    assert failed == 0
