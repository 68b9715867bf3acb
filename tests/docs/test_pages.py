from pathlib import Path

import pytest
from pydantic import BaseModel

from adaptkit.conditionals import CONDITIONALS
from adaptkit.metrics import METRICS
from adaptkit.report.schema import (
    Bin,
    Certificate,
    CertifiedPath,
    Figures,
    Gate,
    Layer,
    MetricValue,
    PathFigures,
    Paths,
    Percentiles,
    Ratio,
    Report,
    Step,
)
from adaptkit.techniques import TECHNIQUES
from scripts.docs_tables import on_page_markdown

RECORDS = [
    Bin, Certificate, CertifiedPath, Figures, Gate, Layer, MetricValue, PathFigures, Paths, Percentiles, Ratio, Report,
    Step,
]  # fmt: skip
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_the_report_is_explained(record: type[BaseModel]):
    page = (ROOT / "docs" / "report.md").read_text()
    assert [name for name in record.model_fields if f"`{name}`" not in page] == []


def test_every_metric_is_explained():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("mark", ["techniques", "conditional"])
def test_everything_in_a_table_gets_its_section(mark: str):
    page = on_page_markdown(f"<!-- {mark} -->")
    for name, kind in {"techniques": TECHNIQUES, "conditional": CONDITIONALS}[mark].items():
        assert f"## `{name}`\n" in page
        assert f"::: {kind.__module__}.{kind.__name__}\n" in page
