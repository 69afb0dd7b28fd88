"""Sockets that hold memberships, as many as the kernel's limits per socket ask for."""

from __future__ import annotations

import errno
import resource
from typing import TypeAlias

from agent.net.group_socket import FULL, GroupSocket, membership_limits
from agent.protocol.channels import Address, Family

Key: TypeAlias = tuple[int, Address]
"""Interface index and group."""


class Shard:
    """One socket and the memberships in it; a socket holds an interface and group once."""

    __slots__ = ("capacity", "keys", "socket")

    def __init__(self, family: Family, capacity: int) -> None:
        self.socket = GroupSocket(family)
        self.capacity = capacity
        self.keys: set[Key] = set()


class ShardPool:
    """Finds a socket with room for a membership, and closes those that hold none any more.

    Args:
        max_sockets: sockets at most; None for half of the process's file descriptor limit.
    """

    def __init__(self, max_sockets: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_sockets = max_sockets if max_sockets is not None else max(1, soft // 2)
        self._limits = {family: membership_limits(family) for family in Family}
        self._open: dict[Family, dict[Shard, None]] = {family: {} for family in Family}
        self._full: set[Shard] = set()

    def __len__(self) -> int:
        return len(self._full) + sum(map(len, self._open.values()))

    def sources_per_group(self, family: Family) -> int:
        """Sources one membership holds at most."""
        return self._limits[family][1]

    def join(self, key: Key, source: Address | None) -> Shard:
        """Join a group, or one source of it, on a socket that does not hold it yet.

        Raises:
            OSError: no such interface (ENODEV), not allowed, or every socket allowed is in use (EMFILE).
        """
        family = Family.of(key[1])
        for shard in list(self._open[family]):
            if key not in shard.keys and self._try(shard, key, source):
                return shard
        if len(self) >= self.max_sockets:
            raise OSError(
                errno.EMFILE, f"{len(self)} sockets hold native joins already; raise the file descriptor limit"
            )
        shard = Shard(family, self._limits[family][0])
        self._open[family][shard] = None
        try:
            joined = self._try(shard, key, source)
        finally:
            self._drop_if_empty(shard)
        if not joined:
            raise OSError(errno.ENOBUFS, "the kernel does not allow one membership on a socket")
        return shard

    def leave(self, shard: Shard, key: Key) -> None:
        """Leave a group with all its sources; an interface that is gone is no error."""
        try:
            shard.socket.leave(*key)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO):
                raise
        finally:
            self.forget(shard, key)

    def forget(self, shard: Shard, key: Key) -> None:
        """The kernel dropped a membership, its last source having been left."""
        shard.keys.discard(key)
        if shard in self._full:
            self._full.discard(shard)
            self._open[shard.socket.family][shard] = None
        self._drop_if_empty(shard)

    def close(self) -> None:
        """Leave everything."""
        for shard in [*self._full, *(shard for shards in self._open.values() for shard in shards)]:
            shard.socket.close()
        self._full.clear()
        for shards in self._open.values():
            shards.clear()

    def _try(self, shard: Shard, key: Key, source: Address | None) -> bool:
        try:
            if source is None:
                shard.socket.join(*key)
            else:
                shard.socket.join_source(*key, source)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # The limit was lowered since it was read, or option memory ran out first.
            shard.capacity = len(shard.keys)
        else:
            shard.keys.add(key)
        if len(shard.keys) >= shard.capacity and shard.keys:
            self._open[shard.socket.family].pop(shard, None)
            self._full.add(shard)
        return key in shard.keys

    def _drop_if_empty(self, shard: Shard) -> None:
        if not shard.keys:
            self._open[shard.socket.family].pop(shard, None)
            shard.socket.close()
