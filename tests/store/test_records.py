"""Leases, audit, events, versions, windows, retention, freshness."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from ipaddress import ip_address

import pytest
from sqlalchemy import func, select
from store_seeds import NOW, add_ad, add_relay, later

from relaymgr.domain.observed import Facts
from relaymgr.domain.platforms import Capabilities, Capability, Platform
from relaymgr.settings import Settings
from relaymgr.store import audit, events, leases, relay_records, retention
from relaymgr.store.freshness import State, freshness
from relaymgr.store.principals import Principal, Role
from relaymgr.store.redaction import REDACTED, redact
from relaymgr.store.tables import AuditRow, Event, Job, JobEvent, Lease, Plan, Relay, StatisticsSample, Token


async def test_a_lease_has_one_holder(database):
    assert await leases.acquire(database, "relay:1", "a", 30, NOW)
    assert await leases.acquire(database, "relay:1", "a", 30, later(1))
    assert not await leases.acquire(database, "relay:1", "b", 30, later(30))
    assert await leases.acquire(database, "relay:2", "b", 30, NOW)
    assert await leases.holder_of(database, "relay:1", later(30)) == "a"
    assert await leases.holder_of(database, "relay:1", later(31)) is None
    assert await leases.acquire(database, "relay:1", "b", 30, later(31))
    assert not await leases.renew(database, "relay:1", "a", 30, later(32))
    assert await leases.renew(database, "relay:1", "b", 30, later(32))
    await leases.release(database, "relay:1", "a")
    assert not await leases.acquire(database, "relay:1", "a", 30, later(61))
    await leases.release(database, "relay:1", "b")
    assert await leases.acquire(database, "relay:1", "a", 30, later(61))


async def test_a_lease_that_ran_out_is_not_renewed(database):
    assert await leases.acquire(database, "x", "a", 30, NOW)
    assert not await leases.renew(database, "x", "a", 30, later(30))
    assert not await leases.renew(database, "none", "a", 30, NOW)


async def test_of_many_that_try_at_once_one_gets_it(database):
    for moment in (NOW, later(31)):  # a new name, and one that ran out
        got = await asyncio.gather(*(leases.acquire(database, "x", f"h{n}", 30, moment) for n in range(8)))
        assert sorted(got) == [False] * 7 + [True]


async def test_audit_rows_hold_no_secrets(database):
    principal = Principal("token:ansible", Role.ADMIN, frozenset(), "id")
    before = {"name": "c", "secret": "planted1", "nested": [{"password": "planted2", "host": "192.0.2.1"}]}
    after = {
        "token": "planted3",
        "private_key": "planted4",
        "text": "-----BEGIN OPENSSH PRIVATE KEY-----\nplanted5\n-----END OPENSSH PRIVATE KEY-----\nrest",
        "url": "https://user:planted6@vault.example/",
        "address": ip_address("192.0.2.1"),
        "role": Role.ADMIN,
        "at": NOW,
        "sealed": b"planted7",
        "headers": {"Authorization": "Bearer planted8planted8"},
        "line": 'secret "$9$planted9"; ## SECRET-DATA',
    }
    async with database.begin() as session:
        await audit.record(
            session, principal, "credential.put", "credential", "1", before=before, after=after, ticket="T1",
            comment="with ist_planted0planted0planted0", now=NOW,
        )  # fmt: skip
        await audit.record(session, "system", "relay.delete", "relay", None, before=None, after=None, outcome="refused")
    async with database.session() as session:
        first, second = (await session.scalars(select(AuditRow).order_by(AuditRow.id))).all()
    written = json.dumps([first.before, first.after, first.comment])
    assert "planted" not in written
    assert first.before == {"name": "c", "secret": REDACTED, "nested": [{"password": REDACTED, "host": "192.0.2.1"}]}
    assert (first.after["address"], first.after["role"], first.after["at"]) == ("192.0.2.1", "admin", NOW.isoformat())
    assert first.after["text"] == f"{REDACTED}\nrest"
    assert (first.actor, first.at, second.actor, second.outcome) == ("token:ansible", NOW, "system", "refused")


@pytest.mark.parametrize(
    "harmless",
    [
        {"key_timeout_minutes": 5},
        {"host_key": "ssh-ed25519 AAAA"},
        {"credential_id": "1"},
        {"token_id": "1"},
        {"secret": None},
        {"password": ""},
        {"name": "token"},
        {"credential_kind": "password"},
        {"token_prefix": "ist_abc"},
        {"prefixes": ["192.0.2.0/24"]},
    ],
)
def test_what_is_no_secret_stays(harmless):
    assert redact(harmless) == harmless


@pytest.mark.parametrize(
    "key",
    ["password", "passwd", "PASSWORD", "passphrase", "secret", "client_secret", "oidcClientSecret", "api_key",
     "api-key", "private_key", "community", "token", "access_token", "authorization", "cookie", "password_hash"],
)  # fmt: skip
def test_keys_of_secrets(key):
    assert redact({"a": [{key: "planted"}, {key: {"value": "planted"}}, {key: ["planted"]}, {key: 12345}]}) == {
        "a": [{key: REDACTED}] * 4
    }


async def test_events_belong_to_the_ad_of_their_relay(database):
    ad = await add_ad(database, "a")
    relay = await add_relay(database, "r1", ad_id=ad)
    async with database.begin() as session:
        await events.emit(session, "drift.found", "warning", "m", relay_id=relay, data={"x": 1}, now=NOW)
        await events.emit(session, "service.started", events.Severity.INFO, "m")
        with pytest.raises(ValueError, match="loud"):
            await events.emit(session, "k", "loud", "m")
    async with database.session() as session:
        first, second = (await session.scalars(select(Event).order_by(Event.id))).all()
    assert (first.ad_id, first.at, first.data, first.severity) == (ad, NOW, {"x": 1}, "warning")
    assert (second.ad_id, second.relay_id) == (None, None)


async def test_a_row_is_written_only_at_its_version(database):
    relay = await add_relay(database, "r1")

    async def rename(version, name):
        async with database.begin() as session:
            return await relay_records.update_if_version(session, Relay, relay, version, {"name": name})

    assert sorted(await asyncio.gather(rename(1, "a"), rename(1, "b"))) == [False, True]
    assert not await rename(1, "c")
    assert await rename(2, "d")
    async with database.session() as session:
        row = await relay_records.load(session, relay)
        assert (row.name, row.version) == ("d", 3)


async def test_one_window_a_relay(database):
    relay = await add_relay(database, "r1")
    async with database.begin() as session:
        assert await relay_records.open_window(session, relay, "job1", later(60))
        assert await relay_records.open_window(session, relay, "job1", later(90))
        assert not await relay_records.open_window(session, relay, "job2", later(90))
        assert not await relay_records.close_window(session, relay, "job2")
    async with database.session() as session:
        row = await relay_records.load(session, relay)
        assert (row.window_job_id, row.window_until) == ("job1", later(90))
    async with database.begin() as session:
        assert await relay_records.close_window(session, relay, "job1")
        assert await relay_records.open_window(session, relay, "job2", later(90))


async def test_a_relays_row_becomes_a_target(database):
    relay = await add_relay(
        database, "mx1", platform="iosxe", port=2222, netconf_port=830, host_key="ssh-ed25519 AAAA", legacy_ssh=True,
        options={"ca": "x", "n": 5}, connect_timeout_seconds=1.5, rpc_timeout_seconds=2, commit_timeout_seconds=3,
    )  # fmt: skip
    async with database.session() as session:
        target, credential = await relay_records.load_target(session, relay)
        assert (await relay_records.find(session, "mx1")).id == (await relay_records.find(session, relay)).id == relay
        assert await relay_records.find(session, "none") is None
        with pytest.raises(relay_records.RelayUnknown):
            await relay_records.load_target(session, "none")
    assert credential is None
    assert (target.name, target.platform, target.port, target.netconf_port) == ("mx1", Platform.IOSXE, 2222, 830)
    assert (target.deadlines.connect, target.deadlines.rpc, target.deadlines.commit) == (1.5, 2, 3)
    assert (target.legacy_ssh, dict(target.options)) == (True, {"ca": "x", "n": "5"})


async def test_identity_is_kept(database):
    relay = await add_relay(database, "r1")
    told = Capabilities(frozenset({Capability.DRAIN, Capability.BACKUP}), {Capability.AMT_IPV6: "Junos has none"})
    async with database.begin() as session:
        await relay_records.store_identity(session, relay, facts=Facts(hostname="mx1", uptime_seconds=5))
        await relay_records.store_identity(session, relay, capabilities=told)
        await relay_records.store_identity(session, relay)
    async with database.session() as session:
        row = await relay_records.load(session, relay)
    assert row.facts["hostname"] == "mx1"
    assert relay_records.capabilities_from_json(row.capabilities) == told
    assert relay_records.capabilities_from_json({"supported": ["drain", "of a later version"]}).supported == {"drain"}


async def test_what_is_old_goes_and_what_is_needed_stays(database, monkeypatch):
    monkeypatch.setattr(retention, "CHUNK", 3)
    settings = Settings(statistics_retention_hours=72, event_retention_days=90)
    relay = await add_relay(database, "r1")
    long_ago = NOW - timedelta(days=100)

    def plan(name, **values):
        return Plan(
            **{"id": name, "relay_id": relay, "kind": "apply", "diff": "", "diff_source": "device", "commands": ""}
            | {"desired_scope": [], "desired_text": "", "before_scope": [], "before_text": "", "new_scope": []}
            | {"device_fingerprint": "", "actor": "x", "created_at": long_ago, "expires_at": long_ago}
            | values
        )

    def token(number, **values):
        return Token(
            **{"name": "t", "prefix": "p", "sha256": str(number), "role": "viewer", "created_by": "x"}
            | {"created_at": long_ago} | values
        )  # fmt: skip

    async with database.begin() as session:
        for hours in range(0, 96, 8):
            at = NOW - timedelta(hours=hours)
            session.add(StatisticsSample(relay_id=relay, at=at, counters={}, errors={}))
        session.add_all(
            Event(at=NOW - timedelta(days=days), severity="info", kind="k", message="m") for days in (1, 89, 91, 200)
        )
        session.add_all([plan("kept"), plan("old"), plan("new", expires_at=NOW)])
        for state, finished, name in (
            ("succeeded", long_ago, None),
            ("uncertain", long_ago, "kept"),
            ("running", None, None),
            ("failed", NOW, None),
        ):
            job = Job(kind="apply", state=state, finished_at=finished, plan_id=name, actor="x", created_at=long_ago)
            session.add(job)
            await session.flush()
            session.add(JobEvent(job_id=job.id, at=long_ago, phase="p", progress=0, message="m"))
        session.add_all(
            [token(1), token(2, expires_at=long_ago), token(3, revoked_at=long_ago), token(4, expires_at=NOW)]
        )
        session.add_all([Lease(name="a", holder="x", until=long_ago), Lease(name="b", holder="x", until=NOW)])
    deleted = await retention.prune(database, settings, NOW)
    assert deleted == {"statistics": 2, "events": 2, "jobs": 1, "plans": 1, "tokens": 2, "leases": 1}
    assert set((await retention.prune(database, settings, NOW)).values()) == {0}
    async with database.session() as session:
        assert set(await session.scalars(select(Plan.id))) == {"kept", "new"}
        assert set(await session.scalars(select(Job.state))) == {"uncertain", "running", "failed"}
        assert await session.scalar(select(func.count()).select_from(JobEvent)) == 3
        assert set(await session.scalars(select(Token.sha256))) == {"1", "4"}


@pytest.mark.parametrize(
    ("values", "seconds", "state", "reason"),
    [
        ({"polled_at": None}, 0, State.UNKNOWN, "never polled"),
        ({"polled_at": None, "reachability_reason": "no route"}, 0, State.UNKNOWN, "no route"),
        ({}, 75, State.FRESH, None),
        ({}, 76, State.STALE, "not polled for 76 s"),
        ({"stale": {"tunnels": "cut short"}}, 1, State.STALE, "cut short"),
        ({"stale": {"channels": "cut short"}}, 1, State.FRESH, None),
        ({"enabled": False}, 1, State.STALE, "the relay is disabled"),
    ],
)
def test_freshness(values, seconds, state, reason):
    relay = Relay(
        **{"polled_at": NOW, "poll_interval_seconds": 30, "stale": {}, "enabled": True, "reachability_reason": None}
        | values
    )
    told = freshness(relay, later(seconds))["tunnels"]
    assert (told.state, told.reason) == (state, reason)


async def test_statistics_of_yesterday_are_thinned(database):
    now = NOW
    async with database.begin() as session:
        relays = [
            Relay(name=f"mx{number}", platform="junos", host="192.0.2.1", created_at=now, updated_at=now)
            for number in range(2)
        ]
        session.add_all(relays)
        await session.flush()
        session.add_all(
            StatisticsSample(relay_id=relay.id, at=now - timedelta(minutes=minute), counters={}, errors={})
            for relay in relays
            for minute in range(26 * 60)
        )
    pruned = await retention.prune(database, Settings(), now)
    kept = [60 * 24 + 1 + 8] * 2  # every minute of a day, then a quarter of an hour each
    async with database.session() as session:
        counts = await session.execute(
            select(func.count()).group_by(StatisticsSample.relay_id).select_from(StatisticsSample)
        )
        assert list(counts.scalars()) == kept
        young = select(func.count()).where(StatisticsSample.at >= now - timedelta(hours=24))
        assert await session.scalar(young) == 2 * (60 * 24 + 1)
    assert pruned["statistics"] == 2 * 26 * 60 - sum(kept)
    assert (await retention.prune(database, Settings(), now))["statistics"] == 0
