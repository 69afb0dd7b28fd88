"""The command parser and the tree of the running configuration. All configurations are synthetic."""

from __future__ import annotations

import itertools

import pytest

from lab.sim.iosxe import profiles
from lab.sim.iosxe.configuration import RunningConfiguration
from lab.sim.iosxe.words import Refusal

XE = frozenset({"amt", "netconf", "acl-numbers"})
RELAY = """\
interface Tunnel2268
 ip address 192.0.2.1 255.255.255.0
 no ip redirects
 ip pim sparse-mode
 ip igmp version 3
 tunnel source Loopback0
 tunnel mode udp multipoint
 tunnel dst-port dynamic
 tunnel src-port dynamic
 amt relay traffic ip
"""


def type_lines(configuration: RunningConfiguration, *lines: str) -> None:
    path = ()
    for line in lines:
        path = configuration.apply(line, path)


def section(configuration: RunningConfiguration, header: str) -> list[str]:
    found = configuration.section(header)
    assert found is not None
    return list(found.rendered())[1:]


def test_a_relay_is_printed_as_it_was_typed():
    assert "\n".join(RunningConfiguration.parsed(RELAY, XE).lines()) == "!\n" + RELAY + "!"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1:])
def test_the_order_of_typing_does_not_show(order):
    parts = [
        "ip access-list extended B\n permit ip any any\n",
        "interface Loopback7\n description x\n",
        "interface Loopback11\n",
    ]
    reference = RunningConfiguration.parsed("".join(parts), XE).text()
    assert RunningConfiguration.parsed("".join(parts[index] for index in order), XE).text() == reference
    assert reference.index("Loopback7") < reference.index("Loopback11")


@pytest.mark.parametrize(
    "profile", [profiles.iosxe("17.9.4a", relay=True), profiles.ios()], ids=lambda one: one.platform
)
def test_what_is_printed_is_read_back_the_same(profile):
    text = profile.configuration.replace("{hostname}", "r").replace("{username}", "u")
    printed = RunningConfiguration.parsed(text, profile.features).text()
    assert RunningConfiguration.parsed(printed, profile.features).text() == printed


def test_the_last_value_wins_and_no_takes_it_away():
    configuration = RunningConfiguration(XE)
    type_lines(
        configuration, "interface lo5", "ip address 192.0.2.9 255.255.255.255", "description first", "desc second one"
    )
    assert section(configuration, "interface Loopback5") == [
        " description second one",
        " ip address 192.0.2.9 255.255.255.255",
    ]
    type_lines(configuration, "interface Loopback 5", "ip address 192.0.2.8 255.255.255.255", "no description")
    assert section(configuration, "interface Loopback5") == [" ip address 192.0.2.8 255.255.255.255"]
    type_lines(configuration, "int loopback5", "no ip address")
    assert section(configuration, "interface Loopback5") == [" no ip address"]


def test_modes_of_pim_replace_each_other_and_keep_the_rest():
    configuration = RunningConfiguration(XE)
    type_lines(configuration, "interface tu1", "ip pim dr-priority 5", "ip pim sparse-mode", "ip pim passive")
    assert section(configuration, "interface Tunnel1") == [" no ip address", " ip pim dr-priority 5", " ip pim passive"]
    type_lines(configuration, "interface tu1", "no ip pim passive", "no ip pim dr-priority")
    assert section(configuration, "interface Tunnel1") == [" no ip address"]


def test_defaults_are_not_printed():
    configuration = RunningConfiguration(XE)
    type_lines(
        configuration, "interface tu1", "ip igmp version 3", "ip igmp version 2", "no ip redirects", "ip redirects"
    )
    assert section(configuration, "interface Tunnel1") == [" no ip address"]


def test_access_list_entries_are_numbered_and_removed_either_way():
    configuration = RunningConfiguration(XE)
    header = "ip access-list extended PROTECT"
    type_lines(configuration, header, "permit udp any host 192.0.2.1 eq 2268", "deny ip any any", "deny ip any any")
    type_lines(configuration, header, "15 permit icmp any any")
    assert section(configuration, header) == [
        " 10 permit udp any host 192.0.2.1 eq 2268",
        " 15 permit icmp any any",
        " 20 deny ip any any",
    ]
    with pytest.raises(Refusal, match="Duplicate sequence number"):
        type_lines(configuration, header, "20 permit gre any any")
    type_lines(configuration, header, "no 15", "no permit udp any host 192.0.2.1 eq 2268")
    assert section(configuration, header) == [" 20 deny ip any any"]


