"""Every table. SQLite and PostgreSQL alike: no type, default or constraint only one of them has.

Identifiers are UUIDv7-like strings that sort by creation (`new_id`); times are UTC. `version` columns carry ETags and
are incremented by whoever writes the row.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def new_id() -> str:
    """32 hex digits, the first 12 of them milliseconds: sorts by creation."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC on both databases (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime would be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give UTC back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = dict[str, Any]


class Table(DeclarativeBase):
    """Base of all tables."""

    # Every constraint has a name, so that a later migration can drop it.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        Json: JSON,
        list[str]: JSON,
        list[Json]: JSON,
        str: Text,
        bytes: LargeBinary,
        # Counters of devices are 64 bits wide; SQLite numbers rows by itself only in columns it calls INTEGER.
        int: BigInteger().with_variant(Integer(), "sqlite"),
    }


Id = String(32)


class Ad(Table):
    """An administrative domain."""

    __tablename__ = "ads"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    asn: Mapped[int | None]
    contact: Mapped[str | None]
    prefixes: Mapped[list[str]] = mapped_column(default=list)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Site(Table):
    """A place with relays."""

    __tablename__ = "sites"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    location: Mapped[str | None]
    ad_id: Mapped[str | None] = mapped_column(ForeignKey("ads.id"))
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class CredentialRecord(Table):
    """How to log in to devices. `source` env, file and vault are references; sealed holds ciphertext."""

    __tablename__ = "credentials"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    username: Mapped[str]
    kind: Mapped[str]
    """password, private_key or token"""
    source: Mapped[str]
    """env, file, vault or sealed"""
    reference: Mapped[str | None]
    sealed: Mapped[bytes | None]
    ad_id: Mapped[str | None] = mapped_column(ForeignKey("ads.id"))
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Relay(Table):
    """A relay: where it is, what it was told to be, what was last known of it."""

    __tablename__ = "relays"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    platform: Mapped[str]
    host: Mapped[str]
    port: Mapped[int | None]
    netconf_port: Mapped[int | None]
    legacy_ssh: Mapped[bool] = mapped_column(default=False)
    options: Mapped[Json] = mapped_column(default=dict)
    connect_timeout_seconds: Mapped[float] = mapped_column(default=30.0)
    rpc_timeout_seconds: Mapped[float] = mapped_column(default=30.0)
    commit_timeout_seconds: Mapped[float] = mapped_column(default=120.0)
    poll_interval_seconds: Mapped[int] = mapped_column(default=30)
    ad_id: Mapped[str | None] = mapped_column(ForeignKey("ads.id"), index=True)
    site_id: Mapped[str | None] = mapped_column(ForeignKey("sites.id"))
    credential_id: Mapped[str | None] = mapped_column(ForeignKey("credentials.id"))
    host_key: Mapped[str | None]
    """Pinned, `ssh-ed25519 AAAA…`."""
    enabled: Mapped[bool] = mapped_column(default=True)
    drained: Mapped[bool] = mapped_column(default=False)
    """What the last successful change left it as."""
    labels: Mapped[Json] = mapped_column(default=dict)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    intent: Mapped[Json | None] = mapped_column(JSON)
    intent_version: Mapped[int] = mapped_column(default=0)
    applied_intent_version: Mapped[int | None]
    applied_scope: Mapped[list[str]] = mapped_column(default=list)
    """Sections the last confirmed change of ours owns; what a next one must take away."""
    applied_text: Mapped[str | None]
    """Owned text after the last confirmed change: what drift is measured against."""

    facts: Mapped[Json | None] = mapped_column(JSON)
    capabilities: Mapped[Json | None] = mapped_column(JSON)
    reachability: Mapped[str] = mapped_column(default="unknown")
    """unknown, reachable, unreachable"""
    reachability_reason: Mapped[str | None]
    polled_at: Mapped[datetime | None]
    """Last poll that succeeded."""
    poll_started_at: Mapped[datetime | None]
    poll_seconds: Mapped[float | None]
    stale: Mapped[Json] = mapped_column(default=dict)
    """Part (tunnels channels pim_neighbors statistics) -> reason it is not fresh."""
    active_tunnels: Mapped[int | None]
    active_channels: Mapped[int | None]

    drift_state: Mapped[str] = mapped_column(default="unknown")
    """unknown, none, drifted, unmanaged"""
    drift_checked_at: Mapped[datetime | None]

    backup_checked_at: Mapped[datetime | None]
    """When its configuration was last read for a backup, whether or not it had changed."""

    window_job_id: Mapped[str | None] = mapped_column(Id)
    """The job whose confirm window is open on the device; nothing else of ours may touch its configuration."""
    window_until: Mapped[datetime | None]


