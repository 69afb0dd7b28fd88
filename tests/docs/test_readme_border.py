"""The README's chapter about the border of a PIM domain, done as it is printed: with a router of FRR behind the border.

Only names of interfaces differ, and a relay is named where a reader has the DNS find it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.protocol.discovery import DiscoveryMethod
from agent.service.config import GatewayMode, parse
from lab.agents import PROGRAM, AgentPlace
from lab.frr import FrrRouter, missing_for_frr
from lab.namespaces import Lab, wait_until
from lab.scenario import Scenario
from lab.topology import BORDER_UPLINK, ROUTER_DOWNSTREAM, ROUTER_UPSTREAM, SSM_GROUP_IPV4, Topology, downstream

README = Path(__file__).parents[2] / "README.md"
HEADING = "## The border of a PIM domain\n"
needs_frr = pytest.mark.skipif(bool(missing := missing_for_frr()), reason=f"FRR needs {', '.join(missing)}")
QUICK = """
[igmp]
query_interval = 4.0
query_response_interval = 1.0
startup_query_interval = 1.0
"""
"""Waiting for listeners is no part of what is printed."""


def block(words: str) -> str:
    """The only indented block with these words, without its indent."""
    chapter = README.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", chapter, re.MULTILINE)
    (found,) = [item for item in blocks if words in item]
    return "".join(line[4:] or "\n" for line in found.strip("\n").splitlines(keepends=True)) + "\n"


def vendor(name: str) -> str:
    """The lines for routers of this vendor, without their heading."""
    (found,) = [part for part in block("! FRR").split("\n\n") if part.splitlines()[0].endswith(f" {name}")]
    return "".join(f"{line}\n" for line in found.splitlines()[1:])


def configurations() -> dict[GatewayMode, str]:
    return {GatewayMode.ROUTER: block("native = "), GatewayMode.FRR: block('mode = "frr"')}


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_configurations_are_valid(mode, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(configurations()[mode])
    done = CliRunner().invoke(main, ["config", "check", str(path)])
    assert done.exit_code == 0, done.output
    configuration = parse(path.read_text(), str(path))
    assert configuration.gateway.mode is mode
    assert configuration.discovery.methods == (DiscoveryMethod.DRIAD,)


def test_every_key_the_chapter_names_is_one():
    chapter = README.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    defaults = CliRunner().invoke(main, ["config", "show-defaults"]).output
    for key in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", chapter):
        assert re.search(rf"^#? ?{key} = ", defaults, re.MULTILINE), key


def junos_document(lines: list[str]) -> ET.Element:
    """Set commands as the configuration they make; of what is named only interfaces and routes are lists here."""
    root = ET.Element("configuration")
    for line in lines:
        set_, *words = line.split()
        assert set_ == "set"
        *path, leaf, value = words
        place = root
        while path:
            word = path.pop(0)
            name = path.pop(0) if word in {"interface", "route"} else None
            entries = [item for item in place.findall(word) if name is None or item.findtext("name") == name]
            place = entries[0] if entries else ET.SubElement(place, word)
            if name is not None and not entries:
                ET.SubElement(place, "name").text = name
        ET.SubElement(place, leaf).text = value
    return root


def test_the_lines_for_junos_pass_the_vendors_yang(tmp_path):
    folder = Path(os.environ.get("ISTHMUS_YANG", Path(__file__).parents[3] / "shared" / "yang"))
    if not (folder / "junosval.py").exists() or shutil.which("yanglint") is None:
        pytest.skip("Juniper's YANG (shared/yang) or yanglint is not here: nothing validates the lines")
    document = tmp_path / "configuration.xml"
    document.write_bytes(ET.tostring(junos_document(vendor("Junos").splitlines())))
    command = [sys.executable, folder / "junosval.py", document]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lines_for_ios_xe_lead_to_the_same_border():
    lines = [line.strip() for line in vendor("IOS-XE").splitlines()]
    assert lines.count("ip pim sparse-mode") == 2
    assert "ip multicast-routing distributed" in lines
    (border,) = re.findall(r"next-hop (\S+)", vendor("Junos"))
    assert f"ip route 0.0.0.0 0.0.0.0 {border}" in lines
    assert f"ip route 0.0.0.0/0 {border}\n" in vendor("FRR")


class Printed(Scenario):
    """A lab whose border runs a configuration of the README."""

    def __init__(self, lab: Lab, directory: Path, mode: GatewayMode) -> None:
        super().__init__(lab, directory, relay={"query_interval": 1.0, "query_response_interval": 0.5})
        text = configurations()[mode].replace("eth0", BORDER_UPLINK).replace("eth1", downstream(0))
        relay = re.search(r"^\[\[gateway.relay\]\]\n.*\n", self.border.place.configuration.read_text(), re.MULTILINE)
        assert relay
        self.border.configure(text + relay[0] + QUICK)


@pytest.fixture
def make_printed(tmp_path: Path) -> Iterator[Callable[[GatewayMode], Printed]]:
    """Makes a lab with a border of this mode, and one router behind it that was told the README's lines."""
    with ExitStack() as stack:

        def make(mode: GatewayMode) -> Printed:
            lab = stack.enter_context(Lab(Topology(prefix=f"islt{os.getpid()}", routed=1)))
            for command in ("add eth2 type veth peer name native-router", "set eth2 up", "set native-router up"):
                lab.run(lab.topology.border, "ip", "link", *command.split())
            printed = stack.enter_context(Printed(lab, tmp_path, mode))
            lines = vendor("FRR").replace("eth0", ROUTER_UPSTREAM).replace("eth1", ROUTER_DOWNSTREAM)
            router = stack.enter_context(FrrRouter(lab, lab.topology.routers()[0], tmp_path, lines))
            running = router.vtysh("show running-config").splitlines()
            assert [line for line in lines.splitlines() if line not in running] == []
            return printed

        yield make


