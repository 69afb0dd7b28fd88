"""Sessions with the simulated MX80 byte by byte, and through ncclient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from lxml import etree
from ncclient import manager
from ncclient.operations import RPCError
from sim.mx80_client import BASE, PASSWORD, eventually, raw_session, ssh_config

from lab.sim import mx80
from lab.sim.netconf_framing import Deframer, FramingError, frame
from lab.sim.options import RunningSim, SimOptions
from lab.sim.ssh_server import OLD_HOST_KEY, OLD_KEY_EXCHANGE

OLD_ALGORITHMS = "ignore:Diffie-Hellman over finite fields"


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    async with mx80.start(SimOptions(tunnels=2, configured=True, read_only_user="viewer")) as running:
        yield running


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("chunked", [False, True])
def test_framing_survives_any_cut(size: int, chunked: bool) -> None:
    sent = [b"<a/>", b"<b>]]>]]</b>", b"\n#4\n"]
    stream = b"".join(frame(message, chunked=chunked) for message in sent)
    deframer = Deframer()
    deframer.chunked = chunked
    got = []
    for start in range(0, len(stream), size):
        deframer.feed(stream[start : start + size])
        got += deframer.messages()
    assert got == sent


def test_several_chunks_are_one_message() -> None:
    deframer = Deframer()
    deframer.chunked = True
    deframer.feed(b"\n#3\n<a>\n#4\n</a>\n##\n")
    assert list(deframer.messages()) == [b"<a></a>"]


@pytest.mark.parametrize("stream", [b"<rpc/>]]>]]>", b"\n#0\n", b"\n#x\n<a/>", b"\n#99999999999999\n"])
def test_broken_chunks_end_the_session(stream: bytes) -> None:
    deframer = Deframer()
    deframer.chunked = True
    deframer.feed(stream)
    with pytest.raises(FramingError):
        list(deframer.messages())


@pytest.mark.parametrize("chunked", [False, True])
async def test_both_framings(sim: RunningSim, chunked: bool) -> None:
    async with raw_session(sim, chunked=chunked) as session:
        assert b"urn:ietf:params:netconf:base:1.1" in session.hello
        assert b"<session-id>" in session.hello
        reply = await session.rpc("<get-system-information/>")
        assert reply.findtext(".//host-name") == "mx80"
        await session.ok("<close-session/>")
    assert [entry["summary"] for entry in sim.log if entry["kind"] == "hello"][-1] == (
        "chunked" if chunked else "end-of-message"
    )


async def test_replies_copy_attributes_and_carry_no_declaration(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        body = f'<rpc xmlns="{BASE}" message-id="x&amp;1" odd="2"><get-amt-summary/></rpc>'
        session.process.stdin.write(frame(body.encode(), chunked=False))
        reply = await session.receive()
    assert not reply.startswith(b"<?xml")
    root = etree.fromstring(reply)
    assert (root.get("message-id"), root.get("odd")) == ("x&1", "2")


async def test_rubbish_is_answered_with_an_error(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        for rubbish in (b"<rpc", b"<other/>", b"<rpc/>", b"", b"<!DOCTYPE a [<!ENTITY b 'c'>]><rpc>&b;</rpc>"):
            session.process.stdin.write(frame(rubbish, chunked=False))
            assert b"malformed-message" in await session.receive()
        await session.rpc("<get-amt-summary/>")


async def test_sessions_run_side_by_side(sim: RunningSim) -> None:
    async with raw_session(sim) as one, raw_session(sim, chunked=True) as two, raw_session(sim) as three:
        replies = await asyncio.gather(*(session.rpc("<get-amt-summary/>") for session in (one, two, three)))
        assert [reply.findtext(".//amt-active-tunnels") for reply in replies] == ["2", "2", "2"]
        assert len(sim.device.sessions) == 3
    await eventually(lambda: not sim.device.sessions)


async def test_lock_ends_with_its_session(sim: RunningSim) -> None:
    async with raw_session(sim) as other:
        async with raw_session(sim) as holder:
            await holder.ok("<lock-configuration/>")
            await holder.set("set system host-name lost")
            error = await other.error("<lock-configuration/>")
            assert error.findtext("error-tag") == "lock-denied"
            assert error.findtext("error-info/session-id") == str(max(sim.device.sessions))
            assert (await other.error("<commit-configuration/>")).findtext("error-tag") == "lock-denied"
        await eventually(lambda: sim.device.lock_holder is None)
        assert await other.diff() == ""
        await other.ok("<lock-configuration/>")
        await other.ok("<unlock-configuration/>")
        await other.error("<unlock-configuration/>")


async def test_what_was_not_committed_stays_without_a_lock(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        await session.set("set system host-name other")
    async with raw_session(sim) as session:
        assert "+   host-name other;" in await session.diff()
        await session.ok("<discard-changes/>")
        assert await session.diff() == ""


async def test_kill_session_frees_the_lock(sim: RunningSim) -> None:
    async with raw_session(sim) as holder, raw_session(sim) as other:
        await holder.ok("<lock-configuration/>")
        number = (await other.error("<lock-configuration/>")).findtext("error-info/session-id")
        await other.ok(f"<kill-session><session-id>{number}</session-id></kill-session>")
        with pytest.raises((EOFError, asyncssh.Error)):
            await holder.receive()
        await other.ok("<lock-configuration/>")
        await other.error("<kill-session><session-id>1</session-id></kill-session>")


async def test_public_key_login(sim: RunningSim) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key("openssh").decode()
    async with mx80.start(SimOptions(password=None, authorized_keys=(line,))) as keyed:
        async with raw_session(keyed, client_keys=[key], password=None) as session:
            await session.rpc("<get-system-information/>")
        with pytest.raises(asyncssh.PermissionDenied):
            async with raw_session(keyed, client_keys=[asyncssh.generate_private_key("ssh-ed25519")]):
                pass


async def test_strangers_are_not_let_in(sim: RunningSim) -> None:
    for login in ({"user": "root"}, {"password": "wrong"}):
        with pytest.raises(asyncssh.PermissionDenied):
            async with raw_session(sim, **login):
                pass


@pytest.mark.filterwarnings(OLD_ALGORITHMS)
async def test_old_ssh_offers_old_algorithms_only() -> None:
    async with mx80.start(SimOptions(old_ssh=True)) as sim:
        assert sim.host_key_line.startswith("ssh-rsa ")
        for modern in (
            {
                "kex_algs": ["curve25519-sha256", "diffie-hellman-group14-sha256"],
                "server_host_key_algs": [OLD_HOST_KEY],
            },
            {"kex_algs": [OLD_KEY_EXCHANGE], "server_host_key_algs": ["rsa-sha2-256", "rsa-sha2-512", "ssh-ed25519"]},
        ):
            with pytest.raises(asyncssh.KeyExchangeFailed):
                async with raw_session(sim, **modern):
                    pass
        async with raw_session(sim, kex_algs=[OLD_KEY_EXCHANGE], server_host_key_algs=[OLD_HOST_KEY]) as session:
            await session.rpc("<get-system-information/>")


async def test_anything_but_netconf_is_refused(sim: RunningSim) -> None:
    known = ([sim.host_key().convert_to_public()], [], [])
    login: dict[str, Any] = {"username": "isthmus", "password": PASSWORD, "client_keys": None, "config": None}
    async with asyncssh.connect(sim.host, sim.port, known_hosts=known, agent_path=None, **login) as connection:
        result = await connection.run("show version")
        assert result.exit_status == 1
        assert "NETCONF only" in str(result.stderr)


async def test_confirm_window_runs_out_without_any_session() -> None:
    async with mx80.start(SimOptions(minute_seconds=0.2)) as sim:
        async with raw_session(sim) as session:
            await session.set("set system host-name short")
            await session.ok(
                "<commit-configuration><confirmed/><confirm-timeout>1</confirm-timeout></commit-configuration>"
            )
        await eventually(lambda: "host-name mx80" in sim.device.committed_set())
        assert [entry for entry in sim.log if entry["kind"] == "rollback"]


async def test_confirm_timeout_has_a_range_and_a_default(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        for wrong in ("0", "65536", "soon"):
            await session.error(
                f"<commit-configuration><confirmed/><confirm-timeout>{wrong}</confirm-timeout></commit-configuration>"
            )
        await session.ok("<commit-configuration><confirmed/></commit-configuration>")
        reply = await session.rpc("<get-commit-information/>")
        assert reply.findtext(".//comment") == "commit confirmed, rollback in 10mins"
        await session.ok("<commit-configuration><check/></commit-configuration>")
        assert sim.device.history.deadline is None


async def test_a_failing_check_does_not_confirm(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        await session.ok("<commit-configuration><confirmed/></commit-configuration>")
        await session.set("set protocols bgp export nowhere")
        error = await session.error("<commit-configuration><check/></commit-configuration>")
        assert error.findtext("error-path") == "[edit protocols bgp export]"
        assert sim.device.history.deadline is not None


async def test_rollback_information(sim: RunningSim) -> None:
    sim.device.edit("set system host-name later")
    async with raw_session(sim) as session:
        reply = await session.rpc("<get-rollback-information><rollback>1</rollback></get-rollback-information>")
        assert "host-name mx80;" in str(reply.findtext(".//configuration-text"))
        reply = await session.rpc(
            "<get-rollback-information><rollback>0</rollback><compare>1</compare></get-rollback-information>"
        )
        assert "+   host-name later;" in str(reply.findtext(".//configuration-output"))


async def test_cli_commands(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        reply = await session.rpc('<command format="xml">show amt tunnel detail</command>')
        assert len(reply.findall(".//amt-tunnel-gateway-mac")) == 2
        await session.error("<command>show nothing</command>")


async def test_viewer_may_not_change(sim: RunningSim) -> None:
    async with raw_session(sim, user="viewer") as session:
        await session.rpc("<get-configuration/>")
        for body in ("<lock-configuration/>", "<commit-configuration/>", "<discard-changes/>", "<load-configuration/>"):
            error = await session.error(body)
            assert error.findtext("error-message").strip() == "permission denied"


async def test_log_tells_messages_without_configuration(sim: RunningSim) -> None:
    async with raw_session(sim) as session:
        await session.set("set system root-authentication encrypted-password hidden-in-logs")
        await session.ok("<commit-configuration><confirmed/><log>a comment</log></commit-configuration>")
    kinds = [(entry["direction"], entry["kind"]) for entry in sim.log]
    assert kinds[:6] == [
        ("out", "hello"),
        ("in", "hello"),
        ("in", "load-configuration"),
        ("out", "load-configuration"),
        ("in", "commit-configuration"),
        ("out", "commit-configuration"),
    ]
    assert "hidden-in-logs" not in str(sim.log)
    assert "a comment" not in str(sim.log)
    assert next(entry for entry in sim.log if entry["kind"] == "commit-configuration")["summary"] == "confirmed log"


async def test_ncclient_standard_operations(sim: RunningSim, tmp_path: Path) -> None:
    def work() -> None:
        with manager.connect(
            host=sim.host,
            port=sim.port,
            username="isthmus",
            password=PASSWORD,
            hostkey_verify=True,
            ssh_config=ssh_config(sim, tmp_path),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
        ) as session:
            subtree = "<configuration><system><host-name/></system></configuration>"
            assert "mx80" in session.get_config("running", filter=("subtree", subtree)).data_xml
            with session.locked("candidate"):
                session.edit_config(
                    target="candidate",
                    config="<config><configuration><system><host-name>edited</host-name></system></configuration></config>",
                )
                session.validate("candidate")
                session.commit()
            assert "edited" in session.get_config("running", filter=("subtree", subtree)).data_xml
            with pytest.raises(RPCError):
                session.edit_config(
                    target="candidate",
                    config="<config><configuration><systemm/></configuration></config>",
                )
            session.discard_changes()

    await asyncio.to_thread(work)
    assert "set system host-name edited" in sim.device.committed_set()
