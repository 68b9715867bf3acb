from pathlib import Path

import pytest
from pydantic import BaseModel

from adaptkit.conditionals import CONDITIONALS
from adaptkit.metrics import METRICS
from adaptkit.report.schema import (
    Bandwidth,
    Bin,
    Certificate,
    CertifiedPath,
    Contender,
    Figures,
    Gate,
    Layer,
    LayerFigures,
    Machine,
    MetricValue,
    Network,
    PairedAccuracy,
    PathFigures,
    Paths,
    Percentiles,
    Profile,
    Ratio,
    Report,
    SideBySide,
    Step,
)
from adaptkit.studies import STUDIES
from adaptkit.techniques import TECHNIQUES
from scripts.docs_tables import on_page_markdown

RECORDS = [
    Bin, Certificate, CertifiedPath, Figures, Gate, Layer, MetricValue, PathFigures, Paths, Percentiles, Ratio, Report,
    Step,
]  # fmt: skip
MEASURED = [Bandwidth, Contender, LayerFigures, Machine, Network, PairedAccuracy, Profile, SideBySide]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_the_report_is_explained(record: type[BaseModel]):
    page = (ROOT / "docs" / "report.md").read_text()
    assert [name for name in record.model_fields if f"`{name}`" not in page] == []


def test_every_metric_is_explained():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("record", MEASURED)
def test_every_field_of_what_is_measured_is_explained(record: type[BaseModel]):
    page = (ROOT / "docs" / "cli.md").read_text()
    known = Figures.model_fields if issubclass(record, Figures) else {}
    assert [name for name in record.model_fields if name not in known and f"`{name}`" not in page] == []


@pytest.mark.parametrize("mark", ["techniques", "conditional", "studies"])
def test_everything_in_a_table_gets_its_section(mark: str):
    page = on_page_markdown(f"<!-- {mark} -->")
    for name, kind in {"techniques": TECHNIQUES, "conditional": CONDITIONALS, "studies": STUDIES}[mark].items():
        assert f"## `{name}`\n" in page
        assert f"::: {kind.__module__}.{kind.__name__}\n" in page
