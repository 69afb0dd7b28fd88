"""Joins what tunnels want on the native interfaces; the kernel speaks IGMPv3 and MLDv2 for us (RFC 3376, RFC 3810).

The kernel merges the filters of all sockets of an interface, so a group whose sources exceed one socket's limit is
spread over several sockets, and every change is made by adding before removing: what stays wanted is never left in
between.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from agent.dataplane.joins_pool import Key, Shard, ShardPool
from agent.net.group_socket import FULL
from agent.protocol.channels import NOTHING, Address, Family, Filter, FilterMode

OnFailure = Callable[[str, Address, OSError], None]
"""Called with (interface, group, error) when a join did not come about; it is tried again by `retry`."""


@dataclass(slots=True, eq=False)
class _Group:
    """One group on one interface.

    Attributes:
        wanted: what tunnels want.
        index: interface index the memberships are on.
        sources: sources joined, by the socket that holds them.
        any_source: the socket that holds the join of all sources.
        blocked: sources excluded on it.
        error: why the state is not what is wanted, or None.
    """

    wanted: Filter = NOTHING
    index: int = 0
    sources: dict[Shard, set[Address]] = field(default_factory=dict)
    any_source: Shard | None = None
    blocked: set[Address] = field(default_factory=set)
    error: OSError | None = None


class NativeJoins:
    """Kernel memberships of the relay, by interface name.

    Args:
        max_sockets: sockets at most; None for half of the process's file descriptor limit.
        on_failure: told about joins that did not come about.
    """

    def __init__(self, max_sockets: int | None = None, on_failure: OnFailure | None = None) -> None:
        self._pool = ShardPool(max_sockets)
        self._on_failure = on_failure
        self._groups: dict[tuple[str, Address], _Group] = {}

    @property
    def sockets(self) -> int:
        """Sockets in use."""
        return len(self._pool)

    @property
    def failures(self) -> dict[tuple[str, Address], OSError]:
        """Interface and group of joins that did not come about, and why."""
        return {key: group.error for key, group in self._groups.items() if group.error is not None}

    def set_filter(self, interface: str, group: Address, wanted: Filter) -> None:
        """Join or leave so that the kernel gets `wanted` of `group` on `interface`; replaces what was set before.

        Excluded sources beyond the kernel's limit are received all the same, and left out by the fan-out. What fails is
        in `failures` and tried again by `retry`.
        """
        key = (interface, group)
        state = self._groups.get(key)
        if state is None:
            if wanted.wants_nothing:
                return
            state = self._groups[key] = _Group(index=_interface_index(interface))
        elif state.wanted == wanted and state.error is None:
            return
        state.wanted = wanted
        self._apply(interface, group, state)
        if wanted.wants_nothing and state.error is None:
            del self._groups[key]

    def interface_changed(self, interface: str) -> None:
        """Join anew after an interface was made again (its index changed), and try what failed on it."""
        index = _interface_index(interface)
        for (name, group), state in list(self._groups.items()):
            if name == interface and (state.index != index or state.error is not None):
                if state.index != index:
                    self._leave_all((state.index, group), state)
                    state.index = index
                self._apply(interface, group, state)

    def retry(self) -> None:
        """Try again what failed."""
        for interface in {key[0] for key in self.failures}:
            self.interface_changed(interface)

    def close(self) -> None:
        """Leave everything."""
        self._pool.close()
        self._groups.clear()

    def _apply(self, interface: str, group: Address, state: _Group) -> None:
        try:
            if state.index == 0 and not state.wanted.wants_nothing:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # noqa: TRY301 -- one place records failures
            if state.wanted.mode is FilterMode.EXCLUDE:
                self._apply_exclude((state.index, group), state)
            else:
                self._apply_include((state.index, group), state)
            state.error = None
        except OSError as error:
            known, state.error = state.error, error
            if self._on_failure is not None and (known is None or known.errno != error.errno):
                self._on_failure(interface, group, error)

    def _apply_include(self, key: Key, state: _Group) -> None:
        joined = set().union(*state.sources.values())
        for source in sorted(state.wanted.sources - joined):
            self._join_source(key, state, source)
        for shard, sources in list(state.sources.items()):
            self._leave_sources(key, state, shard, sources - state.wanted.sources)
        self._leave_any(key, state)

    def _apply_exclude(self, key: Key, state: _Group) -> None:
        if state.any_source is None:
            state.any_source = self._pool.join(key, None)
        shard = state.any_source
        for source in state.blocked - state.wanted.sources:
            shard.socket.unblock(*key, source)
            state.blocked.discard(source)
        room = self._pool.sources_per_group(Family.of(key[1])) - len(state.blocked)
        for source in sorted(state.wanted.sources - state.blocked)[: max(0, room)]:
            try:
                shard.socket.block(*key, source)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                break
            state.blocked.add(source)
        for source_shard in state.sources:
            self._pool.leave(source_shard, key)
        state.sources.clear()

    def _join_source(self, key: Key, state: _Group, source: Address) -> None:
        limit = self._pool.sources_per_group(Family.of(key[1]))
        for shard, sources in state.sources.items():
            if len(sources) < limit:
                try:
                    shard.socket.join_source(*key, source)
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                else:
                    sources.add(source)
                    return
        state.sources[self._pool.join(key, source)] = {source}

    def _leave_sources(self, key: Key, state: _Group, shard: Shard, sources: set[Address]) -> None:
        held = state.sources[shard]
        if sources == held:
            del state.sources[shard]
            self._pool.leave(shard, key)
            return
        for source in sources:
            shard.socket.leave_source(*key, source)
            held.discard(source)

    def _leave_any(self, key: Key, state: _Group) -> None:
        if state.any_source is not None:
            shard, state.any_source = state.any_source, None
            state.blocked.clear()
            self._pool.leave(shard, key)

    def _leave_all(self, key: Key, state: _Group) -> None:
        for shard in state.sources:
            with suppress(OSError):
                self._pool.leave(shard, key)
        state.sources.clear()
        with suppress(OSError):
            self._leave_any(key, state)


def _interface_index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
