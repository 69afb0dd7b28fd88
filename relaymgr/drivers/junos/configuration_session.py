"""A session that changes configuration: what the change procedure needs of it, and which of the two a device gets.

PyEZ is the vendor's library and the default. Where it cannot go, the same RPCs travel over our own NETCONF session:

- old SSH (`legacy_ssh`): paramiko 5, which PyEZ runs on, has neither diffie-hellman-group14-sha1 nor ssh-rsa;
- RSA host keys at all: ncclient 0.7 then restricts paramiko 5 to the name `ssh-rsa`, which that no longer knows, and
  ends in a KeyError although both sides speak rsa-sha2.
"""

from __future__ import annotations

from typing import Protocol

from lxml import etree

from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

_RSA = "ssh-rsa"


class ConfigurationSession(Protocol):
    """One session to one device; every method raises DriverError alone and ends within the target's deadlines."""

    async def open(self) -> None:
        """Log in."""

    async def close(self) -> None:
        """Log out. Never raises."""

    async def lock(self) -> None:
        """Take the candidate configuration. Raises DeviceBusy."""

    async def unlock(self) -> None:
        """Give it back."""

    async def load(self, document: str) -> None:
        """Load XML with replace and delete attributes into the candidate. Raises ConfigurationRefused."""

    async def load_rollback(self, number: int) -> None:
        """Make the candidate the committed configuration `number`; 0 discards all edits."""

    async def diff(self) -> str:
        """The device's own difference between committed and candidate configuration; empty when equal."""

    async def check(self) -> None:
        """Commit check, which confirms an open window: never with one open. Raises ConfigurationRefused."""

    async def commit(self, comment: str, confirm_minutes: int | None = None) -> None:
        """Commit, with a rollback by the device's timer when `confirm_minutes` is given."""

    async def query(self, operation: str) -> etree._Element:
        """Any RPC that changes nothing; its reply, whose payload is found by local name."""


def wants_native(target: DeviceTarget) -> bool:
    """Whether PyEZ cannot drive this device, see above."""
    return target.legacy_ssh or (target.host_key or "").startswith(_RSA)


def configuration_session(target: DeviceTarget, credential: Credential, context: DriverContext) -> ConfigurationSession:
    """The session for this device, not open yet."""
    from relaymgr.drivers.junos.native_session import NativeSession  # noqa: PLC0415 -- they import this module's Protocol
    from relaymgr.drivers.junos.pyez_session import PyezSession  # noqa: PLC0415

    return NativeSession(target, credential) if wants_native(target) else PyezSession(target, credential, context)
