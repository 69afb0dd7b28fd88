"""Scopes and trees: cutting, the change between two states, and what lies outside."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from relaymgr.drivers.junos.scope import Path, paths
from relaymgr.drivers.junos.trees import EMPTY, change, cut, filter_for, fingerprint, from_text, remains
from relaymgr.drivers.netconf.documents import parse

DEVICE = b"""
<configuration xmlns="http://xml.juniper.net/xnm/1.1/xnm" xmlns:junos="http://xml.juniper.net/junos/15.1R7/junos"
    junos:commit-seconds="1500000000" junos:commit-user="noc">
  <system><host-name>mx</host-name></system>
  <interfaces>
    <interface><name>lo0</name>
      <unit><name>0</name><family><inet>
        <address><name>203.0.113.1/32</name></address>
        <address><name>198.51.100.7/32</name></address>
      </inet></family></unit>
      <unit><name>2268</name><family><inet><address><name>192.0.2.1/32</name></address></inet></family></unit>
    </interface>
  </interfaces>
  <protocols><amt><relay><tunnel-limit>5</tunnel-limit></relay></amt><bgp><group><name>X</name></group></bgp></protocols>
</configuration>
"""
SCOPE = (
    "interfaces/interface[lo0]/unit[0]/family/inet/address[198.51.100.7/32]",
    "interfaces/interface[lo0]/unit[2268]",
    "protocols/amt",
)


def test_cut_holds_the_scope_and_nothing_else():
    text = cut(parse(DEVICE), SCOPE)
    assert "198.51.100.7/32" in text
    assert "192.0.2.1/32" in text
    for foreign in ("203.0.113.1", "host-name", "bgp", "xmlns", "commit"):
        assert foreign not in text
    assert cut(from_text(text), SCOPE) == text


def test_cut_of_what_is_not_there_is_empty():
    assert cut(parse(DEVICE), ("protocols/igmp/amt",)) == EMPTY


def test_a_section_below_something_inactive_is_not_what_it_looks_like():
    active = b"<configuration><protocols><amt><relay/></amt></protocols></configuration>"
    inactive = b'<configuration><protocols inactive="inactive"><amt><relay/></amt></protocols></configuration>'
    assert cut(parse(active), ("protocols/amt",)) != cut(parse(inactive), ("protocols/amt",))


def test_a_change_names_only_what_differs():
    have = cut(parse(DEVICE), SCOPE)
    want = have.replace("<tunnel-limit>5", "<tunnel-limit>6").replace("192.0.2.1/32", "192.0.2.9/32")
    root = parse(change(SCOPE, have, want).encode())
    assert [element.get("replace") for element in root.iter() if element.get("replace")] == ["replace", "replace"]
    assert b"198.51.100.7" not in etree.tostring(root)


def test_what_is_not_wanted_any_more_is_deleted_by_its_key():
    root = parse(change(SCOPE, cut(parse(DEVICE), SCOPE), EMPTY).encode())
    deleted = {(element.tag, element.findtext("name")) for element in root.iter() if element.get("delete")}
    assert deleted == {("address", "198.51.100.7/32"), ("unit", "2268"), ("amt", None)}


def test_deleting_what_is_not_there_is_not_asked_for():
    assert change(SCOPE, EMPTY, EMPTY) == ""


def test_a_fingerprint_ignores_who_committed_but_no_leaf():
    base = fingerprint(parse(DEVICE))
    assert fingerprint(parse(DEVICE.replace(b"1500000000", b"1600000000"))) == base
    assert fingerprint(parse(DEVICE.replace(b'"noc"', b'"eve"'))) == base
    assert fingerprint(parse(DEVICE.replace(b">mx<", b">my<"))) != base
    assert fingerprint(parse(DEVICE.replace(b"<amt>", b'<amt inactive="inactive">'))) != base


def test_what_remains_differs_when_anything_else_was_touched():
    base = remains(parse(DEVICE), SCOPE)
    assert remains(parse(DEVICE.replace(b">5<", b">6<")), SCOPE) == base
    assert remains(parse(DEVICE.replace(b"203.0.113.1", b"203.0.113.2")), SCOPE) != base
    without = from_text(cut(parse(b"<configuration/>"), SCOPE))
    assert remains(without, SCOPE) == remains(from_text(cut(parse(DEVICE), SCOPE)), SCOPE)


def test_nested_paths_count_once():
    assert [str(path) for path in paths(("a/b[x/1]/c", "a/b[x/1]", "a"))] == ["a"]
    assert [str(path) for path in paths(("ab", "a/b"))] == ["a/b", "ab"]


@pytest.mark.parametrize("text", ["", "/", "a/", "a//b", "a[", "a[]/b", "a]b", "/a", "a/b[x]c"])
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match="not a path"):
        Path.parse(text)


KEYS = st.text("abcdefgh0123456789/.:-_", min_size=1, max_size=12)
STEPS = st.tuples(st.sampled_from(["unit", "address", "interface", "family"]), st.none() | KEYS)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=5))
def test_a_path_is_its_text(steps):
    path = Path(tuple(steps))
    assert Path.parse(str(path)) == path


@settings(max_examples=60, deadline=None)
@given(
    have=st.dictionaries(KEYS, st.integers(0, 3), max_size=5),
    want=st.dictionaries(KEYS, st.integers(0, 3), max_size=5),
)
def test_a_change_loaded_gives_what_was_wanted(have, want):
    """Applies the change as a device does: replace and delete by path."""
    scope = tuple(sorted(f"interfaces/interface[{key}]" for key in {*have, *want}))
    current, desired = (_tree(state) for state in (have, want))
    document = change(scope, cut(current, scope), cut(desired, scope))
    result = _loaded(current, parse(document.encode())) if document else current
    assert cut(result, scope) == cut(desired, scope)
    assert (document == "") == (have == want)


def _tree(state: dict[str, int]) -> etree._Element:
    root = etree.Element("configuration")
    interfaces = etree.SubElement(root, "interfaces")
    for key, mtu in state.items():
        entry = etree.SubElement(interfaces, "interface")
        etree.SubElement(entry, "name").text = key
        etree.SubElement(entry, "mtu").text = str(mtu)
    return root


def _loaded(current: etree._Element, document: etree._Element) -> etree._Element:
    interfaces = current.find("interfaces")
    for change_of in document.iter("interface"):
        for present in interfaces.findall("interface"):
            if present.findtext("name") == change_of.findtext("name"):
                interfaces.remove(present)
        if change_of.get("replace"):
            copied = etree.fromstring(etree.tostring(change_of))
            del copied.attrib["replace"]
            interfaces.append(copied)
    return current


def test_a_filter_brings_every_path():
    root = parse(filter_for(SCOPE).encode())
    assert root.find("protocols/amt") is not None
    assert {unit.findtext("name") for unit in root.iter("unit")} == {"0", "2268"}