def assert_receives(printed: Printed) -> None:
    """The channel a host behind the router joins comes, because a PIM router asked for it."""
    receiver = printed.receive(SSM_GROUP_IPV4)
    printed.send(SSM_GROUP_IPV4, "--rate", "200")
    receiver.wait_for_more(60, 100)
    (channel,) = printed.border.channels()
    assert [item["kind"] for item in channel["interests"]] == ["pim"]


@pytest.mark.root
@needs_frr
def test_a_border_without_a_routing_daemon_serves_the_router_behind_it(make_printed):
    assert_receives(make_printed(GatewayMode.ROUTER))


def environment(place: AgentPlace, router: FrrRouter, directory: Path) -> list[str]:
    """How a command finds this border's configuration and FRR, and our own programs."""
    tool = directory / "bin" / "vtysh"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {" ".join(router.vtysh_command)} "$@"\n')
    tool.chmod(0o755)
    path = f"PATH={tool.parent}:{Path(PROGRAM[0]).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return ["env", "--chdir", str(directory), path, f"AMT_AGENT_CONFIG={place.configuration}"]


@pytest.mark.root
@needs_frr
def test_a_border_with_frr_serves_it_after_the_commands_as_printed(make_printed, tmp_path):
    printed = make_printed(GatewayMode.FRR)
    names = printed.lab.topology
    *commands, doctor = block("amt-agent frr-config >").splitlines()
    with FrrRouter(printed.lab, names.border, tmp_path, "") as frr:
        where = environment(printed.border.place, frr, tmp_path)
        printed.lab.run(names.border, *where, "bash", "-euc", "\n".join(commands))
        wait_until(lambda: frr.json("show ip pim neighbor").get("amt0"), 60, "FRR has the agent as its neighbour")
        found = printed.lab.run(names.border, *where, *doctor.split(), check=False).stdout
        for name in ("frr-config", "frr-neighbor", "frr-rules-ipv4"):
            assert re.search(rf"^ok +{name}\b", found, re.MULTILINE), found
        assert_receives(printed)
