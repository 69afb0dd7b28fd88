"""What FRR is told beside the agent, and how the doctor compares; what vtysh answers here is synthetic."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.net.unicast_rules import PRIORITY_STEP
from agent.protocol.channels import Family
from agent.service.config import ConfigurationError, parse
from agent.service.doctor.frr import check_frr
from agent.service.frr_lines import frr_blocks, frr_configuration
from agent.service.frr_mode import tap_settings, wish_interfaces

FILE = """
role = "gateway"
[gateway]
mode = "frr"
downstream = ["eth1", "eth2"]
[[gateway.relay]]
address = "192.0.2.1"
[pim]
rendezvous_address = "10.255.0.1"
rendezvous_groups = ["239.1.0.0/16", "239.2.0.0/16"]
"""
WANTED = {
    ("amt0", "ip pim"),
    ("eth1", "ip pim"),
    ("eth1", "ip igmp"),
    ("eth2", "ip pim"),
    ("eth2", "ip igmp"),
    (None, "ip route 0.0.0.0/1 169.254.226.10 amt0"),
    (None, "ip route 128.0.0.0/1 169.254.226.10 amt0"),
    (None, "ip pim rp 10.255.0.1 239.1.0.0/16"),
    (None, "ip pim rp 10.255.0.1 239.2.0.0/16"),
}
RUNNING = """Building configuration...

Current configuration:
!
frr version 8.4.4
frr defaults traditional
ip pim rp 10.255.0.1 239.1.0.0/16
ip pim rp 10.255.0.1 239.2.0.0/16
!
ip route 0.0.0.0/1 169.254.226.10 amt0
ip route 128.0.0.0/1 169.254.226.10 amt0
!
interface amt0
 ip pim
 ip pim hello 1 4
exit
!
interface eth1
 ip igmp
 ip pim
exit
!
interface eth2
 ip igmp
 ip pim
exit
!
end
"""
RUNNING_10 = """frr version 10.3
ip route 0.0.0.0/1 169.254.226.10 amt0
ip route 128.0.0.0/1 169.254.226.10 amt0
ipv6 route ::/1 fe80::226:a amt0
ipv6 route 8000::/1 fe80::226:a amt0
!
interface amt0
 ip pim
 ipv6 pim
exit
!
interface eth1
 ip igmp
 ip pim
 ipv6 mld
 ipv6 pim
exit
!
interface eth2
 ip igmp
 ip pim
 ipv6 mld
 ipv6 pim
exit
!
router pim
 rp 10.255.0.1 239.1.0.0/16
 rp 10.255.0.1 239.2.0.0/16
 join-prune-interval 5
exit
!
router pim6
 rp 2001:db8::1 ff15::/16
