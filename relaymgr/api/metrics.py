"""Metrics for Prometheus: requests as they happen, jobs and relays as the database has them when asked."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select

from relaymgr.api.services import Services
from relaymgr.store.tables import Job, Relay

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATES = ("queued", "running", "succeeded", "failed", "rolled_back", "cancelled", "uncertain")
_REACHABILITY = ("unknown", "reachable", "unreachable")


class RequestMetrics:
    """Counts requests; given to the `Boundary`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ["method", "route", "status"]
        self._requests = Counter("relaymgr_api_requests", "Requests answered", names, registry=registry)
        self._seconds = Histogram(
            "relaymgr_api_request_seconds",
            "Seconds from the request to the end of its answer",
            ["method", "route"],
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60),
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        if method not in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}:
            method = "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class StateMetrics:
    """Gauges of what the database holds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge("relaymgr_jobs", "Jobs in each state", ["state"], registry=registry)
        self._relays = Gauge("relaymgr_relays", "Relays by reachability", ["reachability"], registry=registry)
        self._late = Gauge(
            "relaymgr_relays_poll_late", "Enabled relays without a good poll for three intervals", registry=registry
        )
        self._tunnels = Gauge("relaymgr_tunnels", "Tunnels at the last poll of each relay, added up", registry=registry)
        self._poll_seconds = Gauge("relaymgr_poll_seconds_mean", "Mean of what the last polls took", registry=registry)
        self._drifted = Gauge("relaymgr_relays_drifted", "Relays known to have drifted", registry=registry)
        self._windows = Gauge("relaymgr_confirm_windows", "Changes that wait for their confirmation", registry=registry)

    async def read(self, services: Services) -> None:
        """Ask the database."""
        async with services.database.session() as session:
            jobs = dict((await session.execute(select(Job.state, func.count()).group_by(Job.state))).tuples().all())
            relays = (
                await session.execute(
                    select(
                        Relay.reachability,
                        Relay.enabled,
                        Relay.polled_at,
                        Relay.poll_interval_seconds,
                        Relay.poll_seconds,
                        Relay.active_tunnels,
                        Relay.drift_state,
                        Relay.window_job_id,
                    )
                )
            ).all()
        now = services.clock()
        for state in _STATES:
            self._jobs.labels(state).set(jobs.get(state, 0))
        for reachability in _REACHABILITY:
            self._relays.labels(reachability).set(sum(row.reachability == reachability for row in relays))
        late = (row.enabled and _late(row.polled_at, row.poll_interval_seconds, now) for row in relays)
        self._late.set(sum(late))
        self._tunnels.set(sum(row.active_tunnels or 0 for row in relays))
        seconds = [row.poll_seconds for row in relays if row.poll_seconds is not None]
        self._poll_seconds.set(sum(seconds) / len(seconds) if seconds else float("nan"))
        self._drifted.set(sum(row.drift_state == "drifted" for row in relays))
        self._windows.set(sum(row.window_job_id is not None for row in relays))


def _late(polled_at: datetime | None, interval: int, now: datetime) -> bool:
    return polled_at is None or (now - polled_at).total_seconds() > 3 * interval


def text(registry: CollectorRegistry) -> bytes:
    """Everything registered, as Prometheus reads it."""
    return generate_latest(registry)
