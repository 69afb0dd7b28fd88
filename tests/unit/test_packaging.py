"""The unit and the examples that are shipped."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.service.config import GatewayMode, Role, parse

PACKAGING = Path(__file__).parents[2] / "packaging"
CAPABILITIES = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"}


@pytest.fixture
def unit():
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(PACKAGING / "isthmus-agent.service")
    return parser


@pytest.mark.parametrize("role", Role)
def test_the_examples_are_valid(role):
    path = PACKAGING / f"{role.value}.toml"
    assert parse(path.read_text(), str(path)).role is role


@pytest.mark.parametrize(("name", "mode"), [("border", GatewayMode.ROUTER), ("border-frr", GatewayMode.FRR)])
def test_the_examples_of_a_border_are_valid_and_find_relays_themselves(name, mode):
    path = PACKAGING / f"{name}.toml"
    configuration = parse(path.read_text(), str(path))
    assert configuration.gateway.mode is mode
    assert [method.value for method in configuration.discovery.methods] == ["driad"]
    assert configuration.gateway.ipv6 is (mode is GatewayMode.ROUTER)


def test_the_unit_gives_exactly_the_capabilities_the_agent_uses(unit):
    assert set(unit["Service"]["AmbientCapabilities"].split()) == CAPABILITIES
    assert set(unit["Service"]["CapabilityBoundingSet"].split()) == CAPABILITIES
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Service"]["User"] != "root"


def test_the_unit_lets_bpf_pass_and_its_filter_knows_the_name(unit):
    """Systemd has it in no group that the unit names, so that it has to be named."""
    allowed = unit["Service"]["SystemCallFilter"].split()
    assert "bpf" in allowed
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    groups = [name for name in allowed if name.startswith("@")]
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", *groups], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert "bpf" not in shown
    assert "perf_event_open" not in shown
    assert "@system-service" in shown


def test_the_unit_speaks_the_notify_protocol_and_has_a_watchdog(unit):
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["WatchdogSec"]) > 0
    assert "-HUP" in unit["Service"]["ExecReload"]


def test_only_the_preparation_is_privileged(unit):
    assert unit["Service"]["ExecStartPre"].startswith("+")
    assert unit["Service"]["ExecStart"].startswith("/")


def test_directories_of_the_unit_are_the_defaults_of_the_configuration(unit):
    from agent.service.config import Configuration

    configuration = Configuration(role=Role.GATEWAY)
    assert str(configuration.state_dir) == f"/var/lib/{unit['Service']['StateDirectory']}"
    assert configuration.api.listen.startswith(f"/run/{unit['Service']['RuntimeDirectory']}/")


@pytest.fixture
def unit_here(tmp_path):
    """The unit with programs and a user this machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    text = (PACKAGING / "isthmus-agent.service").read_text()
    copy = tmp_path / "isthmus-agent.service"
    copy.write_text(text.replace("/usr/local/bin/amt-agent", "/bin/true").replace("=isthmus\n", "=daemon\n"))
    return copy


def test_systemd_accepts_the_unit(unit_here):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit_here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if unit_here.name in line]
    assert complaints == []


def test_systemd_finds_the_sandbox_tight(unit_here):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=35", str(unit_here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is too old for --offline")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
