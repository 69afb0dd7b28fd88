"""What polls read, written down with as few writes as that needs.

`replace` writes one poll in the caller's transaction, `write` several. `observation_writer.ObservationWriter` groups
the polls of many relays into one transaction every half second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.ad_matching import AdMatcher
from relaymgr.domain.observed import Observation
from relaymgr.store import events
from relaymgr.store.observed_rows import CHANNELS, NEIGHBORS, TUNNELS, channel_rows, neighbor_rows, tunnel_rows
from relaymgr.store.reconciling import Seen, reconcile, update_by_id
from relaymgr.store.tables import Ad, Json, Relay, StatisticsSample

log = logging.getLogger(__name__)

PARTS = ("tunnels", "channels", "pim_neighbors", "statistics")
NEAR_LIMIT = 0.9
"""Share of the tunnel limit from which a NOC hears of it."""
_NOT_TOLD = "the device does not tell"


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll of one relay, finished: with an observation, or with the reason there is none."""

    relay_id: str
    started_at: datetime
    finished_at: datetime
    observation: Observation | None
    failure: str | None = None
    """Why there is no observation, one sentence for the operator; no secrets."""
    unreachable: bool = True
    """Whether the failure says the device cannot be reached; False: only its data got old (it was busy)."""


class AdCache:
    """The matcher of all ADs, made anew when one of them changed."""

    def __init__(self) -> None:
        self._state: tuple[object, ...] | None = None
        self._matcher = AdMatcher(())

    async def matcher(self, session: AsyncSession) -> AdMatcher:
        """The matcher for the ADs of now."""
        state = tuple(
            (await session.execute(select(func.count(Ad.id), func.sum(Ad.version), func.max(Ad.updated_at)))).one()
        )
        if state != self._state:
            prefixes = (await session.execute(select(Ad.prefixes, Ad.id))).all()
            self._matcher = AdMatcher((prefix, ad_id) for listed, ad_id in prefixes for prefix in listed)
            self._state = state
        return self._matcher


async def replace(session: AsyncSession, relay_id: str, observation: Observation, now: datetime) -> None:
    """Write one successful poll in the caller's transaction (`Database.begin`)."""
    await write(session, [Poll(relay_id, now, now, observation)], AdCache())


async def write(
    session: AsyncSession, polls: Sequence[Poll], ads: AdCache, *, sampled: Callable[[Poll], bool] = lambda _: True
) -> None:
    """Write several polls, at most one a relay, in the caller's transaction. Polls of deleted relays are dropped.

    Args:
        session: of `Database.begin`.
        polls: one a relay.
        ads: kept by the caller from one write to the next.
        sampled: whether a poll's statistics become a sample of the time series.
    """
    relays = await _lock_relays(session, [poll.relay_id for poll in polls])
    polls = [poll for poll in polls if poll.relay_id in relays]
    read = [(poll, poll.observation) for poll in polls if poll.observation is not None]
    if read:
        matcher = await ads.matcher(session)
        await reconcile(
            session,
            TUNNELS,
            [
                await _yielding(Seen(poll.relay_id, poll.finished_at, tunnel_rows(seen.tunnels, matcher)))
                for poll, seen in read
                if seen.tunnels is not None
            ],
        )
        await reconcile(
            session,
            CHANNELS,
            [
                Seen(poll.relay_id, poll.finished_at, channel_rows(seen.channels))
                for poll, seen in read
                if seen.channels is not None
            ],
        )
        await _neighbors(session, read, relays)
        await _sample(session, [(poll, seen) for poll, seen in read if sampled(poll)])
    await _update_relays(session, polls, relays)
    for poll in polls:
        await _tell(session, poll, relays[poll.relay_id])


async def _yielding(seen: Seen) -> Seen:
    """The same; whatever else the process has to do goes in between."""
    await asyncio.sleep(0)
    return seen


async def _lock_relays(session: AsyncSession, relay_ids: list[str]) -> dict[str, Row[Any]]:
    """What was known of the relays; nobody else changes it until we commit. By id, so that two never wait in a ring."""
    statement = (
        select(Relay.id, Relay.name, Relay.ad_id, Relay.reachability, Relay.active_tunnels, Relay.active_channels)
        .where(Relay.id.in_(relay_ids))
        .order_by(Relay.id)
        .with_for_update()
    )
    return {row.id: row for row in await session.execute(statement)}


