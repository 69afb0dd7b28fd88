"""The one session to a router: a command line or NETCONF, never both; one is closed before the other opens."""

from __future__ import annotations

from lxml import etree

from relaymgr.drivers.errors import ConfigurationRefused, Garbage, SessionLost
from relaymgr.drivers.iosxe.cli import CliSession
from relaymgr.drivers.netconf import NetconfSession
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext


class Sessions:
    """Opens, keeps and closes the session of one router."""

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._credential = credential
        self._context = context
        self._cli: CliSession | None = None
        self._netconf: NetconfSession | None = None

    async def cli(self) -> CliSession:
        """The command line."""
        await self._close_netconf()
        if self._cli is None or not self._cli.is_open:
            self._cli = await CliSession.connect(self._target, self._credential, self._context.executor)
        return self._cli

    async def netconf(self) -> NetconfSession:
        """NETCONF on `target.netconf_port`."""
        await self._close_cli()
        if self._netconf is None or not self._netconf.is_open:
            port = self._target.netconf_port
            self._netconf = await NetconfSession.connect(self._target, self._credential, port)
        return self._netconf

    async def show(self, command: str) -> str:
        """Output of an EXEC command; once more on a new session where a kept one turns out to be gone."""
        is_kept = self._cli is not None and self._cli.is_open
        try:
            return await (await self.cli()).show(command)
        except SessionLost:
            if not is_kept:
                raise
        return await (await self.cli()).show(command)

    async def get(self, operation: str) -> etree._Element:
        """Reply to a NETCONF operation that changes nothing; once more where a kept session turns out to be gone."""
        is_kept = self._netconf is not None and self._netconf.is_open
        seconds = self._target.deadlines.rpc
        try:
            return await (await self.netconf()).rpc(operation, deadline=seconds)
        except SessionLost:
            if not is_kept:
                raise
        return await (await self.netconf()).rpc(operation, deadline=seconds)

    async def running_configuration(self) -> str:
        """The whole running configuration.

        Raises:
            ConfigurationRefused: the user may not see it.
            Garbage: what came is not whole.
        """
        output = await self.show("show running-config")
        lines = [line.rstrip() for line in output.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        if not lines or lines[-1] != "end":
            if output.lstrip().startswith("%"):
                raise ConfigurationRefused(self._target.name, "show running-config: not allowed; it takes privilege 15")
            raise Garbage(self._target.name, "its running configuration does not end with `end`")
        begin = next((at for at, line in enumerate(lines) if line.startswith("Current configuration")), -1)
        return "\n".join(lines[begin + 1 :]) + "\n"

    async def close(self) -> None:
        """End the session, if any. Never raises."""
        await self._close_cli()
        await self._close_netconf()

    async def _close_cli(self) -> None:
        session, self._cli = self._cli, None
        if session is not None:
            await session.close()

    async def _close_netconf(self) -> None:
        session, self._netconf = self._netconf, None
        if session is not None:
            await session.close()
