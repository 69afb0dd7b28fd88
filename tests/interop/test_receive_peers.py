"""The host role, stripped of every capability, against relays that are not the synthetic one of its own tests."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from agent.protocol.wire import amt
from lab.agents import Agent, AgentPlace, relay_configuration
from lab.kernel_amt.guest import Guest, missing_to_boot
from lab.kernel_amt.roles import relay_script
from lab.topology import (
    ASM_GROUP_IPV4,
    ASM_GROUP_IPV6,
    DISCOVERY,
    GUEST,
    HOST_INTERFACE,
    PAYLOAD_PORT,
    RELAY,
    SOURCE,
    SSM_GROUP_IPV4,
    SSM_GROUP_IPV6,
)
from lab.traffic import HEADER

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the program setpriv (util-linux)"),
]

SIZE, RATE, SECONDS = 1000, 100, 2.0
PACE = f"--rate {RATE} --size {SIZE}"
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
PROGRAM = [sys.executable, "-c", "from agent.cli import main; main()", "receive"]
KINDS = {
    "IGMP, source-specific": (str(SOURCE.ipv4), SSM_GROUP_IPV4),
    "MLD, source-specific": (str(SOURCE.ipv6), SSM_GROUP_IPV6),
    "IGMP, any source": ("*", ASM_GROUP_IPV4),
    "MLD, any source": ("*", ASM_GROUP_IPV6),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def receive(lab, target, kind, *arguments):
    """Summary of a run at the border, and the sequence numbers of what it wrote."""
    command = [*PROGRAM, *KINDS[kind], "--port", str(PAYLOAD_PORT), "--seconds", str(SECONDS), "--json"]
    command += ["--out", str(target), *arguments]
    done = lab.run(lab.topology.border, *WITHOUT_CAPABILITIES, *command, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    written = target.read_bytes()
    assert len(written) % SIZE == 0
    return json.loads(done.stdout), [HEADER.unpack_from(written, offset)[2] for offset in range(0, len(written), SIZE)]


def assert_whole(summary, numbers):
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) == summary["packets"] >= RATE * SECONDS * 0.9
    assert not summary["output_dropped"]


@pytest.mark.uml
@pytest.mark.slow
def test_every_kind_of_channel_comes_from_the_kernels_relay(make_lab, tmp_path):
    if missing := missing_to_boot():
        pytest.skip("needs " + ", ".join(missing))
    lab = make_lab()
    send = "\n".join(
        f"in_source $PYTHON -m lab send {group} --interface {HOST_INTERFACE} {PACE} --seconds 120 &"
        for _, group in KINDS.values()
    )
    with Guest(lab, lab.topology.internet, relay_script(send)) as guest:
        guest.wait_for("ready")
        for number, kind in enumerate(KINDS):
            summary, numbers = receive(lab, tmp_path / f"{number}", kind, "--relay", str(GUEST.ipv4))
            assert_whole(summary, numbers)
            assert summary["relay"] == f"{GUEST.ipv4}:{amt.PORT}"


def send_all(lab):
    for _, group in KINDS.values():
        send = [sys.executable, "-m", "lab", "send", group, "--interface", HOST_INTERFACE]
        lab.start(lab.topology.source, *send, *PACE.split())


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_every_kind_of_channel_comes_from_our_relay(make_lab, tmp_path, outer):
    lab = make_lab()
    relay = Agent(lab, AgentPlace(lab.topology.relay, tmp_path, "relay"), relay_configuration())
    try:
        relay.start()
        send_all(lab)
        for number, kind in enumerate(KINDS):
            address = str(getattr(RELAY, outer))
            summary, numbers = receive(lab, tmp_path / f"{number}", kind, "--relay", address)
            assert_whole(summary, numbers)
            assert summary["gateway_address"].rpartition(":")[2] == str(amt.PORT)
    finally:
        relay.close()


def test_the_anycast_discovery_address_is_the_default(make_lab, tmp_path):
    lab = make_lab()
    configuration = relay_configuration(discovery_address=[str(DISCOVERY.ipv4)])
    relay = Agent(lab, AgentPlace(lab.topology.relay, tmp_path, "relay"), configuration)
    try:
        relay.start()
        send_all(lab)
        summary, numbers = receive(lab, tmp_path / "stream", "IGMP, source-specific")
        assert_whole(summary, numbers)
        assert summary["relay"] == f"{RELAY.ipv4}:{amt.PORT}"
        assert summary["join_latency"] < 1.0
    finally:
        relay.close()
