"""What the poller counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relaymgr.poll.poller import PollCounters


class PollCollector(Collector):
    """Reads the counters when somebody scrapes."""

    def __init__(self, counters: PollCounters, backlog: Callable[[], int]) -> None:
        """`backlog` tells the polls not written to the database yet."""
        self._counters = counters
        self._backlog = backlog

    def register(self, registry: CollectorRegistry) -> None:
        """Show up in `registry`."""
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Every metric of the poller."""
        counters = self._counters
        for name, text, value in (
            ("started", "Polls begun", counters.started),
            ("succeeded", "Polls that read the relay", counters.succeeded),
            ("on_time", "Polls that read the relay within one interval of being due", counters.on_time),
            ("missed", "Polls left out because the one before was not over", counters.missed),
            ("skipped", "Polls left out because a job had the device or its circuit was open", counters.skipped),
            ("seconds", "Seconds that the succeeded polls took, together", counters.seconds),
        ):
            yield CounterMetricFamily(f"relaymgr_polls_{name}", text, value=value)
        failures = CounterMetricFamily("relaymgr_polls_failed", "Polls that failed, by error code", labels=["code"])
        for code, count in sorted(counters.failures.items()):
            failures.add_metric([code], count)
        yield failures
        yield GaugeMetricFamily("relaymgr_polls_running", "Polls under way", value=counters.running)
        yield GaugeMetricFamily("relaymgr_polls_unwritten", "Polls not in the database yet", value=self._backlog())
