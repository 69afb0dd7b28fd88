"""Which tunnel wants which sources of which group."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from agent.protocol.channels import NOTHING, Address, Filter, merge_filters

Member = TypeVar("Member", bound=Hashable)


class InterestTable(Generic[Member]):
    """Filters per group and member, with members of equal filters kept together.

    A popular channel has one filter and a thousand members: what is computed per filter is computed once.
    """

    def __init__(self) -> None:
        self._filters: dict[Address, dict[Member, Filter]] = {}
        self._members: dict[Address, dict[Filter, dict[Member, None]]] = {}
        self._groups: dict[Member, set[Address]] = {}

    def __contains__(self, member: Member) -> bool:
        return member in self._groups

    def set(self, member: Member, group: Address, wanted: Filter) -> bool:
        """Replace the filter of one member for one group; returns whether anything changed."""
        before = self._filters.get(group, {}).get(member, NOTHING)
        if before == wanted:
            return False
        if not before.wants_nothing:
            self._discard(member, group, before)
        if not wanted.wants_nothing:
            self._filters.setdefault(group, {})[member] = wanted
            self._members.setdefault(group, {}).setdefault(wanted, {})[member] = None
            self._groups.setdefault(member, set()).add(group)
        return True

    def groups(self, member: Member) -> frozenset[Address]:
        """Groups a member wants anything of."""
        return frozenset(self._groups.get(member, ()))

    def all_groups(self) -> frozenset[Address]:
        """Groups anybody wants anything of."""
        return frozenset(self._members)

    def merged(self, group: Address) -> Filter:
        """What all members together want of a group."""
        return merge_filters(self._members.get(group, ()))

    def wanting(self, source: Address, group: Address) -> tuple[Member, ...]:
        """Members whose filter admits `source`."""
        found: list[Member] = []
        for wanted, members in self._members.get(group, {}).items():
            if wanted.admits(source):
                found.extend(members)
        return tuple(found)

    def _discard(self, member: Member, group: Address, wanted: Filter) -> None:
        filters, members = self._filters[group], self._members[group]
        del filters[member]
        del members[wanted][member]
        if not members[wanted]:
            del members[wanted]
        if not filters:
            del self._filters[group], self._members[group]
        groups = self._groups[member]
        groups.discard(group)
        if not groups:
            del self._groups[member]
