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
from agent.tree import InterestKind, Owner, Tree

_log = logging.getLogger(__name__)

RETRIED_AT_ONCE: Final = 1000
"""Refused channels that are looked at again in one sample, a few milliseconds of work."""

Neighbor = Callable[[Channel], Address | None]
"""Which PIM neighbour asked for a channel last, None when it is a host or nobody knows."""


def _nobody(_: Channel) -> Address | None:
    return None


@dataclass(slots=True)
class Wish:
    """A wish that is not wholly fulfilled.

    Attributes:
        wanted: all of it.
        refused: the channels left out, and why; those looked at longest ago first.
        neighbor: who asked.
        unseen: how many of the first of them were not looked at since the rules changed.
    """

    wanted: Filter
    refused: dict[Channel, Refusal]
    neighbor: Neighbor
    unseen: int = 0


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
        self._owners: set[Owner] = set()

    def wish(self, owner: Owner, group: Address, wanted: Filter, neighbor: Neighbor = _nobody) -> None:
        """`owner` wants this of `group` from now on; `NOTHING` withdraws it."""
        key = (owner, group)
        self._owners.add(owner)
        held = self._held.get(key, {})
        asked = self._asked(group, wanted, held)
        for channel in held.keys() - asked:
            self.policy.release(channel, held.pop(channel))
        before = self._refused.pop(key, None)
        self._waiting.pop(key, None)
        # What was refused before is for `retry` to look at: the more is refused, the less another wish may cost.
        refused = {} if before is None else {one: why for one, why in before.refused.items() if one in asked}
        for channel in asked - held.keys() - refused.keys():
            refusal = self._take(channel, Asker(owner.interface, neighbor(channel)), held)
            if refusal is not None:
                refused[channel] = refusal
                self._tell(owner, channel, refusal, None)
        if held:
            self._held[key] = held
        else:
            self._held.pop(key, None)
        if refused:
            wish = self._refused[key] = Wish(wanted, refused, neighbor, before.unseen if before is not None else 0)
            self._wait(key, wish)
        self._tree.set_interest(owner, group, _fulfilled(group, wanted, held))
        self._on_changed()

    def withdraw(self, owner: Owner) -> None:
        """`owner` is gone with all it wanted."""
        for key in [key for key in self._held.keys() | self._refused.keys() if key[0] == owner]:
            self.wish(owner, key[1], NOTHING)
        self._owners.discard(owner)

    def retry(self) -> None:
        """Look again at channels that time or room may bring, those that waited longest first, so many and no more."""
        left = RETRIED_AT_ONCE
        for key in list(islice(self._waiting, RETRIED_AT_ONCE)):
            if left <= 0:
                return
            left -= self._retry(key, left)

    def retry_channel(self, channel: Channel) -> None:
        """Look again at a channel of which something is known now."""
        for owner in self._owners:
            wish = self._refused.get((owner, channel.group))
            if wish is not None and channel in wish.refused:
                self._retry_these((owner, channel.group), wish, [channel])

    def reconfigure(self, policy: Policy) -> None:
        """Use other rules and limits: what is carried goes on unless a rule denies it now, the rest is judged anew.

        What was refused is looked at as `retry` does, the first of it at once.
        """
        policy.measured = self.policy.measured
        self.policy = policy
        wishes: dict[tuple[Owner, Address], Wish] = {}
        for key, held in self._held.items():
            wanted, neighbor = self._tree.interest(*key), _remembered(held)
            for channel, asker in list(held.items()):
                if not policy.adopt(channel, asker):
                    del held[channel]
                    wishes[key] = self._refused.get(key) or Wish(wanted, {}, neighbor)
        for (owner, group), wish in wishes.items():
            self.wish(owner, group, wish.wanted, wish.neighbor)
        for key, wish in self._refused.items():
            wish.unseen = len(wish.refused)
            self._waiting.setdefault(key)
        self.retry()

    def refused(self) -> Iterator[tuple[Channel, Owner, Refusal]]:
        """Channels somebody asked for and does not get."""
        for (owner, _), wish in list(self._refused.items()):
            for channel, refusal in wish.refused.items():
                yield channel, owner, refusal

    def refused_to(self, channel: Channel) -> Iterator[tuple[Owner, Address | None]]:
        """Who asked for a channel in vain, and which PIM neighbour it was."""
        for owner in self._owners:
            wish = self._refused.get((owner, channel.group))
            if wish is not None and channel in wish.refused:
                yield owner, wish.neighbor(channel)

    def permits_source(self, channel: Channel) -> bool:
        """Whether a source that any-source interest brought may be forwarded, by the rules on sources and groups.

        What an operator joined by hand no rule judges.
        """
        any_source = Channel(None, channel.group)
        for owner, wanted in self._tree.owners(channel.group).items():
            if wanted.mode is FilterMode.EXCLUDE:
                asker = self._held.get((owner, channel.group), {}).get(any_source)
                if asker is None or self.policy.permits(channel, asker):
                    return True
        return False

    def _take(self, channel: Channel, asker: Asker, held: dict[Channel, Asker]) -> Refusal | None:
        refusal = self.policy.take(channel, asker, self._now())
        if refusal is None:
            held[channel] = asker
        return refusal

    def _may_change(self, owner: Owner, refusal: Refusal) -> bool:
        """Whether a refusal may end by itself: what is denied only when another neighbour asks for it too."""
        return refusal is not Refusal.DENIED or (owner.kind is InterestKind.PIM and self.policy.asks_for_neighbors)

    def _retry(self, key: tuple[Owner, Address], most: int) -> int:
        """Look again at `most` channels of one wish; on how many it was."""
        wish = self._refused[key]
        channels = list(islice(wish.refused, most))
        wish.unseen = max(wish.unseen - len(channels), 0)
        self._retry_these(key, wish, channels)
        return len(channels)

    def _retry_these(self, key: tuple[Owner, Address], wish: Wish, channels: list[Channel]) -> None:
        """Look again at refused channels of a wish, and put them behind the others."""
        owner, held = key[0], self._held.get(key, {})
        before = len(held)
        for channel in channels:
            known = wish.refused.pop(channel)
            refusal = self._take(channel, Asker(owner.interface, wish.neighbor(channel)), held)
            if refusal is not None:
                wish.refused[channel] = refusal
                self._tell(owner, channel, refusal, known)
        if len(held) > before:
            self._held[key] = held
            self.wish(*key, wish.wanted, wish.neighbor)
        else:
            self._waiting.pop(key, None)
            self._wait(key, wish)

    def _wait(self, key: tuple[Owner, Address], wish: Wish) -> None:
        """Have a wish looked at again, behind the others, if that may bring anything."""
        if wish.unseen or any(self._may_change(key[0], refusal) for refusal in wish.refused.values()):
            self._waiting[key] = None

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

    def _tell(self, owner: Owner, channel: Channel, refusal: Refusal, before: Refusal | None) -> None:
        """Count and log what is refused now and was not before, or not for this reason."""
        if refusal is before:
            return
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
