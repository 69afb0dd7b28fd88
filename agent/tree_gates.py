"""Which wishes count on a link that other routers share: Designated Router and Assert (RFC 7761 §4.1.6, §4.6).

Of a link's hosts only the DR takes the wishes, or the router that won an Assert there; a channel whose Assert was lost
goes out of the link for nobody. What is left of an owner's filter is its effective filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.protocol.channels import Address, Channel, Family, Filter, FilterMode
from agent.protocol.pim_events import AssertOutcome


class InterestKind(Enum):
    """Where an interest comes from; the value is what `channels` shows."""

    IGMP = "igmp"
    MLD = "mld"
    PIM = "pim"
    STATIC = "static"
    API = "api"


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody downstream who wants groups: a protocol on an interface, or an operator for an interface."""

    kind: InterestKind
    interface: str


_OF_HOSTS: Final = frozenset((InterestKind.IGMP, InterestKind.MLD))
_NO_ASSERTS: Final[Mapping[Address | None, AssertOutcome]] = {}


class Gates:
    """What DR elections and Asserts leave of each owner's filter."""

    def __init__(self) -> None:
        self._not_designated: set[tuple[str, Family]] = set()
        self._asserts: dict[tuple[str, Address], dict[Address | None, AssertOutcome]] = {}

    @property
    def is_open(self) -> bool:
        """Whether every filter counts in full."""
        return not self._not_designated and not self._asserts

    def set_designated(self, interface: str, family: Family, *, designated: bool) -> bool:
        """Say whether we are the DR; True when that is new. Where nothing was said we are."""
        key = (interface, family)
        if designated is (key not in self._not_designated):
            return False
        if designated:
            self._not_designated.discard(key)
        else:
            self._not_designated.add(key)
        return True

    def set_assert(self, interface: str, channel: Channel, outcome: AssertOutcome) -> bool:
        """Say where the Assert for `channel` stands; True when that is new."""
        key = (interface, channel.group)
        known = self._asserts.get(key, {})
        if known.get(channel.source, AssertOutcome.NO_INFO) is outcome:
            return False
        if outcome is AssertOutcome.NO_INFO:
            known.pop(channel.source, None)
            if not known:
                self._asserts.pop(key, None)
        else:
            self._asserts.setdefault(key, known)[channel.source] = outcome
        return True

    def effective(self, owner: Owner, group: Address, wanted: Filter) -> Filter:
        """What of `owner`'s filter counts (RFC 7761 §4.1.6: pim_include and lost_assert)."""
        asserts = self._asserts.get((owner.interface, group), _NO_ASSERTS)
        is_gated = owner.kind in _OF_HOSTS and (owner.interface, Family.of(group)) in self._not_designated
        if is_gated and (wanted.mode is FilterMode.INCLUDE or asserts.get(None) is not AssertOutcome.WINNER):
            wanted = _won(wanted, asserts)
        return _without_lost(wanted, asserts) if asserts else wanted


def _won(wanted: Filter, asserts: Mapping[Address | None, AssertOutcome]) -> Filter:
    """What remains of a wish that otherwise does not count: the channels we won."""
    won = [source for source, outcome in asserts.items() if source is not None and outcome is AssertOutcome.WINNER]
    return Filter.include(source for source in won if wanted.admits(source))


def _without_lost(wanted: Filter, asserts: Mapping[Address | None, AssertOutcome]) -> Filter:
    """What is left when another router forwards the channels it won; a lost (*,G) takes the sources not settled."""
    lost = [source for source, outcome in asserts.items() if source is not None and outcome is AssertOutcome.LOSER]
    if wanted.mode is FilterMode.INCLUDE:
        return Filter.include(wanted.sources.difference(lost))
    if asserts.get(None) is AssertOutcome.LOSER:
        return _won(wanted, asserts)
    return Filter.exclude(wanted.sources.union(lost))
