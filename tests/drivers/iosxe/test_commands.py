"""Command lines of a change: applied to a router's configuration they make the owned part equal and touch no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lab.sim.iosxe.configuration import RunningConfiguration
from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.drivers.iosxe.commands import command_lines, difference
from relaymgr.drivers.iosxe.render import render
from relaymgr.drivers.iosxe.running_config import named_by_others, owned, sections

FEATURES = frozenset({"amt", "netconf", "acl-numbers"})
FOREIGN = """hostname relay
enable secret 9 $9$synthetic
archive
 path bootflash:archive
interface Loopback0
 description management
 ip address 192.0.2.250 255.255.255.255
interface GigabitEthernet1
 description core
 ip address 10.255.0.1 255.255.255.252
 ip ospf 1 area 0
interface GigabitEthernet2
 ip address 10.255.0.5 255.255.255.252
 ip pim sparse-mode
interface Tunnel22680
 ip address 172.16.0.1 255.255.255.0
interface Loopback2268
 description the operator's words
ip access-list extended G-OF-OTHERS
 permit ip any any
ip prefix-list ADV-OF-OTHERS seq 5 permit 10.0.0.0/8
route-map ADV-OF-OTHERS permit 10
"""

ADDRESSES = some.sampled_from(["198.51.100.7", "198.51.100.8", "203.0.113.1", "203.0.113.9"])
GROUPS = some.lists(some.sampled_from(["232.0.0.0/8", "233.252.0.0/24", "239.1.0.0/16"]), min_size=1, unique=True)
GATEWAYS = some.lists(some.sampled_from(["10.0.0.0/8", "192.0.2.77/32", "0.0.0.0/0"]), unique=True)


def _interface(name: str) -> some.SearchStrategy[dict[str, Any]]:
    return some.fixed_dictionaries(
        {"name": some.just(name)},
        optional={
            "priority": some.integers(1, 3),
            "hello_interval_seconds": some.sampled_from([10, 30]),
        },
    )


@some.composite
def intents(draw: some.DrawFn) -> RelayIntent:
    local, anycast = draw(some.permutations(["198.51.100.7", "198.51.100.8", "198.51.100.9"]))[:2]
    values: dict[str, Any] = {"inet": {"anycast_prefix": f"{anycast}/32", "local_address": local}}
    if draw(some.booleans()):
        values["group_policy"] = {"name": draw(some.sampled_from(["G", "H"])), "permit": draw(GROUPS)}
    if draw(some.booleans()):
        values["protection_filter"] = {"name": "P", "permit_from": draw(GATEWAYS)}
    if draw(some.booleans()):
        values["advertise"] = {"protocol": "bgp", "policy": draw(some.sampled_from(["ADV", "OUT"]))}
    values["pim_interfaces"] = [
        draw(_interface(name)) for name in ("GigabitEthernet1", "GigabitEthernet2") if draw(some.booleans())
    ]
    values["igmp"] = {"query_interval_seconds": draw(some.sampled_from([60, 90]))} if draw(some.booleans()) else None
    values["iosxe"] = {
        "tunnel_interface": draw(some.sampled_from(["Tunnel2268", "Tunnel1"])),
        "tunnel_address": draw(some.sampled_from([None, "172.31.0.1"])),
        "anycast_loopback": draw(some.sampled_from(["Loopback2269", "Loopback9"])),
    }
    return RelayIntent.model_validate(values)


def apply(configuration: RunningConfiguration, lines: tuple[str, ...]) -> None:
    path: Any = ()
    for line in lines:
        path = configuration.apply(line, path)


def rest(configuration: RunningConfiguration, scope: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What is not owned; an interface that is there but empty is nothing."""
    mine = sections(owned(configuration.text(), scope).text)
    left = {}
    for header, lines in sections(configuration.text()).items():
        kept = tuple(line for line in lines if line not in mine.get(header, ()) and line != "no ip address")
        whole = header in mine and any(header == entry or header.startswith(f"{entry} ") for entry in scope)
        if not whole and (kept or not header.startswith("interface Loopback")):
            left[header] = kept
    return left


@settings(max_examples=60, deadline=None)
@given(intents(), intents(), some.booleans(), some.booleans())
def test_commands_lead_from_any_intent_to_any_other_and_touch_nothing_else(first, second, drained, drained_then):
    configuration = RunningConfiguration.parsed(FOREIGN, FEATURES)
    started = owned(FOREIGN, render(first, drained=drained).scope)
    for intent, is_drained in ((first, drained), (second, drained_then)):
        wanted = render(intent, drained=is_drained)
        everything = wanted.widened(started.scope)
        before = owned(configuration.text(), everything.scope)
        untouched = rest(configuration, everything.scope)
        apply(configuration, command_lines(before, everything))
        assert owned(configuration.text(), everything.scope) == everything
        assert rest(configuration, everything.scope) == untouched
        assert command_lines(everything, everything) == ()
        assert (difference(before, everything) == "") == (before == everything)


@settings(max_examples=40, deadline=None)
@given(intents(), some.booleans())
def test_taking_an_intent_away_gives_the_configuration_back(intent, drained):
    configuration = RunningConfiguration.parsed(FOREIGN, FEATURES)
    wanted = render(intent, drained=drained)
    before = owned(configuration.text(), wanted.scope)
    apply(configuration, command_lines(before, wanted))
    apply(configuration, command_lines(wanted, before))
    original = RunningConfiguration.parsed(FOREIGN, FEATURES)
    assert rest(configuration, wanted.scope) == rest(original, wanted.scope)
    assert owned(configuration.text(), wanted.scope) == before


