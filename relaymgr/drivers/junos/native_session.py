"""Configuration over our own NETCONF session, with the same RPCs PyEZ sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.sax.saxutils import escape

from lxml import etree

from relaymgr.drivers.errors import SessionLost
from relaymgr.drivers.junos.refusals import refusal
from relaymgr.drivers.netconf import NetconfSession, RpcError
from relaymgr.drivers.netconf.documents import descendants
from relaymgr.drivers.protocol import Credential, DeviceTarget

_DIFF = '<get-configuration compare="rollback" rollback="0" format="text"/>'


class NativeSession:
    """`ConfigurationSession` without PyEZ."""

    def __init__(self, target: DeviceTarget, credential: Credential) -> None:
        self._target = target
        self._credential = credential
        self._session: NetconfSession | None = None

    async def open(self) -> None:
        """Log in."""
        self._session = await NetconfSession.connect(self._target, self._credential, self._target.port)

    async def close(self) -> None:
        """Log out."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def lock(self) -> None:
        """Take the candidate."""
        await self._ask("<lock-configuration/>")

    async def unlock(self) -> None:
        """Give it back."""
        await self._ask("<unlock-configuration/>")

    async def load(self, document: str) -> None:
        """Load XML."""
        await self._ask(f'<load-configuration format="xml" action="replace">{document}</load-configuration>')

    async def load_rollback(self, number: int) -> None:
        """Load a committed configuration."""
        await self._ask(f'<load-configuration compare="rollback" rollback="{number}"/>')

    async def diff(self) -> str:
        """The device's own difference."""
        reply = await self._ask(_DIFF)
        return next(
            ("".join(map(str, found.itertext())).strip("\n") for found in descendants(reply, "configuration-output")),
            "",
        )

    async def check(self) -> None:
        """Commit check."""
        await self._ask("<commit-configuration><check/></commit-configuration>", self._target.deadlines.commit)

    async def commit(self, comment: str, confirm_minutes: int | None = None) -> None:
        """Commit."""
        confirmed = ""
        if confirm_minutes is not None:
            confirmed = f"<confirmed/><confirm-timeout>{confirm_minutes}</confirm-timeout>"
        operation = f"<commit-configuration><log>{escape(comment)}</log>{confirmed}</commit-configuration>"
        await self._ask(operation, self._target.deadlines.commit)

    async def query(self, operation: str) -> etree._Element:
        """Any RPC that changes nothing."""
        return await self._ask(operation)

    async def _ask(self, operation: str, deadline: float | None = None) -> etree._Element:
        if self._session is None:
            raise SessionLost(self._target.name, "the session is closed")
        async with refusals_named(self._target.name):
            return await self._session.rpc(operation, deadline=deadline or self._target.deadlines.rpc)


@asynccontextmanager
async def refusals_named(device: str) -> AsyncIterator[None]:
    """Say in Junos's terms what an rpc-error means."""
    try:
        yield
    except RpcError as error:
        raise refusal(device, error.detail, path=error.path, tag=error.tag, element=error.bad_element) from error
