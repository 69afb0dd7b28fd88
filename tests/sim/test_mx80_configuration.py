"""Trees, text and set commands of the simulated MX80, without SSH."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from lxml import etree

from lab.sim.mx80.checks import check
from lab.sim.mx80.compare import compare
from lab.sim.mx80.device import load_commands
from lab.sim.mx80.merge import merge, prune
from lab.sim.mx80.render import as_set, as_text
from lab.sim.mx80.schema import root
from lab.sim.mx80.selection import UnknownStatement, select
from lab.sim.mx80.statements import parse_command, parse_text

FACTORY = files("lab.sim.mx80").joinpath("factory.conf").read_text()
AMT = """\
set protocols amt relay family inet anycast-prefix 198.18.5.0/24
set protocols amt relay family inet local-address 192.0.2.81
set protocols amt relay tunnel-devices [ ud-0/0/0 ud-0/1/0 ]
set protocols amt traceoptions file amt.log size 1m files 3 world-readable
set protocols amt traceoptions flag packets detail
set policy-options policy-statement announce term amt from route-filter 198.18.5.0/24 exact
set policy-options policy-statement announce term amt then accept
set firewall family inet filter PROTECT term amt from protocol udp
set firewall family inet filter PROTECT term amt from destination-port 2268
set firewall family inet filter PROTECT term amt then count amt
set firewall family inet filter PROTECT term amt then accept
set interfaces lo0 unit 0 family inet filter input PROTECT
set interfaces lo0 unit 0 family inet address 192.0.2.81/32
"""


def from_text(text: str) -> Any:
    tree = etree.Element("configuration")
    delta, problems = parse_text(text, root())
    assert not problems
    assert not merge(tree, delta, root()).problems
    return tree


@pytest.fixture
def factory() -> Any:
    return from_text(FACTORY)


def load(tree: Any, commands: str) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in load_commands(tree, commands).problems]


def load_xml(tree: Any, xml: str, *, replacing: bool = True) -> list[tuple[str, str]]:
    parser = etree.XMLParser(remove_blank_text=True)
    loaded = merge(tree, etree.fromstring(f"<configuration>{xml}</configuration>", parser), root(), replacing=replacing)
    return [(problem.path, problem.message) for problem in loaded.problems]


def test_text_and_set_come_back_as_they_went(factory: Any) -> None:
    assert load(factory, AMT) == []
    again = from_text(as_text(factory, root()))
    assert compare(factory, again, root()) == ""
    other = etree.Element("configuration")
    assert load(other, as_set(factory, root())) == []
    assert as_text(other, root()) == as_text(factory, root())


def test_xml_comes_back_as_it_went(factory: Any) -> None:
    load(factory, AMT)
    again = etree.Element("configuration")
    inner = "".join(etree.tostring(child, encoding="unicode") for child in factory)
    assert load_xml(again, inner) == []
    assert as_set(again, root()) == as_set(factory, root())


def test_statements_are_written_as_junos_writes_them(factory: Any) -> None:
    load(factory, AMT)
    text = as_text(factory, root())
    assert "tunnel-devices [ ud-0/0/0 ud-0/1/0 ];" in text
    assert "file amt.log size 1m files 3 world-readable;" in text
    assert "route-filter 198.18.5.0/24 exact;" in text
    assert "family inet {" in text
    assert 'description "to the Internet";' in text
    assert "## SECRET-DATA" in text


def test_diff_says_where_and_what(factory: Any) -> None:
    new = etree.fromstring(etree.tostring(factory))
    load(new, "set protocols amt relay tunnel-limit 5\nset protocols bgp group upstream export two\n")
    load(new, "delete interfaces xe-0/0/1 description\nset system host-name other")
    assert compare(factory, new, root()) == (
        "[edit system]\n+   host-name other;\n"
        '[edit interfaces xe-0/0/1]\n-   description "to the Internet";\n'
        "[edit protocols]\n+   amt {\n+       relay {\n+           tunnel-limit 5;\n+       }\n+   }\n"
        "[edit protocols bgp group upstream]\n-   export announce;\n+   export [ announce two ];\n"
    )


def test_order_of_terms_matters_and_insert_moves(factory: Any) -> None:
    new = etree.fromstring(etree.tostring(factory))
    load(new, AMT)
    load(new, "insert policy-options policy-statement announce term amt before term own")
    names = [term.findtext("name") for term in new.findall("policy-options/policy-statement/term")]
    assert names == ["amt", "own", "rest"]
    swapped = etree.fromstring(etree.tostring(new))
    assert load(swapped, "insert policy-options policy-statement announce term rest before term amt") == []
    assert "!   term rest { ... }" in compare(new, swapped, root())


def test_xml_merge_replace_and_delete(factory: Any) -> None:
    load(factory, AMT)
    assert load_xml(factory, "<protocols><amt><relay><tunnel-limit>9</tunnel-limit></relay></amt></protocols>") == []
    assert factory.findtext("protocols/amt/relay/tunnel-limit") == "9"
    assert factory.find("protocols/amt/relay/family") is not None
    replacement = '<protocols><amt replace="replace"><relay><tunnel-limit>7</tunnel-limit></relay></amt></protocols>'
    assert load_xml(factory, replacement) == []
    assert as_set(factory.find("protocols/amt"), root().children["protocols"].children["amt"]) == (
        "set relay tunnel-limit 7\n"
    )
    assert load_xml(factory, '<protocols><amt delete="delete"/></protocols>') == []
    assert factory.find("protocols/amt") is None
    assert factory.find("protocols/bgp") is not None


def test_replace_attribute_means_nothing_in_a_merge(factory: Any) -> None:
    load(factory, AMT)
    xml = '<protocols><amt replace="replace"><relay><tunnel-limit>7</tunnel-limit></relay></amt></protocols>'
    load_xml(factory, xml, replacing=False)
    assert factory.find("protocols/amt/relay/family") is not None


def test_one_entry_of_a_list_is_replaced_and_deleted(factory: Any) -> None:
    address = (
        "<unit><name>0</name><family><inet><address {}><name>192.0.2.80/32</name></address></inet></family></unit>"
    )
    wrapped = f"<interfaces><interface><name>lo0</name>{address}</interface></interfaces>"
    assert load_xml(factory, wrapped.format('replace="replace"')) == []
    path = "interfaces/interface[name='lo0']/unit/family/inet/address"
    assert factory.find(path + "/primary") is None
    assert load_xml(factory, wrapped.format('delete="delete"')) == []
    assert factory.find(path) is None
    assert factory.find("interfaces/interface[name='xe-0/0/0']/unit/family/inet/address") is not None


def test_text_tags_replace_and_delete(factory: Any) -> None:
    load(factory, AMT)
    delta, problems = parse_text("protocols { replace: amt { relay { tunnel-limit 3; } } delete: pim; }", root())
    assert problems == []
    assert merge(factory, delta, root(), replacing=True).problems == []
    assert factory.find("protocols/amt/relay/family") is None
    assert factory.find("protocols/pim") is None


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        ("set protocols amtt relay", "[edit protocols]", "syntax error"),
        ("set protocols amt relay family inet6", "[edit protocols amt relay family]", "syntax error"),
        ("set protocols amt relay secret-key-timeout 4", "", "Value 4 is not within range (5..1440)"),
        ("set protocols amt relay family inet local-address 1.2.3", "", "invalid value '1.2.3' in ip address: '1.2.3'"),
        ("set protocols amt relay tunnel-devices ge-0/0/0", "", "invalid interface type: 'ge-0/0/0'"),
        ("set protocols amt traceoptions flag nonsense", "", "syntax error"),
        ("set protocols amt relay tunnel-limit", "", "missing argument"),
        ("delete protocols amt relay", "[edit protocols amt]", "statement not found"),
        ("deactivate protocols pim interface xe-9/9/9.0", "", "statement not found"),
        ("show protocols", "[edit]", "unknown command."),
    ],
)
def test_wrong_commands_are_told(factory: Any, command: str, path: str, message: str) -> None:
    before = as_set(factory, root())
    problems = load(factory, command)
    assert [told for _, told in problems] == [message]
    assert problems[0][0].startswith(path)
    prune(factory, root())
    assert as_set(factory, root()) == before


def test_wrong_xml_is_told_with_its_path(factory: Any) -> None:
    xml = "<protocols><amt><relay><tunel-limit>5</tunel-limit><tunnel-limit>5</tunnel-limit></relay></amt></protocols>"
    assert load_xml(factory, xml) == [("[edit protocols amt relay]", "syntax error")]
    assert factory.findtext("protocols/amt/relay/tunnel-limit") == "5"


def test_wrong_text_is_told_and_the_rest_is_read() -> None:
    delta, problems = parse_text("protocols { amtt { relay; } pim { interface all; } }", root())
    assert [problem.bad_element for problem in problems] == ["amtt"]
    assert delta.findtext("protocols/pim/interface/name") == "all"


def test_deactivated_statements_stay_and_do_not_count(factory: Any) -> None:
    load(factory, "deactivate protocols bgp group upstream")
    assert "inactive: group upstream {" in as_text(factory, root())
    assert "deactivate protocols bgp group upstream" in as_set(factory, root())
    load(factory, "delete policy-options policy-statement announce")
    assert check(factory) == []
    load(factory, "activate protocols bgp group upstream")
    assert [problem.bad_element for problem in check(factory)] == ["announce"]


def test_commit_checks_references(factory: Any) -> None:
    assert check(factory) == []
    load(factory, "set interfaces lo0 unit 0 family inet filter input GONE\ndelete system root-authentication")
    problems = check(factory)
    assert {problem.path for problem in problems} == {
        "[edit system]",
        "[edit interfaces lo0 unit 0 family inet filter]",
    }


def test_a_routing_instance_takes_one_unit_of_the_loopback(factory: Any) -> None:
    load(factory, "set interfaces lo0 unit 7 family inet address 192.0.2.7/32")
    assert [(problem.path, problem.message, problem.bad_element) for problem in check(factory)] == [
        ("[edit interfaces lo0]", "Multiple loopback interfaces not permitted in master routing instance", "unit 7")
    ]
    load(factory, "set routing-instances MCAST interface lo0.7")
    assert check(factory) == []
    load(factory, "deactivate routing-instances MCAST")
    assert [problem.bad_element for problem in check(factory)] == ["unit 7"]


def test_an_alternative_takes_the_place_of_the_other(factory: Any) -> None:
    load(factory, "set policy-options policy-statement announce term own then reject")
    then = factory.find("policy-options/policy-statement/term/then")
    assert [child.tag for child in then] == ["reject"]


def test_filters_select_parts(factory: Any) -> None:
    wanted = etree.fromstring(
        "<configuration><system><host-name/></system><protocols><pim/></protocols>"
        "<interfaces><interface><name>lo0</name></interface></interfaces></configuration>"
    )
    load(factory, "set system host-name here")
    found = select(factory, wanted, root())
    assert as_set(found, root()) == (
        "set system host-name here\nset protocols pim interface xe-0/0/0.0 mode sparse\n"
        "set interfaces lo0 unit 0 family inet address 192.0.2.80/32 primary\n"
    )
    with pytest.raises(UnknownStatement):
        select(factory, etree.fromstring("<configuration><protocols><amtt/></protocols></configuration>"), root())


def test_statements_outside_the_schema_are_kept() -> None:
    delta, problems = parse_text("snmp { location here; trap-group ops { version v2; categories [ a b ]; } }", root())
    assert problems == []
    tree = etree.Element("configuration")
    assert merge(tree, delta, root()).problems == []
    assert "trap-group ops {" in as_text(tree, root())
    assert "categories [ a b ];" in as_text(tree, root())


def test_a_command_makes_a_delta() -> None:
    delta, problems = parse_command("set system host-name x", root())
    assert problems == []
    assert delta is not None
    assert etree.tostring(delta) == b"<configuration><system><host-name>x</host-name></system></configuration>"
