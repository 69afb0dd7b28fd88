"""Between those who ask and the tree: wishes are fulfilled as far as policy and limits allow, the rest waits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.protocol.channels import NOTHING, Address, Channel, Filter, FilterMode
from agent.protocol.policy import Asker, Policy, Refusal
from agent.tree import Owner, Tree

_log = logging.getLogger(__name__)

RETRIED_AT_ONCE: Final = 500
"""Wishes not wholly fulfilled that are looked at again in one sample."""

Neighbor = Callable[[Channel], Address | None]
"""Which PIM neighbour asked for a channel last, None when it is a host or nobody knows."""


def _nobody(_: Channel) -> Address | None:
    return None


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish that is not wholly fulfilled.

    Attributes:
        wanted: all of it.
        refused: the channels left out, and why.
        neighbor: who asked.
    """

    wanted: Filter
    refused: dict[Channel, Refusal]
    neighbor: Neighbor


class AdmissionControl:
    """Puts wishes into the tree.

    Attributes:
        counts: refusals since the start, by reason.
    """

    def __init__(self, tree: Tree, policy: Policy, now: Callable[[], float], on_changed: Callable[[], None]) -> None:
        self.policy = policy
        self.counts: Counter[str] = Counter()
        self._tree = tree
        self._now = now
        self._on_changed = on_changed
        self._held: dict[tuple[Owner, Address], dict[Channel, Asker]] = {}
        self._refused: dict[tuple[Owner, Address], Wish] = {}
        self._waiting: dict[tuple[Owner, Address], None] = {}

    def wish(self, owner: Owner, group: Address, wanted: Filter, neighbor: Neighbor = _nobody) -> None:
        """`owner` wants this of `group` from now on; `NOTHING` withdraws it."""
        key = (owner, group)
        held = self._held.get(key, {})
        asked = self._asked(group, wanted, held)
        for channel in held.keys() - asked:
            self.policy.release(channel, held.pop(channel))
        refused: dict[Channel, Refusal] = {}
        before = self._refused.pop(key, None)
        self._waiting.pop(key, None)
        for channel in asked - held.keys():
            asker = Asker(owner.interface, neighbor(channel))
            refusal = self.policy.take(channel, asker, self._now())
            if refusal is None:
                held[channel] = asker
            else:
                refused[channel] = refusal
        if held:
            self._held[key] = held
        else:
            self._held.pop(key, None)
        if refused:
            self._refused[key] = Wish(wanted, refused, neighbor)
            if any(refusal is not Refusal.DENIED for refusal in refused.values()):
                self._waiting[key] = None
            self._tell(owner, refused, before)
        self._tree.set_interest(owner, group, _fulfilled(group, wanted, held))
        self._on_changed()

    def withdraw(self, owner: Owner) -> None:
        """`owner` is gone with all it wanted."""
        for key in [key for key in self._held.keys() | self._refused.keys() if key[0] == owner]:
            self.wish(owner, key[1], NOTHING)

    def retry(self) -> None:
        """Look again at wishes that time or room may fulfil, those that waited longest first."""
        for key in list(islice(self._waiting, RETRIED_AT_ONCE)):
            wish = self._refused[key]
            self.wish(*key, wish.wanted, wish.neighbor)

    def reconfigure(self, policy: Policy) -> None:
        """Use other rules and limits: what is carried goes on unless a rule denies it now, the rest is judged anew."""
        self.policy = policy
        wishes = dict(self._refused)
        for key, held in self._held.items():
            wishes.setdefault(key, Wish(self._tree.interest(*key), {}, _remembered(held)))
            for channel, asker in list(held.items()):
                if not policy.adopt(channel, asker):
                    del held[channel]
        for (owner, group), wish in wishes.items():
            self.wish(owner, group, wish.wanted, wish.neighbor)

    def refused(self) -> Iterator[tuple[Channel, Owner, Refusal]]:
        """Channels somebody asked for and does not get."""
        for (owner, _), wish in list(self._refused.items()):
            for channel, refusal in wish.refused.items():
                yield channel, owner, refusal

    def permits_source(self, channel: Channel) -> bool:
        """Whether a source that any-source interest brought may be forwarded, by the rules on sources and groups."""
        return any(
            self.policy.permits(channel, held[any_source])
            for (_, group), held in self._held.items()
            if group == channel.group and (any_source := Channel(None, group)) in held
        )

    @staticmethod
    def _asked(group: Address, wanted: Filter, held: dict[Channel, Asker]) -> set[Channel]:
        """The channels a wish consists of; with any source wanted, what was held of single sources may stay."""
        if wanted.mode is FilterMode.INCLUDE:
            return {Channel(source, group) for source in wanted.sources}
        any_source = Channel(None, group)
        if any_source in held:
            return {any_source}
        kept = {one for one in held if one.source is not None and wanted.admits(one.source)}
        return kept | {any_source}

    def _tell(self, owner: Owner, refused: dict[Channel, Refusal], before: Wish | None) -> None:
        """Count and log what is refused now and was not before."""
        known = before.refused if before is not None else {}
        for channel, refusal in refused.items():
            if known.get(channel) is not refusal:
                self.counts[refusal.value] += 1
                _log.warning(
                    "channel refused interface=%s kind=%s channel=%s reason=%s",
                    owner.interface,
                    owner.kind.value,
                    channel,
                    refusal.value,
                    extra={"reason": refusal.value},
                )


def _fulfilled(group: Address, wanted: Filter, held: dict[Channel, Asker]) -> Filter:
    if wanted.mode is FilterMode.EXCLUDE and Channel(None, group) in held:
        return wanted
    return Filter.include(channel.source for channel in held if channel.source is not None)


def _remembered(held: dict[Channel, Asker]) -> Neighbor:
    askers = dict(held)

    def neighbor(channel: Channel) -> Address | None:
        asker = askers.get(channel)
        return asker.neighbor if asker is not None else None

    return neighbor
