"""Whatever is loaded into the simulated MX80: text, set commands and XML say the same, and a diff is empty or true."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from lab.sim.mx80.compare import compare
from lab.sim.mx80.device import first_configuration, load_commands
from lab.sim.mx80.merge import merge, prune
from lab.sim.mx80.render import as_set, as_text
from lab.sim.mx80.schema import root
from lab.sim.mx80.statements import parse_text
from lab.sim.options import SimOptions

FIRST = first_configuration(SimOptions())
PATHS = st.sampled_from(
    [
        "protocols amt relay tunnel-limit {number}",
        "protocols amt relay accounting",
        "protocols amt relay tunnel-devices ud-0/0/{number}",
        "protocols amt traceoptions flag packets detail",
        "protocols amt traceoptions file t{number} size 1m",
        "protocols igmp amt relay defaults group-limit {number}",
        "protocols bgp group upstream export P{number}",
        "protocols bgp group upstream neighbor 10.0.0.{number}",
        "policy-options policy-statement announce term T{number} from route-filter 10.{number}.0.0/16 exact",
        "policy-options policy-statement announce term T{number} then accept",
        "policy-options prefix-list L{number} 10.{number}.0.0/16",
        "firewall family inet filter F term T{number} from protocol udp",
        "firewall family inet filter F term T{number} then count C{number}",
        "interfaces lo0 unit {number} family inet address 10.1.1.{number}/32",
        'interfaces lo0 unit {number} description "a {{ b; }} \\"{number}\\""',
        "system host-name h{number}",
    ]
)
COMMANDS = st.lists(
    st.builds(
        lambda verb, path, number: f"{verb} {path.format(number=number)}",
        st.sampled_from(["set", "set", "set", "delete", "deactivate", "activate"]),
        PATHS,
        st.integers(1, 4),
    ),
    max_size=25,
)


def changed(commands: list[str]) -> Any:
    tree = copy.deepcopy(FIRST)
    load_commands(tree, "\n".join(commands))
    prune(tree, root())
    return tree


@settings(max_examples=40)
@given(COMMANDS)
def test_every_notation_says_the_same(commands: list[str]) -> None:
    tree = changed(commands)
    text = as_text(tree, root())
    delta, problems = parse_text(text, root())
    assert problems == []
    by_text, by_set, by_xml = (etree.Element("configuration") for _ in range(3))
    assert merge(by_text, delta, root()).problems == []
    assert load_commands(by_set, as_set(tree, root())).problems == []
    assert merge(by_xml, tree, root()).problems == []
    for other in (by_text, by_set, by_xml):
        assert compare(tree, other, root()) == ""
        assert as_text(other, root()) == text


@settings(max_examples=40)
@given(COMMANDS, COMMANDS)
def test_a_diff_is_empty_only_between_equals(first: list[str], second: list[str]) -> None:
    one, two = changed(first), changed(second)
    assert (compare(one, two, root()) == "") == (as_set(one, root()) == as_set(two, root()))
    assert compare(one, one, root()) == ""


@settings(max_examples=40)
@given(COMMANDS, COMMANDS)
def test_override_makes_equal(first: list[str], second: list[str]) -> None:
    one, two = changed(first), changed(second)
    for child in list(one):
        one.remove(child)
    merge(one, two, root())
    assert as_text(one, root()) == as_text(two, root())