def test_older_releases_print_access_lists_without_numbers():
    configuration = RunningConfiguration()
    type_lines(configuration, "ip access-list standard GROUPS", "permit 232.0.0.0 0.255.255.255")
    assert section(configuration, "ip access-list standard GROUPS") == [" permit 232.0.0.0 0.255.255.255"]


def test_prefix_lists_get_numbers_and_go_as_a_whole():
    configuration = RunningConfiguration(XE)
    type_lines(configuration, "ip prefix-list A permit 192.0.2.0/24", "ip prefix-list A permit 198.51.100.0/24 le 32")
    type_lines(configuration, "ip prefix-list AB permit 203.0.113.0/24")
    assert [line.text for line in configuration.matching("ip prefix-list A ")] == [
        "ip prefix-list A seq 5 permit 192.0.2.0/24",
        "ip prefix-list A seq 10 permit 198.51.100.0/24 le 32",
    ]
    type_lines(configuration, "no ip prefix-list A")
    assert [line.text for line in configuration.matching("ip prefix-list")] == [
        "ip prefix-list AB seq 5 permit 203.0.113.0/24"
    ]


def test_sections_are_nested_and_global_commands_leave_them():
    configuration = RunningConfiguration(XE)
    type_lines(configuration, "router bgp 65000", "address-family ipv4", "network 192.0.2.0", "interface Loopback0")
    assert section(configuration, "router bgp 65000") == [" address-family ipv4", "  network 192.0.2.0"]
    type_lines(configuration, "router bgp 65000", "no address-family ipv4", "no router bgp 65000")
    assert configuration.section("router bgp 65000") is None


def test_physical_interfaces_stay():
    configuration = RunningConfiguration.parsed("interface GigabitEthernet1\n", XE)
    with pytest.raises(Refusal, match="physical"):
        type_lines(configuration, "no interface GigabitEthernet1")
    assert configuration.section("interface GigabitEthernet1") is not None


def caret(text: str) -> int:
    return text.splitlines()[0].index("^")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("amt relay traffik ip", "traffik"),
        ("ip address 192.0.2 255.0.0.0", "192.0.2"),
        ("tunnel mode udp multipoints", "multipoints"),
        ("ip igmp version 4", "4"),
        ("bogus", "bogus"),
        ("no bogus words", "bogus"),
    ],
)
def test_the_caret_stands_under_the_wrong_word(line, wrong):
    configuration = RunningConfiguration(XE)
    path = configuration.apply("interface Tunnel1", ())
    before = configuration.text()
    with pytest.raises(Refusal) as refused:
        configuration.apply(line, path, prompt_length=7)
    assert "% Invalid input detected at '^' marker." in refused.value.text
    assert caret(refused.value.text) == 7 + line.index(wrong)
    assert configuration.text() == before


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("ip address", "% Incomplete command."),
        ("ip pim spa", "% Ambiguous command"),
        ("tunnel so", "% Incomplete command."),
    ],
)
def test_unfinished_lines_are_told_apart(line, answer):
    configuration = RunningConfiguration(XE)
    path = configuration.apply("interface Tunnel1", ())
    with pytest.raises(Refusal) as refused:
        configuration.apply(line, path)
    assert answer in refused.value.text


def test_without_the_feature_amt_is_unknown():
    configuration = RunningConfiguration()
    path = configuration.apply("interface Tunnel1", ())
    for line in ("amt relay traffic ip", "tunnel mode udp multipoint"):
        with pytest.raises(Refusal, match="Invalid input"):
            configuration.apply(line, path)


def test_an_unnumbered_interface_has_no_address():
    configuration = RunningConfiguration(XE)
    type_lines(configuration, "interface tu1", "ip address 192.0.2.1 255.255.255.0", "ip unnumbered Loopback0")
    assert section(configuration, "interface Tunnel1") == [" ip unnumbered Loopback0"]
    type_lines(configuration, "interface tu1", "ip address 192.0.2.1 255.255.255.0")
    assert section(configuration, "interface Tunnel1") == [" ip address 192.0.2.1 255.255.255.0"]
    type_lines(configuration, "interface tu1", "ip unnumbered lo0", "no ip unnumbered")
    assert section(configuration, "interface Tunnel1") == [" no ip address"]
