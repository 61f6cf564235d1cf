"""The metrics in the forms that Prometheus reads, through prometheus_client."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from poolsrv.between.scoreboard import BOUNDS, Kind
from poolsrv.exporter.metrics import METRICS, Histogram, Metric
from poolsrv.exporter.reading import Reading, seconds

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# prometheus_client gives it no types.
_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest

_BOUNDS = (*(str(seconds(bound)) for bound in BOUNDS), "+Inf")


class PoolCollector(Collector):
    """Takes a reading for every scrape and keeps nothing."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def describe(self) -> list[Family]:
        """Nothing: else a registry takes a reading just to learn the names."""
        return []

    def collect(self) -> Iterator[Family]:
        reading = self._read()
        return (_family(metric, reading) for metric in METRICS)


def _family(metric: Metric, reading: Reading) -> Family:
    names, samples = metric.series(reading)
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=names, unit=metric.unit)
        for labels, value in samples:
            assert isinstance(value, Histogram)
            histogram.add_metric(labels, list(zip(_BOUNDS, value.counts, strict=True)), value.sum)
        return histogram
    form = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = form(metric.name, metric.help, labels=names, unit=metric.unit)
    for labels, value in samples:
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family


def encode(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """A scrape and its content type, in the form that an Accept field asks for.

    Chosen here and not by prometheus_client, which parses the client's version
    and raises TypeError for one that it cannot read.
    """
    for choice in accept.split(","):
        media, *parameters = (part.strip().lower() for part in choice.split(";"))
        if media == "application/openmetrics-text" and _wants_1_0(parameters):
            return _openmetrics(registry), OPENMETRICS
    return exposition.generate_latest(registry), TEXT


def _wants_1_0(parameters: list[str]) -> bool:
    versions = [p.removeprefix("version=") for p in parameters if p.startswith("version=")]
    return versions in ([], ["1.0.0"], ["0.0.1"])
