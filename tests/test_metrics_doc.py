"""METRICS.md says what the code exports."""

from pathlib import Path

import pytest
from promql_parser import parse

from poolsrv.exporter.metrics import METRICS, Metric
from poolsrv.exporter.reference import QUESTIONS, reference

pytestmark = pytest.mark.once

DOCUMENT = Path(__file__).parent.parent / "METRICS.md"


def test_the_committed_reference_is_current() -> None:
    assert DOCUMENT.read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_described_once(metric: Metric) -> None:
    assert reference().count(f"| `{metric.name}` |") == 1


@pytest.mark.parametrize("query", [query for _, query in QUESTIONS])
def test_the_queries_are_promql(query: str) -> None:
    parse(query)
