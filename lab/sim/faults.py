"""Faults that a simulated router shows on demand, switchable while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAULTS: Final[dict[str, str]] = {
    "slow": "slow:SECONDS  every reply waits this long",
    "hang-mid-rpc": "half of a reply is sent, then nothing more; the session stays open",
    "drop-session": "half of a reply is sent, then the connection is cut",
    "drop-after-commit": "a commit is done, but the connection is cut instead of an answer",
    "garbage": "replies are noise",
    "vty-full": "new connections are refused: all lines are taken",
    "refuse-login": "no credential is right",
    "change-host-key": "another host key is served than before",
    "lock-held": "somebody else holds the lock of the configuration",
    "no-reply-rpc": "no-reply-rpc:NAME  this RPC (CLI: this command) is never answered, others are",
    "commit-refused": "every commit and commit check fails",
}
"""Name -> how it is written (where it has an argument) and what it does."""

_NEEDS_ARGUMENT: Final = frozenset({"slow", "no-reply-rpc"})


class UnknownFault(ValueError):
    """No fault has this name, or its argument is wrong."""


def parse(fault: str) -> tuple[str, str]:
    """Split `NAME[:ARGUMENT]`.

    Raises:
        UnknownFault: the name is not in `FAULTS`, or the argument is missing or not allowed.
    """
    name, _, argument = fault.partition(":")
    if name not in FAULTS:
        raise UnknownFault(f"no fault is called {name!r}; known: {', '.join(FAULTS)}")
    if (name in _NEEDS_ARGUMENT) != bool(argument):
        raise UnknownFault(f"write {FAULTS[name].split('  ')[0] if name in _NEEDS_ARGUMENT else name!r}")
    if name == "slow":
        try:
            float(argument)
        except ValueError:
            raise UnknownFault(f"slow:{argument}: not a number of seconds") from None
    return name, argument


class FaultSwitch:
    """The faults that are on."""

    def __init__(self, faults: tuple[str, ...] = ()) -> None:
        self._active: dict[str, str] = dict(map(parse, faults))
        self._listeners: list[Callable[[], None]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._active

    @property
    def active(self) -> dict[str, str]:
        """Name -> argument (empty where it has none) of the faults that are on."""
        return dict(self._active)

    @property
    def delay(self) -> float:
        """Seconds each reply waits (slow)."""
        return float(self._active.get("slow", 0.0))

    def silences(self, name: str) -> bool:
        """Whether the RPC or command `name` is never answered (no-reply-rpc)."""
        return self._active.get("no-reply-rpc") == name

    def set(self, fault: str | None) -> None:
        """Switch one on besides those that are on; None switches all off.

        Raises:
            UnknownFault: see `parse`.
        """
        if fault is None:
            self._active.clear()
        else:
            name, argument = parse(fault)
            self._active[name] = argument
        for listener in self._listeners:
            listener()

    def clear(self, name: str) -> None:
        """Switch one off."""
        self._active.pop(name, None)
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every switch."""
        self._listeners.append(listener)
