"""A host that refuses what the configuration asks for is told so in one line, with status 3, and nothing is left."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.net.mroute import MulticastRouter, MulticastRoutingUnsupportedError
from agent.net.tap import Tap, TapSettings
from agent.protocol.channels import Family
from lab.agents import PROGRAM
from lab.bench.engine_needs import missing_for_engine
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own that the test runs inside of."""
    if missing := missing_for_engine():
        pytest.skip(missing)
    name = f"islt{os.getpid()}-start"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with inside(name):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def refusal(directory: Path, *, state_dir: str = "state", **gateway: object) -> str:
    """What a gateway says when it ends with status 3."""
    keys = {"downstream": "lan0", "state_dir": str(directory / state_dir)} | gateway
    lines = [f"{key} = {value!r}" for key, value in keys.items()]
    text = "\n".join(['role = "gateway"', "[gateway]", *lines, "[[gateway.relay]]", 'address = "192.0.2.1"', "[api]"])
    return refused(directory, text)


def refused(directory: Path, text: str) -> str:
    """The same of any configuration that ends with its [api] section."""
    (directory / "agent.toml").write_text(f'{text}\nlisten = "{directory}/api.sock"\n')
    command = [*PROGRAM, "run", "--config", str(directory / "agent.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_tunnel_interface_in_use_is_told(namespace, tmp_path):
    with Tap(TapSettings("amt0")):
        assert "amt0: another process has it open" in refusal(tmp_path)


def test_an_interface_that_is_no_tap_is_told(namespace, tmp_path):
    subprocess.run(["ip", "link", "add", "amt0", "type", "veth", "peer", "name", "other"], check=True)
    assert "amt0: an interface of that name exists" in refusal(tmp_path)


def test_another_owner_of_multicast_routing_is_told(namespace, tmp_path):
    try:
        router = MulticastRouter(Family.IPV4)
    except MulticastRoutingUnsupportedError as error:
        pytest.skip(str(error))
    try:
        assert "owns IPV4 multicast routing" in refusal(tmp_path)
    finally:
        router.close()


def test_a_port_in_use_is_told(namespace, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        assert f"port {port}" in refusal(tmp_path, port=port)


def test_a_state_directory_that_cannot_be_used_is_told(namespace, tmp_path):
    (tmp_path / "file").write_text("no directory")
    assert str(tmp_path / "file") in refusal(tmp_path, state_dir="file")


def test_a_relay_address_in_use_is_told(namespace, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 2268))
        relay = f'[relay]\ninterfaces = "lan0"\naddress = "127.0.0.1"\nstate_dir = "{tmp_path}/state"'
        assert "127.0.0.1:2268: Address already in use" in refused(tmp_path, f'role = "relay"\n{relay}\n[api]')
