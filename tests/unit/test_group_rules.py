"""Every row of the tables of RFC 3376 §6.4 (RFC 3810 §7.4), with expectations worked out by hand from the RFC.

Router sources are a, b (requested) and y, z (excluded); the record names some of them and a new one.
"""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from agent.protocol.channels import Filter, FilterMode
from agent.protocol.group_rules import RouterState, Transition, as_older_version, transition
from agent.protocol.wire.groups import GroupRecord, GroupVersion, RecordType

NAMES = "abnyz"
GROUP = IPv4Address("239.1.1.1")


def sources(names: str) -> frozenset[IPv4Address]:
    return frozenset(IPv4Address(0x0A000000 + ord(name)) for name in names)


def include(a: str) -> RouterState:
    return RouterState(FilterMode.INCLUDE, sources(a))


def exclude(x: str, y: str) -> RouterState:
    return RouterState(FilterMode.EXCLUDE, sources(x), sources(y))


def step(state, refreshed="", inherited="", queried="", *, group_timer=False, queries_group=False) -> Transition:
    return Transition(state, sources(refreshed), sources(inherited), group_timer, sources(queried), queries_group)


IS_IN, IS_EX = RecordType.MODE_IS_INCLUDE, RecordType.MODE_IS_EXCLUDE
TO_IN, TO_EX = RecordType.CHANGE_TO_INCLUDE, RecordType.CHANGE_TO_EXCLUDE
ALLOW, BLOCK = RecordType.ALLOW_NEW_SOURCES, RecordType.BLOCK_OLD_SOURCES

ROWS = [
    # §6.4.1
    (include("ab"), IS_IN, "bn", step(include("abn"), refreshed="bn")),
    (include("ab"), IS_EX, "bn", step(exclude("b", "n"), group_timer=True)),
    (exclude("ab", "yz"), IS_IN, "byn", step(exclude("abyn", "z"), refreshed="byn")),
    (exclude("ab", "yz"), IS_EX, "byn", step(exclude("bn", "y"), refreshed="n", group_timer=True)),
    # §6.4.2
    (include("ab"), ALLOW, "bn", step(include("abn"), refreshed="bn")),
    (include("ab"), BLOCK, "bn", step(include("ab"), queried="b")),
    (include("ab"), TO_EX, "bn", step(exclude("b", "n"), queried="b", group_timer=True)),
    (include("ab"), TO_IN, "bn", step(include("abn"), refreshed="bn", queried="a")),
    (exclude("ab", "yz"), ALLOW, "byn", step(exclude("abyn", "z"), refreshed="byn")),
    (exclude("ab", "yz"), BLOCK, "byn", step(exclude("abn", "yz"), inherited="n", queried="bn")),
    (exclude("ab", "yz"), TO_EX, "byn", step(exclude("bn", "y"), inherited="n", queried="bn", group_timer=True)),
    (exclude("ab", "yz"), TO_IN, "byn", step(exclude("abyn", "z"), refreshed="byn", queried="a", queries_group=True)),
]


@pytest.mark.parametrize(("state", "kind", "listed", "expected"), ROWS, ids=lambda value: getattr(value, "name", None))
def test_record_moves_state_as_the_rfc_table_says(state, kind, listed, expected):
    assert transition(state, kind, sources(listed)) == expected


def test_every_mode_and_record_type_has_its_row():
    assert {(state.mode, kind) for state, kind, _, _ in ROWS} == {(m, k) for m in FilterMode for k in RecordType}


def test_include_forwards_requested_sources_and_exclude_all_but_the_excluded():
    assert include("ab").filter == Filter.include(sources("ab"))
    assert exclude("ab", "yz").filter == Filter.exclude(sources("yz"))


@pytest.mark.parametrize(
    ("kind", "version", "meant"),
    [
        (BLOCK, GroupVersion.SOURCE_SPECIFIC, "record"),
        (TO_EX, GroupVersion.SOURCE_SPECIFIC, "record"),
        (BLOCK, GroupVersion.ANY_SOURCE, None),
        (BLOCK, GroupVersion.ANY_SOURCE_BASIC, None),
        (TO_EX, GroupVersion.ANY_SOURCE, "without sources"),
        (TO_EX, GroupVersion.ANY_SOURCE_BASIC, "without sources"),
        (TO_IN, GroupVersion.ANY_SOURCE, "record"),
        (TO_IN, GroupVersion.ANY_SOURCE_BASIC, None),
        (ALLOW, GroupVersion.ANY_SOURCE_BASIC, "record"),
        (IS_IN, GroupVersion.ANY_SOURCE, "record"),
    ],
)
def test_older_hosts_take_meaning_from_records(kind, version, meant):
    """RFC 3376 §7.3.2, RFC 3810 §8.3.2."""
    record = GroupRecord(kind, GROUP, tuple(sources("a")))
    expected = {"record": record, "without sources": GroupRecord(kind, GROUP), None: None}[meant]
    assert as_older_version(record, version) == expected