def between(scope: tuple[str, ...], before: str, after: str) -> tuple[str, ...]:
    return command_lines(owned(before, scope), owned(after, scope))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # New entries come before old ones go: the list is never empty, which would permit everything.
        ("permit A", "permit B", ["permit B", "no permit A"]),
        # What stands before the first difference is not typed again.
        ("permit A|deny any", "permit A|permit C", ["permit C", "no deny any"]),
        # Entries that change places go first, for a router takes none twice.
        ("permit A|permit B", "permit B|permit A", ["no permit A", "no permit B", "permit B", "permit A"]),
        ("10 permit A", "permit A", None),
    ],
)
def test_entries_of_an_access_list(before, after, expected):
    header = "ip access-list extended G"
    text = [f"{header}\n " + side.replace("|", "\n ") for side in (before, after)]
    lines = between((header,), *text)
    assert lines == (() if expected is None else (header, *expected))


def test_one_value_replaces_another_without_its_no_form():
    scope = ("interface Tunnel2268",)
    before = "interface Tunnel2268\n ip igmp query-interval 90\n tunnel source Loopback1\n"
    after = "interface Tunnel2268\n ip igmp query-interval 80\n tunnel source Loopback2\n"
    assert between(scope, before, after) == (
        "interface Tunnel2268",
        "ip igmp query-interval 80",
        "tunnel source Loopback2",
    )


def test_addresses_that_change_places_are_released_first():
    scope = ("interface Loopback1 > ip address", "interface Loopback2 > ip address")
    one, two = "ip address 192.0.2.1 255.255.255.255", "ip address 192.0.2.2 255.255.255.255"
    lines = between(scope, f"interface Loopback1\n {one}\ninterface Loopback2\n {two}\n",
                    f"interface Loopback1\n {two}\ninterface Loopback2\n {one}\n")  # fmt: skip
    assert lines.index(f"no {one}") < lines.index(one)
    assert lines.index(f"no {two}") < lines.index(two)


def test_what_was_shut_down_by_hand_is_brought_up():
    scope = ("interface Tunnel2268",)
    assert between(scope, "interface Tunnel2268\n shutdown\n", "interface Tunnel2268\n") == (
        "interface Tunnel2268",
        "no shutdown",
    )


RELAY = RelayIntent.model_validate({"inet": {"anycast_prefix": "192.0.2.1/32", "local_address": "198.51.100.7"}})


def test_loopbacks_that_a_change_made_go_with_it_and_stay_through_a_drain():
    configuration = RunningConfiguration.parsed("hostname bare\n", FEATURES)
    wanted, drained = render(RELAY, drained=False), render(RELAY, drained=True)
    before = owned(configuration.text(), wanted.scope)
    assert before.text == "no interface Loopback2268\nno interface Loopback2269\n"
    apply(configuration, command_lines(before, wanted))
    assert difference(before, wanted).startswith("+interface Loopback2268\n+ ip address 198.51.100.7")
    apply(configuration, command_lines(wanted, drained))
    assert "no interface Loopback2269" not in command_lines(wanted, drained)
    assert owned(configuration.text(), wanted.scope) == drained
    apply(configuration, command_lines(drained, wanted))
    apply(configuration, command_lines(wanted, before))
    assert "-interface Loopback2268\n" in difference(wanted, before)
    assert configuration.text() == RunningConfiguration.parsed("hostname bare\n", FEATURES).text()


def test_a_relay_drained_from_the_start_has_its_loopback_without_an_address():
    configuration = RunningConfiguration.parsed("hostname bare\n", FEATURES)
    drained = render(RELAY, drained=True)
    before = owned(configuration.text(), drained.scope)
    assert "+interface Loopback2269\n" in difference(before, drained)
    apply(configuration, command_lines(before, drained))
    assert owned(configuration.text(), drained.scope) == drained


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("interface Loopback2268\n description mine\n", "interface Loopback2268 / description mine"),
        ("router ospf 1\n passive-interface Loopback2268\n", "router ospf 1 / passive-interface Loopback2268"),
        ("ip pim rp-candidate Loopback2268\n", "ip pim rp-candidate Loopback2268"),
        ("interface Loopback22680\n description Loopback22680\n", None),
        ("", None),
    ],
)
def test_what_others_wrote_of_a_loopback_is_seen(more, said):
    wanted = render(RELAY, drained=False)
    assert named_by_others(wanted.text + more, "interface Loopback2268", wanted.scope) == said


def test_a_draining_relay_announces_nothing_before_it_permits_nothing():
    intent = RelayIntent.model_validate(
        {
            "inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"},
            "advertise": {"protocol": "bgp", "policy": "ADV"},
        }
    )
    on, off = render(intent, drained=False), render(intent, drained=True)
    assert command_lines(on, off) == (
        "interface Loopback2269",
        "no ip address 192.0.2.1 255.255.255.0",
        "ip prefix-list ADV seq 5 deny 0.0.0.0/0 le 32",
        "no ip prefix-list ADV seq 10 permit 192.0.2.0/24",
    )
    assert isinstance(off, OwnedConfiguration)
    assert "192.0.2.1" not in off.text
    assert "198.51.100.7" in off.text
