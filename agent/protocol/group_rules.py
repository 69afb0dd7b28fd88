"""What a record does to the filter state of its group: the tables of RFC 3376 §6.4 and RFC 3810 §7.4 as functions.

A row is found by the router's filter mode and the record's type. Names follow the RFC: INCLUDE(A) keeps A in
`requested`; EXCLUDE(X,Y) keeps X, the sources whose timers run, in `requested`, and Y, whose timers have run out, in
`excluded`. The timers themselves belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.protocol.channels import Address, Filter, FilterMode
from agent.protocol.wire.groups import GroupRecord, GroupVersion, RecordType

Sources: TypeAlias = frozenset[Address]
NO_SOURCES: Final[Sources] = frozenset()

EXCLUDE_RECORDS: Final = frozenset((RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE))


@dataclass(frozen=True, slots=True)
class RouterState:
    """Router-side filter state of one group (RFC 3376 §6.2.1)."""

    mode: FilterMode = FilterMode.INCLUDE
    requested: Sources = NO_SOURCES
    excluded: Sources = NO_SOURCES

    @property
    def filter(self) -> Filter:
        """What is forwarded: A in INCLUDE mode, everything but Y in EXCLUDE mode (§6.3)."""
        if self.mode is FilterMode.INCLUDE:
            return Filter(FilterMode.INCLUDE, self.requested)
        return Filter(FilterMode.EXCLUDE, self.excluded)

    @property
    def is_empty(self) -> bool:
        """INCLUDE({}), the state of a group nobody wants."""
        return self.mode is FilterMode.INCLUDE and not self.requested

    @property
    def size(self) -> int:
        """Sources remembered; none is both requested and excluded."""
        return len(self.requested) + len(self.excluded)


INITIAL: Final = RouterState()
"""State of a group not heard of (§6.4)."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Outcome of a row.

    Attributes:
        state: the state afterwards; timers of requested sources not named below go on as they are.
        refreshed: sources whose timers are set to the Group Membership Interval, "(B)=GMI".
        inherited: sources whose timers are set to what the group timer was, "(A-X-Y)=Group Timer".
        refreshes_group: "Group Timer=GMI".
        queried: sources to ask about, "Send Q(G,A*B)".
        queries_group: "Send Q(G)".
    """

    state: RouterState
    refreshed: Sources = NO_SOURCES
    inherited: Sources = NO_SOURCES
    refreshes_group: bool = False
    queried: Sources = NO_SOURCES
    queries_group: bool = False


Rule: TypeAlias = Callable[[RouterState, Sources], Transition]


def transition(state: RouterState, kind: RecordType, sources: Sources) -> Transition:
    """Apply a record of type `kind` with `sources` to `state`."""
    return TABLE[state.mode, kind](state, sources)


def as_older_version(record: GroupRecord, version: GroupVersion) -> GroupRecord | None:
    """What a record means while older hosts are in its group, None for nothing (RFC 3376 §7.3.2, RFC 3810 §8.3.2)."""
    if version is GroupVersion.SOURCE_SPECIFIC:
        return record
    if record.type is RecordType.BLOCK_OLD_SOURCES:
        return None
    if record.type is RecordType.CHANGE_TO_INCLUDE and version is GroupVersion.ANY_SOURCE_BASIC:
        return None
    if record.type is RecordType.CHANGE_TO_EXCLUDE:
        return GroupRecord(record.type, record.group)
    return record


def _include_adds(state: RouterState, b: Sources) -> Transition:
    """INCLUDE(A), IS_IN(B) or ALLOW(B): INCLUDE(A+B); (B)=GMI."""
    if b <= state.requested:  # the usual refresh, at a cost that does not grow with A
        return Transition(state, refreshed=b)
    return Transition(RouterState(FilterMode.INCLUDE, state.requested | b), refreshed=b)


def _include_is_exclude(state: RouterState, b: Sources) -> Transition:
    """INCLUDE(A), IS_EX(B): EXCLUDE(A*B,B-A); (B-A)=0; delete (A-B); Group Timer=GMI."""
    a = state.requested
    return Transition(RouterState(FilterMode.EXCLUDE, a & b, b - a), refreshes_group=True)


def _include_block(state: RouterState, b: Sources) -> Transition:
    """INCLUDE(A), BLOCK(B): INCLUDE(A); send Q(G,A*B)."""
    return Transition(state, queried=state.requested & b)


def _include_to_exclude(state: RouterState, b: Sources) -> Transition:
    """INCLUDE(A), TO_EX(B): EXCLUDE(A*B,B-A); (B-A)=0; delete (A-B); send Q(G,A*B); Group Timer=GMI."""
    a = state.requested
    return Transition(RouterState(FilterMode.EXCLUDE, a & b, b - a), refreshes_group=True, queried=a & b)


def _include_to_include(state: RouterState, b: Sources) -> Transition:
    """INCLUDE(A), TO_IN(B): INCLUDE(A+B); (B)=GMI; send Q(G,A-B)."""
    a = state.requested
    return Transition(RouterState(FilterMode.INCLUDE, a | b), refreshed=b, queried=a - b)


def _exclude_adds(state: RouterState, a: Sources) -> Transition:
    """EXCLUDE(X,Y), IS_IN(A) or ALLOW(A): EXCLUDE(X+A,Y-A); (A)=GMI."""
    return Transition(RouterState(FilterMode.EXCLUDE, state.requested | a, state.excluded - a), refreshed=a)


def _exclude_is_exclude(state: RouterState, a: Sources) -> Transition:
    """EXCLUDE(X,Y), IS_EX(A): EXCLUDE(A-Y,Y*A); (A-X-Y)=GMI; delete (X-A), (Y-A); Group Timer=GMI."""
    x, y = state.requested, state.excluded
    return Transition(RouterState(FilterMode.EXCLUDE, a - y, y & a), refreshed=a - x - y, refreshes_group=True)


def _exclude_block(state: RouterState, a: Sources) -> Transition:
    """EXCLUDE(X,Y), BLOCK(A): EXCLUDE(X+(A-Y),Y); (A-X-Y)=Group Timer; send Q(G,A-Y)."""
    x, y = state.requested, state.excluded
    return Transition(RouterState(FilterMode.EXCLUDE, x | (a - y), y), inherited=a - x - y, queried=a - y)


def _exclude_to_exclude(state: RouterState, a: Sources) -> Transition:
    """EXCLUDE(X,Y), TO_EX(A): EXCLUDE(A-Y,Y*A); (A-X-Y)=Group Timer; delete (X-A), (Y-A); Q(G,A-Y); Group Timer=GMI."""
    x, y = state.requested, state.excluded
    after = RouterState(FilterMode.EXCLUDE, a - y, y & a)
    return Transition(after, inherited=a - x - y, refreshes_group=True, queried=a - y)


def _exclude_to_include(state: RouterState, a: Sources) -> Transition:
    """EXCLUDE(X,Y), TO_IN(A): EXCLUDE(X+A,Y-A); (A)=GMI; send Q(G,X-A); send Q(G)."""
    x, y = state.requested, state.excluded
    return Transition(RouterState(FilterMode.EXCLUDE, x | a, y - a), refreshed=a, queried=x - a, queries_group=True)


TABLE: Final[Mapping[tuple[FilterMode, RecordType], Rule]] = {
    # Current-State Records: RFC 3376 §6.4.1, RFC 3810 §7.4.1
    (FilterMode.INCLUDE, RecordType.MODE_IS_INCLUDE): _include_adds,
    (FilterMode.INCLUDE, RecordType.MODE_IS_EXCLUDE): _include_is_exclude,
    (FilterMode.EXCLUDE, RecordType.MODE_IS_INCLUDE): _exclude_adds,
    (FilterMode.EXCLUDE, RecordType.MODE_IS_EXCLUDE): _exclude_is_exclude,
    # Filter-Mode-Change and Source-List-Change Records: RFC 3376 §6.4.2, RFC 3810 §7.4.2
    (FilterMode.INCLUDE, RecordType.ALLOW_NEW_SOURCES): _include_adds,
    (FilterMode.INCLUDE, RecordType.BLOCK_OLD_SOURCES): _include_block,
    (FilterMode.INCLUDE, RecordType.CHANGE_TO_EXCLUDE): _include_to_exclude,
    (FilterMode.INCLUDE, RecordType.CHANGE_TO_INCLUDE): _include_to_include,
    (FilterMode.EXCLUDE, RecordType.ALLOW_NEW_SOURCES): _exclude_adds,
    (FilterMode.EXCLUDE, RecordType.BLOCK_OLD_SOURCES): _exclude_block,
    (FilterMode.EXCLUDE, RecordType.CHANGE_TO_EXCLUDE): _exclude_to_exclude,
    (FilterMode.EXCLUDE, RecordType.CHANGE_TO_INCLUDE): _exclude_to_include,
}
