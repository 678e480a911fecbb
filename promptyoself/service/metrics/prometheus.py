"""Measurements as a Prometheus reads them: the text format, by its own library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from promptyoself.service.metrics.catalogue import METRICS
from promptyoself.service.metrics.collect import Histogram, Measurements
from promptyoself.service.metrics.log_counts import BUCKETS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def require_library() -> None:
    """Raise ``missing_package`` where the library isn't installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        from promptyoself.core.errors import missing_package

        raise missing_package("Metrics need", "metrics") from None


def render(measurements: Measurements) -> bytes:
    """The measurements as text.

    The order is that of :data:`~promptyoself.service.metrics.catalogue.METRICS`.

    Raises:
        PromptyoselfError: ``missing_package``.
        ValueError: one isn't in that list.
    """
    require_library()
    from prometheus_client import CollectorRegistry, generate_latest

    class Collected:
        def collect(self) -> Iterable[Metric]:
            for name in sorted(measurements, key=list(METRICS).index):
                yield _family(name, measurements[name])

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    text: bytes = generate_latest(registry)
    return text


def _family(name: str, values: list[tuple[tuple[str, ...], Any]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    metric = METRICS[name]
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, value in values:
            assert isinstance(value, Histogram)
            bounds = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric(
                labels, list(zip(bounds, value.cumulative, strict=True)), value.sum
            )
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family
