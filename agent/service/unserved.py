"""Why nothing brings channels that somebody wants, and what to do about it, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from agent.protocol.channels import Channel
from agent.protocol.discovery import Outcome
from agent.service.model import Problem, Severity

NO_RELAY: Final = "no_relay"
PENDING: Final = "discovery: pending"
UNUSABLE: Final = "discovery: unusable"

_LOOKED_AT: Final = 1000
"""Channels asked about: with more of them, the reasons are the same ones."""

_ADVICE: Final = {
    NO_RELAY: "no relay of the file has sources that cover {them}, and discovery is not asked; "
    "add one to [[gateway.relay]], or methods to [discovery]",
    PENDING: "the relays of their sources are being looked for",
    UNUSABLE: "relays were found for their sources, and none can be used; the log says why",
    f"discovery: {Outcome.NO_RELAY.value}": "who holds their sources says in the DNS that no relay is to be used; "
    "a relay in [[gateway.relay]] is used all the same",
    f"discovery: {Outcome.NOTHING.value}": "neither the file nor discovery names a relay of their sources; "
    "`amt-agent discover SOURCE` shows what was asked",
    f"discovery: {Outcome.FAILED.value}": "discovery had no answer and goes on asking; check the DNS servers, "
    "`amt-agent discover SOURCE` shows what was asked",
}

_ANY_SOURCE: Final = (
    "they name no source that could be looked up; "
    "any-source groups take a relay in [[gateway.relay]] without sources, or with a default prefix"
)


def unserved_problems(channels: Iterable[Channel], explain: Callable[[Channel], str]) -> list[Problem]:
    """One problem for each reason, of channels nothing brings; `explain` says why of one of them."""
    found: dict[tuple[str, bool], list[Channel]] = {}
    for channel in islice(channels, _LOOKED_AT):
        found.setdefault((explain(channel), channel.source is None), []).append(channel)
    return [_problem(reason, unserved, is_any_source) for (reason, is_any_source), unserved in found.items()]


def _problem(reason: str, channels: list[Channel], is_any_source: bool) -> Problem:
    advice = _ANY_SOURCE if is_any_source else _ADVICE.get(reason, reason)
    count = len(channels)
    head = "1 channel is not carried" if count == 1 else f"{count} channels are not carried"
    return Problem(
        code="channels_unserved",
        severity=Severity.WARNING if reason == PENDING else Severity.ERROR,
        message=f"{head}: {advice.format(them='it' if count == 1 else 'them')}.",
        subject=str(channels[0]),
    )
