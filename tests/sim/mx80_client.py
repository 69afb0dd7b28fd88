"""A NETCONF client with nothing in it but framing, to see what the simulator sends byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
from lxml import etree

from lab.sim.netconf_framing import Deframer, frame
from lab.sim.options import RunningSim

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
DEADLINE = 10.0
PASSWORD = "synthetic-password"


def local_name(element: Any) -> str:
    return etree.QName(element).localname


def plain(text: bytes) -> Any:
    """A reply without namespaces."""
    root = etree.fromstring(text)
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = local_name(element)
    return root


class RawSession:
    """One NETCONF session."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.deframer = Deframer()
        self.number = 0
        self.hello = b""

    async def greet(self, *, chunked: bool) -> None:
        self.hello = await self.receive()
        version = "1.1" if chunked else "1.0"
        mine = (
            f'<hello xmlns="{BASE}"><capabilities><capability>urn:ietf:params:netconf:base:{version}</capability>'
            "</capabilities></hello>"
        )
        self.process.stdin.write(frame(mine.encode(), chunked=False))
        self.deframer.chunked = chunked

    async def receive(self) -> bytes:
        async with asyncio.timeout(DEADLINE):
            while True:
                for message in self.deframer.messages():
                    return message
                data = await self.process.stdout.read(65536)
                if not data:
                    raise EOFError
                self.deframer.feed(data)

    async def send(self, body: str) -> None:
        self.number += 1
        text = f'<rpc xmlns="{BASE}" message-id="{self.number}">{body}</rpc>'
        self.process.stdin.write(frame(text.encode(), chunked=self.deframer.chunked))

    async def rpc(self, body: str) -> Any:
        """The reply without namespaces."""
        await self.send(body)
        reply = plain(await self.receive())
        assert reply.get("message-id") == str(self.number)
        return reply

    async def ok(self, body: str) -> None:
        reply = await self.rpc(body)
        assert reply.find(".//ok") is not None, etree.tostring(reply)

    async def error(self, body: str) -> Any:
        """The first rpc-error."""
        reply = await self.rpc(body)
        found = reply.find(".//rpc-error")
        assert found is not None, etree.tostring(reply)
        return found

    async def set(self, *commands: str) -> None:
        text = "\n".join(commands)
        await self.ok(
            f'<load-configuration action="set" format="text"><configuration-set>{text}</configuration-set>'
            "</load-configuration>"
        )

    async def diff(self, rollback: int = 0) -> str:
        reply = await self.rpc(f'<get-configuration compare="rollback" rollback="{rollback}" format="text"/>')
        return str(reply.findtext(".//configuration-output")).strip()


@asynccontextmanager
async def raw_session(
    sim: RunningSim, *, chunked: bool = False, user: str = "isthmus", **ssh: Any
) -> AsyncIterator[RawSession]:
    """Log in by password, with the host key the simulator told, and say hello."""
    known = ([sim.host_key().convert_to_public()], [], [])
    options = {"username": user, "password": PASSWORD, "client_keys": None, "known_hosts": known, "config": None, **ssh}
    async with asyncssh.connect(sim.host, sim.port, agent_path=None, **options) as connection:
        process = await connection.create_process(subsystem="netconf", encoding=None)
        session = RawSession(process)
        await session.greet(chunked=chunked)
        yield session


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds, at most DEADLINE."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


def ssh_config(sim: RunningSim, folder: Path) -> str:
    """An ssh_config that pins the simulator's host key, as PyEZ and ncclient take it."""
    known = folder / "known_hosts"
    known.write_text(f"[{sim.host}]:{sim.port} {sim.host_key_line}\n")
    config = folder / "ssh_config"
    config.write_text(f"Host *\n  UserKnownHostsFile {known}\n")
    return str(config)
