from pathlib import Path

import pytest
from pydantic import BaseModel

from adaptkit.report.schema import Certificate, Figures, Gate, Layer, Percentiles, Ratio, Report, Step
from adaptkit.techniques import TECHNIQUES
from scripts.docs_tables import technique_sections

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("record", [Certificate, Figures, Gate, Layer, Percentiles, Ratio, Report, Step])
def test_every_field_of_the_report_is_explained(record: type[BaseModel]):
    page = (ROOT / "docs" / "report.md").read_text()
    assert [name for name in record.model_fields if f"`{name}`" not in page] == []


def test_every_technique_gets_its_section():
    sections = technique_sections()
    for name, technique in TECHNIQUES.items():
        assert f"## `{name}`\n" in sections
        assert f"::: {technique.__module__}.{technique.__name__}\n" in sections
