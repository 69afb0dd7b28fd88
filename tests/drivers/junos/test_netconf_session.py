"""NetconfSession and the SSH below it against servers that behave badly."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import pytest

from relaymgr.domain.platforms import Platform
from relaymgr.drivers import ssh
from relaymgr.drivers.errors import (
    ConfigurationRefused,
    DeadlineExceeded,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.netconf import NetconfSession, RpcError, child_text
from relaymgr.drivers.protocol import Credential, Deadlines, DeviceTarget

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
MARK = b"]]>]]>"
Script = Callable[[Any], Awaitable[None]]


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == "right"


@asynccontextmanager
async def device(script: Script) -> AsyncIterator[DeviceTarget]:
    """A server whose netconf subsystem does what `script` says."""
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def serve(process: Any) -> None:
        try:
            await script(process)
        except (asyncssh.Error, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            process.channel.abort()

    server = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=serve, encoding=None
    )
    line = " ".join(key.export_public_key("openssh").decode().split()[:2])
    try:
        yield DeviceTarget(
            "fake",
            Platform.JUNOS,
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            host_key=line,
            deadlines=Deadlines(connect=5, rpc=1),
        )
    finally:
        server.close()
        await server.wait_closed()


async def connected(target: DeviceTarget, limit: int = 100_000) -> NetconfSession:
    return await NetconfSession.connect(target, Credential("u", "right"), limit=limit)


def hello(*capabilities: str) -> bytes:
    listed = "".join(f"<capability>{capability}</capability>" for capability in capabilities)
    return (
        f'<hello xmlns="{BASE}"><capabilities>{listed}</capabilities><session-id>7</session-id></hello>'.encode() + MARK
    )


async def greet(process: Any, version: str = "1.0") -> None:
    process.stdout.write(hello(f"urn:ietf:params:netconf:base:{version}"))
    await process.stdin.readuntil(MARK)


def answering(*replies: bytes) -> Script:
    async def script(process: Any) -> None:
        await greet(process)
        for reply in replies:
            await process.stdin.readuntil(MARK)
            process.stdout.write(reply + MARK)
        await process.stdin.read()

    return script


def reply(inside: str = "<ok/>", number: int = 1) -> bytes:
    return f'<rpc-reply xmlns="{BASE}" message-id="{number}">{inside}</rpc-reply>'.encode()


async def test_speaks_chunks_with_those_who_do():
    async def script(process: Any) -> None:
        await greet(process, "1.1")
        assert (await process.stdin.readuntil(b"\n##\n")).startswith(b"\n#")
        answer = reply("<output>chunked</output>")
        for at in range(0, len(answer), 7):
            process.stdout.write(b"\n#%d\n%b" % (len(answer[at : at + 7]), answer[at : at + 7]))
        process.stdout.write(b"\n##\n")
        await process.stdin.read()

    async with device(script) as target:
        session = await connected(target)
        assert session.session_id == "7"
        assert child_text(await session.rpc("<get/>", deadline=5), "output") == "chunked"
        await session.close()


async def test_an_error_is_raised_and_the_session_lives():
    error = (
        "<rpc-error><error-type>protocol</error-type><error-tag>lock-denied</error-tag>"
        "<error-severity>error</error-severity><error-path>[edit]</error-path><error-message>\n held \n</error-message>"
        "<error-info><session-id>42</session-id></error-info></rpc-error>"
    )
    warning = "<rpc-error><error-severity>warning</error-severity><error-message>mind</error-message></rpc-error><ok/>"
    async with device(answering(reply(error), reply(warning, 2))) as target:
        session = await connected(target)
        with pytest.raises(RpcError, match="held") as raised:
            await session.rpc("<lock/>", deadline=5)
        assert isinstance(raised.value, ConfigurationRefused)
        assert raised.value.is_lock
        assert (raised.value.path, raised.value.holder) == ("[edit]", "42")
        assert (await session.rpc("<get/>", deadline=5)) is not None
        await session.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xfe<<<",
        b"<rpc-reply>",
        b'<!DOCTYPE r [<!ENTITY a "b">]><rpc-reply>&a;</rpc-reply>',
        b"<surprise/>",
        reply("<ok/>", 99),
        b"x" * 300_000,
    ],
)
async def test_garbage_ends_the_session(answer):
    async with device(answering(answer)) as target:
        session = await connected(target)
        with pytest.raises(Garbage):
            await session.rpc("<get/>", deadline=5)
        assert not session.is_open
        with pytest.raises(SessionLost):
            await session.rpc("<get/>", deadline=5)
        await session.close()


async def test_a_reply_without_end_is_cut_at_the_limit():
    async def script(process: Any) -> None:
        await greet(process)
        while True:
            process.stdout.write(b"<x>" * 10_000)
            await process.stdout.drain()

    async with device(script) as target:
        session = await connected(target, limit=50_000)
        with pytest.raises(Garbage, match="larger"):
            await session.rpc("<get/>", deadline=10)


async def test_silence_ends_at_the_deadline():
    async with device(answering()) as target:
        session = await connected(target)
        with pytest.raises(DeadlineExceeded, match="get-configuration"):
            await session.rpc("<get-configuration secret='x'/>", deadline=0.2)
        assert not session.is_open


async def test_a_late_reply_is_never_taken_for_the_next_one():
    async with device(answering(reply("<ok/>", 1), reply("<ok/>", 1))) as target:
        session = await connected(target)
        await session.rpc("<one/>", deadline=5)
        with pytest.raises(Garbage):
            await session.rpc("<two/>", deadline=5)


@pytest.mark.parametrize(
    ("greeting", "error"),
    [(b"SSH is not NETCONF" + MARK, Garbage), (hello("urn:other"), Garbage), (b"", SessionLost)],
)
async def test_who_does_not_say_hello_is_no_netconf(greeting, error):
    async def script(process: Any) -> None:
        process.stdout.write(greeting)
        if greeting:
            await process.stdin.read()

    async with device(script) as target:
        with pytest.raises(error):
            await connected(target)


async def test_who_says_nothing_is_left_at_the_deadline():
    async def script(process: Any) -> None:
        await process.stdin.read()

    async with device(script) as target:
        slow = DeviceTarget(
            "fake", target.platform, target.host, target.port, None, target.host_key, deadlines=Deadlines(0.5)
        )
        with pytest.raises(DeadlineExceeded):
            await connected(slow)


async def test_keys_and_passwords(caplog):
    async with device(answering()) as target:
        with pytest.raises(LoginRefused) as refused:
            await NetconfSession.connect(target, Credential("u", "wrong-password-19"))
        assert "wrong-password-19" not in f"{refused.value!r} {Credential('u', 'wrong-password-19')!r} {caplog.text}"
        with pytest.raises(LoginRefused, match="private key"):
            await NetconfSession.connect(target, Credential("u", private_key="nonsense"))
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
        for pinned in (other, "nonsense", None):
            forged = DeviceTarget("fake", target.platform, target.host, target.port, None, pinned)
            with pytest.raises(HostKeyMismatch) as mismatch:
                await NetconfSession.connect(forged, Credential("u", "right"))
            if pinned == other:
                assert mismatch.value.presented == ssh.fingerprint(target.host_key or "")


async def test_a_scan_reads_what_is_pinned_then():
    async with device(answering()) as target:
        found = await ssh.scan_host_key(target.host, target.port or 0)
        assert (found.line, found.fingerprint) == (target.host_key, ssh.fingerprint(found.line))
    with pytest.raises(Unreachable):
        await ssh.scan_host_key(target.host, target.port or 0, timeout=5)
    with pytest.raises(ValueError, match="public key"):
        ssh.fingerprint("ssh-ed25519 nonsense")


def test_the_known_hosts_file_is_private_and_goes():
    target = DeviceTarget("d", Platform.JUNOS, "192.0.2.9", 2022, host_key="ssh-ed25519 AAAA comment")
    with ssh.known_hosts_file(target) as path:
        assert path.read_text() == "[192.0.2.9]:2022 ssh-ed25519 AAAA\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()
    with ssh.known_hosts_file(target, 22, host="device") as path:
        assert path.read_text().startswith("device ssh-ed25519")
