"""Maps: tables in the kernel that programs and the agent share."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from operator import add
from types import TracebackType
from typing import Final, Self

from agent.net.bpf.errors import NOT_SUPPORTED, failure
from agent.net.bpf.library import ffi, library

ANY: Final = 0
"""Write an entry whether it is there or not (BPF_ANY)."""

NOEXIST: Final = 1
"""Only make a new one."""

EXIST: Final = 2
"""Only change one that is there."""

_AT_ONCE: Final = 4096
_FEW_CPUS: Final = 8
_LONGEST_NAME: Final = 15


class MapKind(IntEnum):
    """Kinds of maps (linux/bpf.h, enum bpf_map_type)."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    CPUMAP = 16
    DEVMAP_HASH = 25
    RINGBUF = 27


_PER_CPU: Final = frozenset({MapKind.PERCPU_HASH, MapKind.PERCPU_ARRAY, MapKind.LRU_PERCPU_HASH})


class BpfMap:
    """One map. Keys and values are octets laid out as the program has them; indexes of arrays may be numbers.

    Values of maps of programs and of maps are file descriptors (four octets, host order).

    Attributes:
        fd: its descriptor, owned by the object it was loaded with or by this one (`create_map`).
        kind: number of its kind.
        name: its name.
        key_size: octets of a key.
        value_size: octets of a value, on one CPU.
        entries: most entries.
    """

    def __init__(
        self, fd: int, kind: int, name: str, key_size: int, value_size: int, entries: int, *, owned: bool = False
    ) -> None:
        self.fd = fd
        self.kind = kind
        self.name = name
        self.key_size = key_size
        self.value_size = value_size
        self.entries = entries
        self._owned = owned
        self._library = library()
        self._cpus = possible_cpus() if kind in _PER_CPU else 1
        self._stride = -(-value_size // 8) * 8 if kind in _PER_CPU else value_size
        self._batches = True

    def update(self, key: bytes | int, value: bytes, flag: int = ANY) -> None:
        """Write one entry; on per-CPU maps the value of every CPU.

        Raises:
            BpfError: EEXIST or ENOENT against `flag`, E2BIG when the map is full.
            ValueError: a key or value of another size than the map's.
        """
        key = self._key(key)
        if len(value) != self.value_size:
            raise ValueError(f"{len(value)} octets for a value of map {self.name}, which has {self.value_size}")
        if self._cpus > 1 or self._stride != self.value_size:
            value = value.ljust(self._stride, b"\0") * self._cpus
        code = self._library.bpf_map_update_elem(self.fd, key, value, flag)
        if code:
            raise failure(f"writing to map {self.name}", code)

    def lookup(self, key: bytes | int) -> bytes | None:
        """Value of an entry; None when there is none. Not for per-CPU maps.

        Raises:
            BpfError: the kernel does not let this map be read.
        """
        assert self.kind not in _PER_CPU
        return self._lookup(self._key(key))

    def delete(self, key: bytes | int) -> bool:
        """Take an entry out; False when there was none.

        Raises:
            BpfError: entries of this map cannot be taken out.
        """
        code = self._library.bpf_map_delete_elem(self.fd, self._key(key))
        if code and abs(code) != errno.ENOENT:
            raise failure(f"deleting from map {self.name}", code)
        return not code

    def keys(self) -> list[bytes]:
        """Keys of all entries at this moment; one written or deleted meanwhile may be there or not."""
        found: dict[bytes, None] = {}
        following = ffi.new("char[]", self.key_size)
        key: bytes | None = None
        while True:
            code = self._library.bpf_map_get_next_key(self.fd, ffi.NULL if key is None else key, following)
            if code:
                if abs(code) != errno.ENOENT:
                    raise failure(f"reading keys of map {self.name}", code)
                return list(found)
            key = bytes(ffi.buffer(following))
            if key in found:  # the entry before went away, and the kernel began again
                return list(found)
            found[key] = None

    def lookup_each(self, key: bytes | int) -> list[bytes]:
        """Values of an entry of a per-CPU map, one for each possible CPU; an empty list when there is none."""
        values = self._lookup(self._key(key))
        if values is None:
            return []
        return [values[at : at + self.value_size] for at in range(0, len(values), self._stride)]

    def sums(self, key: bytes | int) -> tuple[int, ...]:
        """The 64-bit numbers a value is made of, each summed over all CPUs; zeros when there is no such entry."""
        fields = self.value_size // 8
        values = [struct.unpack(f"={fields}Q", value) for value in self.lookup_each(key)]
        return tuple(map(sum, zip(*values, strict=True))) if values else (0,) * fields

    def all_sums(self, first: int = 0, count: int | None = None) -> Sequence[tuple[int, ...]]:
        """`sums` of `count` entries of a per-CPU array from `first` on, with a few system calls.

        Args:
            first: index of the first entry.
            count: how many; None for all that follow.
        """
        return list(zip(*self.columns(first, count), strict=True))

    def columns(self, first: int = 0, count: int | None = None) -> tuple[list[int], ...]:
        """The same number by number: for each of a value's 64-bit numbers a list with its sums of all entries.

        Args:
            first: index of the first entry.
            count: how many; None for all that follow.
        """
        last = self.entries if count is None else min(first + count, self.entries)
        found: tuple[list[int], ...] = tuple([] for _ in range(self.value_size // 8))
        at = first
        while at < last:
            size = min(_AT_ONCE, last - at)
            values = self._batch(at, size) if self._batches else None
            if values is None:  # this kernel does it one by one
                self._batches = False
                sums = map(self.sums, range(at, last))
                parts, size = [list(column) for column in zip(*sums, strict=True)], last - at
            else:
                parts = self._sum(values)
            for column, part in zip(found, parts, strict=True):
                column.extend(part)
            at += size
        return found

    def zero(self, key: bytes | int) -> None:
        """Set the value of every CPU to zero; what a program counts at this moment may be lost or survive."""
        self.update(key, bytes(self.value_size))

    def close(self) -> None:
        """Close a map made by `create_map`; the kernel keeps it while another map or a program uses it."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _key(self, key: bytes | int) -> bytes:
        if isinstance(key, int):
            key = struct.pack("=I", key)
        if len(key) != self.key_size:  # the kernel would read what is behind it in memory
            raise ValueError(f"{len(key)} octets for a key of map {self.name}, which has {self.key_size}")
        return key

    def _lookup(self, key: bytes) -> bytes | None:
        value = ffi.new("char[]", self._stride * self._cpus)
        code = self._library.bpf_map_lookup_elem(self.fd, key, value)
        if not code:
            return bytes(ffi.buffer(value))
        if abs(code) == errno.ENOENT:
            return None
        raise failure(f"reading map {self.name}", code)

    def _batch(self, first: int, count: int) -> memoryview | None:
        """Values of `count` entries from `first` on; None where the kernel has no such call for this kind of map."""
        keys = ffi.new("char[]", 4 * count)
        values = ffi.new("char[]", self._stride * self._cpus * count)
        counted = ffi.new("uint32_t *", count)
        following = ffi.new("char[]", 4)
        before = struct.pack("=I", first - 1) if first else ffi.NULL
        code = self._library.bpf_map_lookup_batch(self.fd, before, following, keys, values, counted, ffi.NULL)
        if code and abs(code) != errno.ENOENT:  # which says that these were the last ones
            if abs(code) in {errno.EINVAL, NOT_SUPPORTED, errno.EOPNOTSUPP}:
                return None
            raise failure(f"reading map {self.name}", code)
        if counted[0] != count:
            return None
        return memoryview(ffi.buffer(values)).cast("B").cast("Q")

    def _sum(self, values: memoryview) -> list[list[int]]:
        """Sums by field: whole columns with few CPUs, else element by element, whose numbers lie together in memory."""
        fields = self._stride // 8
        step = fields * self._cpus
        numbers = values.tolist()
        if self._cpus > _FEW_CPUS:
            starts = range(0, len(numbers), step)
            return [[sum(numbers[at + field : at + step : fields]) for at in starts] for field in range(fields)]
        columns = []
        for field in range(fields):
            column = numbers[field::step]
            for cpu in range(1, self._cpus):
                column = list(map(add, column, numbers[cpu * fields + field :: step]))
            columns.append(column)
        return columns


def create_map(kind: MapKind, name: str, key_size: int, value_size: int, entries: int, flags: int = 0) -> BpfMap:
    """A map of its own, closed by its `close`; one to be put into a map of maps, for example.

    Args:
        kind: its kind.
        name: shown by bpftool; the kernel takes 15 characters.
        key_size: octets of a key.
        value_size: octets of a value.
        entries: most entries.
        flags: BPF_F_… of the kernel.

    Raises:
        BpfError: the kernel refused; EPERM without CAP_BPF.
        BpfUnavailableError: there is no libbpf.
    """
    options = ffi.new("struct bpf_map_create_opts *", {"map_flags": flags})
    options.sz = ffi.sizeof("struct bpf_map_create_opts")
    fd = library().bpf_map_create(kind, name[:_LONGEST_NAME].encode(), key_size, value_size, entries, options)
    if fd < 0:
        raise failure(f"making map {name}", fd)
    return BpfMap(fd, kind, name, key_size, value_size, entries, owned=True)


@cache
def possible_cpus() -> int:
    """CPUs this kernel may ever have: a per-CPU map has a value for each."""
    count = library().libbpf_num_possible_cpus()
    if count < 0:
        raise failure("counting CPUs", count)
    return int(count)
