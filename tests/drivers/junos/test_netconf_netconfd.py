"""NetconfSession against a NETCONF server that is not ours: Debian's netconfd (yuma123) with Juniper's YANG.

It knows the standard operations and none of Junos's own, and it sends chunks (base:1.1).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from lxml import etree

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.junos.rendering import render
from relaymgr.drivers.junos.scope import Path as ScopePath
from relaymgr.drivers.junos.scope import locate
from relaymgr.drivers.junos.trees import cut, from_text
from relaymgr.drivers.netconf import NetconfSession, RpcError
from relaymgr.drivers.netconf.documents import descendants
from relaymgr.drivers.protocol import Credential, DeviceTarget

YANG = Path(os.environ.get("ISTHMUS_YANG", Path(__file__).parents[4] / "shared" / "yang")) / "junos"
JUNIPER = "http://yang.juniper.net/junos/conf/"
BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
SUBSYSTEM = "/usr/sbin/netconf-subsystem"
PORT = 8830


class Anyone(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


def require() -> None:
    if shutil.which("netconfd", path="/usr/sbin:/usr/bin") is None or not Path(SUBSYSTEM).exists():
        pytest.skip("netconfd is not installed: nothing but our own simulator answers")
    if not YANG.is_dir():
        pytest.skip("Juniper's YANG (shared/yang) is not here: netconfd has nothing to load")


@asynccontextmanager
async def netconfd(folder: Path) -> AsyncIterator[DeviceTarget]:
    require()
    socket = folder / "sock"
    server = await asyncio.create_subprocess_exec(
        "/usr/sbin/netconfd",
        "--no-startup",
        "--target=candidate",
        "--superuser=root",
        "--access-control=off",
        f"--port={PORT}",
        f"--ncxserver-sockname={socket}",
        f"--modpath={YANG / 'common'}:{YANG / 'junos' / 'conf'}:/usr/share/yuma/modules",
        "--module=junos-conf-root",
        "--module=junos-conf-protocols",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        async with asyncio.timeout(40):
            while not socket.exists():
                assert server.returncode is None, "netconfd ended"
                await asyncio.sleep(0.1)
        async with behind_ssh(socket) as target:
            yield target
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def pump(source: Any, sink: Any) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()


@asynccontextmanager
async def behind_ssh(socket: Path) -> AsyncIterator[DeviceTarget]:
    """What sshd does with a Subsystem line."""

    async def serve(process: Any) -> None:
        environment = {"SSH_CONNECTION": f"127.0.0.1 5555 127.0.0.1 {PORT}", "USER": "root", "LOGNAME": "root"}
        inner = await asyncio.create_subprocess_exec(
            SUBSYSTEM,
            f"--ncxserver-sockname={PORT}@{socket}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )
        upstream = asyncio.create_task(pump(process.stdin, inner.stdin))
        try:
            await pump(inner.stdout, process.stdout)
        finally:
            upstream.cancel()
            await asyncio.wait({upstream})
            if inner.returncode is None:
                inner.kill()
            await inner.wait()
        process.exit(0)

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        Anyone, "127.0.0.1", 0, server_host_keys=[key], process_factory=serve, encoding=None
    )
    line = " ".join(key.export_public_key("openssh").decode().split()[:2])
    try:
        yield DeviceTarget("netconfd", Platform.JUNOS, "127.0.0.1", server.sockets[0].getsockname()[1], host_key=line)
    finally:
        server.close()
        await server.wait_closed()


def qualified(element: etree._Element, namespace: str) -> etree._Element:
    copied = etree.Element(f"{{{namespace}}}{element.tag}", nsmap={None: namespace})
    copied.text = element.text
    copied.extend([qualified(child, namespace) for child in element])
    return copied


async def test_the_standard_path_on_a_server_of_somebody_else(tmp_path, full):
    owned = render(full, drained=False)
    protocols = from_text(owned.text).find("protocols")
    assert protocols is not None
    document = etree.Element(f"{{{JUNIPER}root}}configuration", nsmap={None: JUNIPER + "root"})
    document.append(qualified(protocols, JUNIPER + "protocols"))
    edit = (
        f'<edit-config xmlns="{BASE}"><target><candidate/></target><config>'
        f"{etree.tostring(document, encoding='unicode')}</config></edit-config>"
    )
    candidate, lock = f'<get-config xmlns="{BASE}"><source><candidate/></source></get-config>', f'<lock xmlns="{BASE}">'
    async with netconfd(tmp_path) as target:
        session, other = [await NetconfSession.connect(target, Credential("root")) for _ in range(2)]
        assert session.session_id != other.session_id
        await session.rpc(f"{lock}<target><candidate/></target></lock>", deadline=10)
        with pytest.raises(RpcError) as denied:
            await other.rpc(f"{lock}<target><candidate/></target></lock>", deadline=10)
        assert denied.value.is_lock
        assert denied.value.holder == session.session_id
        await session.rpc(edit, deadline=10)
        with pytest.raises(RpcError):
            await session.rpc(edit.replace("tunnel-limit", "no-such-limit"), deadline=10)
        reply = await session.rpc(candidate, deadline=10)
        stored = next(descendants(reply, "configuration"))
        mine = tuple(path for path in owned.scope if path.startswith("protocols/"))
        assert locate(stored, ScopePath.parse("protocols/amt/relay")) is not None
        assert cut(stored, mine) == cut(from_text(owned.text), mine)
        await session.rpc(f'<discard-changes xmlns="{BASE}"/>', deadline=10)
        await session.close()
        await other.close()