class IntentRevision(Table):
    """Every intent a relay was given."""

    __tablename__ = "intent_revisions"
    __table_args__ = (UniqueConstraint("relay_id", "version"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"))
    version: Mapped[int]
    body: Mapped[Json]
    actor: Mapped[str]
    created_at: Mapped[datetime]


class Plan(Table):
    """What a change would do to one relay, as read from the device."""

    __tablename__ = "plans"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    """apply, drain, undrain, restore, rollback"""
    intent_version: Mapped[int | None]
    drained: Mapped[bool] = mapped_column(default=False)
    diff: Mapped[str]
    diff_source: Mapped[str]
    commands: Mapped[str]
    desired_scope: Mapped[list[str]]
    desired_text: Mapped[str]
    before_scope: Mapped[list[str]]
    before_text: Mapped[str]
    device_fingerprint: Mapped[str]
    new_scope: Mapped[list[str]]
    """Scope owned once it is applied (the desired one without what is only to go)."""
    new_text: Mapped[str | None]
    """Text of that scope: what drift is measured against from then on. None: nothing is owned any more."""
    actor: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Job(Table):
    """Work on one relay (or a rollout's own). This row is the truth; the engine only wakes workers."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_state_lease", "state", "lease_until"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str]
    """plan, apply, drain, undrain, restore, rollback, drift, backup, rollout"""
    relay_id: Mapped[str | None] = mapped_column(ForeignKey("relays.id", ondelete="SET NULL"), index=True)
    rollout_id: Mapped[str | None] = mapped_column(Id, index=True)
    plan_id: Mapped[str | None] = mapped_column(Id)
    parameters: Mapped[Json] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(default="queued")
    """queued, running, succeeded, failed, rolled_back, cancelled, uncertain"""
    phase: Mapped[str] = mapped_column(default="queued")
    progress: Mapped[int] = mapped_column(default=0)
    """Percent."""
    result: Mapped[Json] = mapped_column(default=dict)
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    actor: Mapped[str]
    comment: Mapped[str] = mapped_column(default="")
    ticket: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0)
    run_after: Mapped[datetime | None]
    confirm_deadline: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEvent(Table):
    """Log of a job; `id` is what SSE sends as event id."""

    __tablename__ = "job_events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    level: Mapped[str] = mapped_column(default="info")
    phase: Mapped[str]
    progress: Mapped[int]
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(default=dict)


class Rollout(Table):
    """One change of many relays in waves."""

    __tablename__ = "rollouts"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str]
    kind: Mapped[str]
    """apply, drain, undrain, restore"""
    state: Mapped[str] = mapped_column(default="running")
    """running, paused, aborted, succeeded, failed"""
    waves: Mapped[Json]
    """{"sizes": [1, 5, …], "relays": [[relay ids], …]}"""
    current_wave: Mapped[int] = mapped_column(default=0)
    error_budget: Mapped[int] = mapped_column(default=0)
    """Relays that may fail before the rollout stops."""
    confirm_minutes: Mapped[int] = mapped_column(default=5)
    probe: Mapped[bool] = mapped_column(default=False)
    pause_reason: Mapped[str | None]
    actor: Mapped[str]
    comment: Mapped[str] = mapped_column(default="")
    ticket: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class RolloutRelay(Table):
    """One relay's part of a rollout."""

    __tablename__ = "rollout_relays"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"), primary_key=True)
    wave: Mapped[int]
    state: Mapped[str] = mapped_column(default="pending")
    """pending, running, succeeded, unchanged, failed, rolled_back, uncertain, skipped"""
    job_id: Mapped[str | None] = mapped_column(Id)
    detail: Mapped[str | None]


class TunnelRow(Table):
    """Last known tunnels; replaced by each successful poll."""

    __tablename__ = "tunnels"
    __table_args__ = (
        UniqueConstraint("relay_id", "gateway_address", "gateway_port"),
        Index("tunnels_ad", "ad_id", "id"),
        Index("tunnels_relay", "relay_id", "id"),
        Index("tunnels_gateway", "gateway_address", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"))
    ad_id: Mapped[str | None] = mapped_column(Id)
    """AD of the gateway by longest prefix, or none."""
    gateway_address: Mapped[str]
    gateway_port: Mapped[int]
    state: Mapped[str]
    vendor_state: Mapped[str | None]
    interface: Mapped[str | None]
    local_address: Mapped[str | None]
    inactivity_timeout_seconds: Mapped[int | None]
    uptime_seconds: Mapped[int | None]
    channels: Mapped[int | None]
    packets: Mapped[int | None]
    bytes: Mapped[int | None]
    requests: Mapped[int | None]
    updates: Mapped[int | None]
    packets_per_second: Mapped[float | None]
    """From two polls; None until the second, and after a counter went back."""
    first_seen_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class ChannelRow(Table):
    """Last known channels of a relay."""

    __tablename__ = "channels"
    __table_args__ = (Index("channels_relay", "relay_id", "id"), Index("channels_group", "group_address", "id"))
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"))
    group_address: Mapped[str]
    source_address: Mapped[str | None]
    upstream_interface: Mapped[str | None]
    downstream_interfaces: Mapped[list[str]]
    gateways: Mapped[int | None]
    packets: Mapped[int | None]
    bytes: Mapped[int | None]
    packets_per_second: Mapped[float | None]
    kilobits_per_second: Mapped[float | None]
    state: Mapped[str | None]
    uptime_seconds: Mapped[int | None]
    seen_at: Mapped[datetime]


class PimNeighborRow(Table):
    """Last known PIM neighbours of a relay."""

    __tablename__ = "pim_neighbors"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"), index=True)
    address: Mapped[str]
    interface: Mapped[str]
    uptime_seconds: Mapped[int | None]
    hold_time_seconds: Mapped[int | None]
    priority: Mapped[int | None]
    pim_version: Mapped[int | None]
    seen_at: Mapped[datetime]


class StatisticsSample(Table):
    """Counters of a relay over time."""

    __tablename__ = "statistics"
    __table_args__ = (Index("statistics_relay_at", "relay_id", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    active_tunnels: Mapped[int | None]
    tunnel_limit: Mapped[int | None]
    active_streams: Mapped[int | None]
    stream_limit: Mapped[int | None]
    counters: Mapped[Json]
    errors: Mapped[Json]


class DriftRow(Table):
    """Last drift check of a relay."""

    __tablename__ = "drift"
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str]
    """none, drifted, unknown"""
    diff: Mapped[str] = mapped_column(default="")
    """From intended to actual, unified."""
    actual_text: Mapped[str] = mapped_column(default="")
    actual_scope: Mapped[list[str]] = mapped_column(default=list)
    reason: Mapped[str | None]
    """Why unknown."""
    changed_by: Mapped[str | None]
    changed_at: Mapped[datetime | None]
    checked_at: Mapped[datetime]
    since: Mapped[datetime | None]


class Backup(Table):
    """A configuration as it was; sealed, because configurations hold secrets."""

    __tablename__ = "backups"
    __table_args__ = (Index("backups_relay", "relay_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    relay_id: Mapped[str] = mapped_column(ForeignKey("relays.id", ondelete="CASCADE"))
    taken_at: Mapped[datetime]
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    sealed: Mapped[bytes]
    reason: Mapped[str]
    """enrolment, periodic, before_change, after_change, requested"""
    job_id: Mapped[str | None] = mapped_column(Id)


class User(Table):
    """A local user."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    """argon2id; none for users of an identity provider."""
    subject: Mapped[str | None] = mapped_column(unique=True)
    """`issuer|sub` of OIDC."""
    role: Mapped[str]
    ad_ids: Mapped[list[str]] = mapped_column(default=list)
    enabled: Mapped[bool] = mapped_column(default=True)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]


class Token(Table):
    """An API token; only its hash is kept."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    """First characters, for people to tell tokens apart."""
    sha256: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    """viewer, operator, admin"""
    ad_ids: Mapped[list[str]] = mapped_column(default=list)
    """Empty: every AD."""
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    """Set for a session token made by a login."""
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditRow(Table):
    """One write: who, what, before and after. Never updated."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str]
    """relay.create, intent.put, plan.create, job.apply, …"""
    resource_type: Mapped[str]
    resource_id: Mapped[str | None] = mapped_column(index=True)
    ad_id: Mapped[str | None] = mapped_column(Id, index=True)
    before: Mapped[Json | None] = mapped_column(JSON)
    after: Mapped[Json | None] = mapped_column(JSON)
    comment: Mapped[str | None]
    ticket: Mapped[str | None]
    request_id: Mapped[str | None]
    outcome: Mapped[str] = mapped_column(default="ok")


class Event(Table):
    """Something a NOC wants to know: relay lost, tunnel limit near, drift found, job finished."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    severity: Mapped[str]
    """info, warning, critical"""
    kind: Mapped[str]
    relay_id: Mapped[str | None] = mapped_column(Id, index=True)
    ad_id: Mapped[str | None] = mapped_column(Id, index=True)
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(default=dict)


class Lease(Table):
    """Who among several processes holds what: `relay:ID` (its configuration session), `poll:SHARD`, `reaper`."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until: Mapped[datetime]
