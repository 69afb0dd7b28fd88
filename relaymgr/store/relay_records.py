"""From relay rows to what drivers and pollers need, and the compare-and-set writes of relay rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.observed import Facts
from relaymgr.domain.platforms import Capabilities, Capability, Platform
from relaymgr.drivers.protocol import Deadlines, DeviceTarget
from relaymgr.store.tables import Ad, CredentialRecord, Json, Relay, Rollout, Site, User

Versioned = TypeVar("Versioned", Ad, Site, CredentialRecord, Relay, Rollout, User)


class RelayUnknown(LookupError):
    """There is no such relay (any more)."""


async def load(session: AsyncSession, relay_id: str) -> Relay:
    """The relay's row.

    Raises:
        RelayUnknown: there is none.
    """
    relay = await session.get(Relay, relay_id)
    if relay is None:
        raise RelayUnknown(f"no relay {relay_id}")
    return relay


async def find(session: AsyncSession, name_or_id: str) -> Relay | None:
    """The relay of this name, or else of this id."""
    relays = await session.scalars(select(Relay).where(or_(Relay.name == name_or_id, Relay.id == name_or_id)))
    return min(relays, key=lambda relay: relay.name != name_or_id, default=None)


async def load_target(session: AsyncSession, relay_id: str) -> tuple[DeviceTarget, str | None]:
    """Where the device is, and the id of its credential (None: it has none).

    Raises:
        RelayUnknown: there is no such relay.
    """
    relay = await load(session, relay_id)
    return device_target(relay), relay.credential_id


def device_target(relay: Relay) -> DeviceTarget:
    """What a driver is made from."""
    return DeviceTarget(
        name=relay.name,
        platform=Platform(relay.platform),
        host=relay.host,
        port=relay.port,
        netconf_port=relay.netconf_port,
        host_key=relay.host_key,
        legacy_ssh=relay.legacy_ssh,
        deadlines=Deadlines(
            connect=relay.connect_timeout_seconds, rpc=relay.rpc_timeout_seconds, commit=relay.commit_timeout_seconds
        ),
        options={key: str(value) for key, value in relay.options.items()},
    )


async def update_if_version(
    session: AsyncSession,
    table: type[Versioned],
    row_id: str,
    version: int,
    values: Mapping[str, Any],
) -> bool:
    """Write a row that still has this version (ETag) and increment it; False when it is gone or has another."""
    statement = (
        update(table)
        .where(table.id == row_id, table.version == version)
        .values(**values, version=version + 1)
        .returning(table.id)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def open_window(
    session: AsyncSession, relay_id: str, job_id: str, until: datetime, *, version: int | None = None
) -> bool:
    """Keep everything else of ours off the device until `close_window`; False when another job does already.

    With `version` also False when the relay was edited since: a session would reach another device than was meant.
    """
    statement = (
        update(Relay)
        .where(Relay.id == relay_id, or_(Relay.window_job_id.is_(None), Relay.window_job_id == job_id))
        .values(window_job_id=job_id, window_until=until)
        .returning(Relay.id)
    )
    if version is not None:
        statement = statement.where(Relay.version == version)
    return (await session.execute(statement)).first() is not None


async def close_window(session: AsyncSession, relay_id: str, job_id: str) -> bool:
    """Let others at the device again; False when the window was not this job's."""
    statement = (
        update(Relay)
        .where(Relay.id == relay_id, Relay.window_job_id == job_id)
        .values(window_job_id=None, window_until=None)
        .returning(Relay.id)
    )
    return (await session.execute(statement)).first() is not None


async def store_identity(
    session: AsyncSession, relay_id: str, *, facts: Facts | None = None, capabilities: Capabilities | None = None
) -> None:
    """Record what the device said of itself; None leaves what is known."""
    values: dict[str, Json] = {}
    if facts is not None:
        values["facts"] = asdict(facts)
    if capabilities is not None:
        values["capabilities"] = capabilities_to_json(capabilities)
    if values:
        await session.execute(update(Relay).where(Relay.id == relay_id).values(**values))


def capabilities_to_json(capabilities: Capabilities) -> Json:
    """`{"supported": [names], "reasons": {name: why not}}`."""
    return {
        "supported": sorted(capability.value for capability in capabilities.supported),
        "reasons": {capability.value: reason for capability, reason in sorted(capabilities.reasons.items())},
    }


def capabilities_from_json(stored: Json) -> Capabilities:
    """The inverse; names of a later version are left out."""
    known = {capability.value for capability in Capability}
    return Capabilities(
        frozenset(Capability(name) for name in stored.get("supported", []) if name in known),
        {Capability(name): reason for name, reason in stored.get("reasons", {}).items() if name in known},
    )