exit
!
end
"""
NEIGHBORS = json.dumps({"amt0": {"169.254.226.10": {"interface": "amt0"}}, "eth1": {}})
RULES = [{"priority": 0}, {"priority": 80, "suppress_prefixlen": 1}, {"priority": 90}, {"priority": 32766}]


class MadeUpHost:
    """Answers of vtysh and ip, and the names of what runs."""

    def __init__(self, running=RUNNING, neighbors=NEIGHBORS, rules=None, commands=()):
        self._answers = {
            "show running-config": running,
            "show ip pim neighbor json": neighbors,
            "show ipv6 pim neighbor json": '{"amt0": {"fe80::226:a": {}}}',
        }
        self._rules = json.dumps(RULES if rules is None else rules)
        self._commands = commands

    def run(self, *command):
        return self._rules if command[0] == "ip" else self._answers[command[-1]]

    def commands(self):
        return dict(enumerate(self._commands))


def verdicts(host, text=FILE):
    return {finding.name: (finding.verdict.value, finding.seen) for finding in check_frr(host, parse(text))}


def test_every_line_of_ipv4_is_there_with_its_interface():
    lines = {item for block in frr_blocks(parse(FILE), Family.IPV4) for item in block}
    assert lines == WANTED


def test_the_text_has_each_line_once_under_its_interface():
    text = frr_configuration(parse(FILE)).splitlines()
    start = text.index("interface eth1")
    assert text[start : start + 4] == ["interface eth1", " ip pim", " ip igmp", "exit"]
    assert text.count("ip route 0.0.0.0/1 169.254.226.10 amt0") == 1
    assert not any("ipv6" in line for line in text if not line.startswith("!"))


def test_ipv6_is_told_only_when_asked_for():
    text = frr_configuration(parse(FILE), with_ipv6=True).splitlines()
    for line in (" ipv6 pim", " ipv6 mld", "ipv6 route ::/1 fe80::226:a amt0", "ipv6 route 8000::/1 fe80::226:a amt0"):
        assert line in text
    assert not frr_blocks(parse(FILE.replace("[gateway]\n", "[gateway]\nipv6 = false\n", 1)), Family.IPV6)


def test_the_command_prints_it_and_refuses_the_other_mode(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(FILE)
    printed = CliRunner().invoke(main, ["frr-config", "--config", str(path)])
    assert (printed.exit_code, printed.output) == (0, frr_configuration(parse(FILE)))
    path.write_text(FILE.replace('"frr"', '"router"'))
    assert CliRunner().invoke(main, ["frr-config", "--config", str(path)]).exit_code == 2


def test_the_doctor_is_content_with_an_frr_that_was_told_everything():
    found = verdicts(MadeUpHost())
    for name in ("frr-config", "frr-neighbor", "frr-rules-ipv4", "frr-rules-ipv6"):
        assert found[name][0] == "ok", found[name]
    assert found["frr-config-ipv6"][0] == "warn"


def test_the_doctor_reads_what_frr_10_shows_too():
    text = FILE.replace('"10.255.0.1"', '["10.255.0.1", "2001:db8::1"]').replace(
        '"239.2.0.0/16"]', '"239.2.0.0/16", "ff15::/16"]'
    )
    found = verdicts(MadeUpHost(running=RUNNING_10, commands=("pimd", "pim6d")), text)
    for name in ("frr-config", "frr-config-ipv6", "frr-neighbor", "frr-neighbor-ipv6"):
        assert found[name][0] == "ok", found[name]
    without = RUNNING_10.replace(" rp 2001:db8::1 ff15::/16\n", "")
    found = verdicts(MadeUpHost(running=without, commands=("pim6d",)), text)
    assert found["frr-config-ipv6"] == ("fail", "FRR lacks ipv6 pim rp 2001:db8::1 ff15::/16")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ip route 128.0.0.0/1 169.254.226.10 amt0\n", "ip route 128.0.0.0/1 169.254.226.10 amt0"),
        ("interface eth2\n ip igmp\n ip pim\nexit\n", "interface eth2: ip pim; interface eth2: ip igmp"),
        ("ip pim rp 10.255.0.1 239.2.0.0/16\n", "ip pim rp 10.255.0.1 239.2.0.0/16"),
    ],
)
def test_the_doctor_names_the_line_frr_lacks(line, named):
    verdict, seen = verdicts(MadeUpHost(running=RUNNING.replace(line, "")))["frr-config"]
    assert (verdict, seen) == ("fail", f"FRR lacks {named}")


def test_the_doctor_tells_of_an_absent_neighbour_daemon_or_tool():
    assert verdicts(MadeUpHost(neighbors='{"amt0": {}}'))["frr-neighbor"][0] == "warn"
    assert verdicts(MadeUpHost(neighbors="pimd is not running\n"))["frr-neighbor"][0] == "unknown"
    assert verdicts(MadeUpHost(running=None))["frr"][0] == "unknown"
    assert verdicts(MadeUpHost(commands=("pim6d",)))["frr-config-ipv6"][0] == "fail"


def test_the_doctor_warns_of_rules_that_come_too_late():
    assert verdicts(MadeUpHost(rules=[*RULES, {"priority": 1000}]))["frr-rules-ipv4"][0] == "warn"
    assert verdicts(MadeUpHost(rules=[*RULES, {"priority": 70}]))["frr-rules-ipv4"][0] == "ok"
    assert max(rule["priority"] for rule in RULES[:-1]) == 80 + PRIORITY_STEP


def test_the_doctor_looks_for_the_operators_rules_when_the_agent_makes_none():
    text = FILE + "[frr]\nmanage_rules = false\n"
    assert verdicts(MadeUpHost(), text)["frr-rules-ipv4"][0] == "ok"
    assert verdicts(MadeUpHost(rules=[{"priority": 0}]), text)["frr-rules-ipv4"][0] == "fail"


def test_nothing_is_said_of_frr_in_mode_router():
    assert not list(check_frr(MadeUpHost(), parse(FILE.replace('"frr"', '"router"'))))
    assert not list(check_frr(MadeUpHost(), None))


def test_the_tunnel_interface_has_the_addresses_of_its_mode():
    configuration = parse(FILE)
    assert [str(address) for address in tap_settings(configuration).addresses] == ["169.254.226.9/30", "fe80::226:9/64"]
    assert wish_interfaces(configuration) == ("amt0",)
    router = parse(FILE.replace('"frr"', '"router"'))
    assert [str(address) for address in tap_settings(router).addresses] == ["192.0.0.8/32"]
    assert wish_interfaces(router) == ("eth1", "eth2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("[pim]", '[frr]\nneighbor_address = "169.254.226.9/30"\n[pim]'), "same IP versions"),
        (
            FILE.replace("[pim]", '[frr]\nrouter_address = "10.0.0.1/30"\nneighbor_address = "10.0.0.5/30"\n[pim]'),
            "another address of 10.0.0.0/30",
        ),
        (
            FILE.replace("[pim]", '[frr]\nrouter_address = ["10.0.0.1/30", "10.0.0.2/30"]\n[pim]'),
            "at most one address of each IP version",
        ),
        (FILE.replace('mode = "frr"', 'mode = "frr"\nnative = "eth3"'), "in mode frr FRR routes native multicast"),
        (
            FILE + '[[gateway.join]]\nsource = "192.0.2.9"\ngroup = "232.1.1.1"\ninterface = "eth1"\n',
            "FRR chooses the interfaces",
        ),
    ],
)
def test_what_makes_no_sense_beside_frr_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse(text)