async def _neighbors(
    session: AsyncSession, read: Sequence[tuple[Poll, Observation]], relays: dict[str, Row[Any]]
) -> None:
    seen = [
        Seen(poll.relay_id, poll.finished_at, neighbor_rows(observation.pim_neighbors))
        for poll, observation in read
        if observation.pim_neighbors is not None
    ]
    outcome = await reconcile(session, NEIGHBORS, seen)
    times = {one.relay_id: one.at for one in seen}
    for relay_id, gone in outcome.gone.items():
        for address, interface in gone:
            await events.emit(
                session,
                "pim.neighbor_lost",
                events.Severity.WARNING,
                f"{relays[relay_id].name} lost its PIM neighbor {address} on {interface}",
                relay_id=relay_id,
                ad_id=relays[relay_id].ad_id,
                data={"address": address, "interface": interface},
                now=times[relay_id],
            )


async def _sample(session: AsyncSession, read: Sequence[tuple[Poll, Observation]]) -> None:
    samples = [
        {
            "relay_id": poll.relay_id,
            "at": poll.finished_at,
            "active_tunnels": seen.statistics.active_tunnels,
            "tunnel_limit": seen.statistics.tunnel_limit,
            "active_streams": seen.statistics.active_streams,
            "stream_limit": seen.statistics.stream_limit,
            "counters": seen.statistics.counters,
            "errors": seen.statistics.errors,
        }
        for poll, seen in read
        if seen.statistics is not None
    ]
    if samples:
        await (await session.connection()).execute(insert(StatisticsSample), samples)


async def _update_relays(session: AsyncSession, polls: Sequence[Poll], relays: dict[str, Row[Any]]) -> None:
    connection = await session.connection()
    succeeded = [
        _after_success(poll, poll.observation, relays[poll.relay_id]) for poll in polls if poll.observation is not None
    ]
    failed = [_after_failure(poll) for poll in polls if poll.observation is None and poll.unreachable]
    skipped = [_after_skip(poll) for poll in polls if poll.observation is None and not poll.unreachable]
    for values in (succeeded, failed, skipped):
        if values:
            await update_by_id(connection, Relay, values)


def _after_success(poll: Poll, seen: Observation, relay: Row[Any]) -> Json:
    missing = {part: seen.missing.get(part, _NOT_TOLD) for part in PARTS if getattr(seen, part) is None}
    return {
        "row_id": poll.relay_id,
        "reachability": "reachable",
        "reachability_reason": None,
        "polled_at": poll.finished_at,
        "poll_started_at": poll.started_at,
        "poll_seconds": _seconds(poll),
        "stale": missing,
        "active_tunnels": _active_tunnels(seen, relay.active_tunnels),
        "active_channels": relay.active_channels if seen.channels is None else len(seen.channels),
    }


def _after_failure(poll: Poll) -> Json:
    reason = poll.failure or "the poll failed"
    return {
        "row_id": poll.relay_id,
        "reachability": "unreachable",
        "reachability_reason": reason,
        "poll_started_at": poll.started_at,
        "poll_seconds": _seconds(poll),
        "stale": dict.fromkeys(PARTS, reason),
    }


def _after_skip(poll: Poll) -> Json:
    return {
        "row_id": poll.relay_id,
        "poll_started_at": poll.started_at,
        "stale": dict.fromkeys(PARTS, poll.failure or "the device was busy"),
    }


def _active_tunnels(seen: Observation, before: int | None) -> int | None:
    """The device's own count, else how many it listed, else what was known (the relay's `stale` tells it is old)."""
    if seen.statistics is not None and seen.statistics.active_tunnels is not None:
        return seen.statistics.active_tunnels
    return before if seen.tunnels is None else len(seen.tunnels)


def _seconds(poll: Poll) -> float:
    return round((poll.finished_at - poll.started_at).total_seconds(), 3)


async def _tell(session: AsyncSession, poll: Poll, relay: Row[Any]) -> None:
    """Events, each at the transition only."""
    if poll.observation is None:
        if poll.unreachable and relay.reachability != "unreachable":
            message = f"{relay.name} cannot be reached: {poll.failure or 'the poll failed'}"
            await _emit(session, "relay.unreachable", events.Severity.CRITICAL, message, poll, relay)
        return
    if relay.reachability == "unreachable":
        await _emit(session, "relay.reachable", events.Severity.INFO, f"{relay.name} is reachable again", poll, relay)
    limit = poll.observation.statistics.tunnel_limit if poll.observation.statistics is not None else None
    active = _active_tunnels(poll.observation, None)
    if limit and active is not None and (relay.active_tunnels or 0) < limit * NEAR_LIMIT <= active:
        message = f"{relay.name} has {active} of at most {limit} tunnels"
        await _emit(session, "relay.tunnel_limit_near", events.Severity.WARNING, message, poll, relay)


async def _emit(
    session: AsyncSession, kind: str, severity: events.Severity, message: str, poll: Poll, relay: Row[Any]
) -> None:
    await events.emit(session, kind, severity, message, relay_id=poll.relay_id, ad_id=relay.ad_id, now=poll.finished_at)
