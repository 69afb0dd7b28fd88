"""Objects: programs and maps that clang compiled, loaded into the kernel and checked by it."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from agent.net.bpf.errors import BpfUnavailableError, failure
from agent.net.bpf.library import ffi, library, messages
from agent.net.bpf.maps import BpfMap

_DIRECTORY: Final = Path(__file__).resolve().parents[2] / "dataplane" / "bpf"
_LOG_SIZE: Final = 16 * 1024 * 1024 - 1
"""Octets of the verifier's log; the kernel's limit before Linux 5.2. Pages it does not touch cost nothing."""

_LINES: Final = 12
_CAP_PERFMON: Final = 38  # linux/capability.h


def object_path(name: str) -> Path:
    """Where the object of that name is, or would be had it been built."""
    return _DIRECTORY / f"{name}.bpf.o"


class BpfObject:
    """Programs and maps in the kernel, until `close` or the end of the process."""

    def __init__(self, name: str, handle: Any) -> None:  # noqa: ANN401 - cffi has no types
        self.name = name
        self._handle = handle
        self._library = library()
        self._maps = {map_name: _map(self._library, item) for map_name, item in _maps(self._library, handle)}
        self._programs = {
            program_name: int(self._library.bpf_program__fd(item))
            for program_name, item in _programs(self._library, handle)
        }

    def map(self, name: str) -> BpfMap:
        """The map of that name.

        Raises:
            KeyError: there is none.
        """
        return self._maps[name]

    def program(self, name: str) -> int:
        """Descriptor of the program of that name.

        Raises:
            KeyError: there is none, or it was not loaded.
        """
        fd = self._programs[name]
        if fd < 0:
            raise KeyError(f"{name} was not loaded")
        return fd

    def close(self) -> None:
        """Close all descriptors; the kernel keeps what links and other maps still use."""
        if self._handle is not None:
            self._library.bpf_object__close(self._handle)
            self._handle = None
            self._maps, self._programs = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def load(
    name: str | Path, *, entries: Mapping[str, int] | None = None, programs: Collection[str] | None = None
) -> BpfObject:
    """Load an object into the kernel.

    Args:
        name: name of one of the agent's objects, or the path of another one.
        entries: most entries by name of map, where the object's own number does not fit.
        programs: the programs to load; None for all.

    Raises:
        BpfUnavailableError: there is no libbpf or no such object, or the kernel refuses it; the message says which.
        ValueError: the object has no map or program of a name given.
    """
    path = name if isinstance(name, Path) else object_path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BpfUnavailableError(
            f"{path} cannot be read ({error.strerror}): build it with `make bpf`, or install a wheel built with clang"
        ) from error
    loaded = library()
    log = mmap.mmap(-1, _LOG_SIZE)
    with messages() as said, ffi.from_buffer(log) as log_at, ffi.from_buffer(content) as content_at:
        title = ffi.new("char[]", path.name.removesuffix(".bpf.o").encode())
        options = ffi.new("struct bpf_object_open_opts *", {"object_name": title, "kernel_log_buf": log_at})
        options.sz, options.kernel_log_size = ffi.sizeof("struct bpf_object_open_opts"), _LOG_SIZE
        handle = loaded.bpf_object__open_mem(content_at, len(content), options)
        if handle == ffi.NULL:
            reason = "; ".join(said) or os.strerror(ffi.errno)
            raise BpfUnavailableError(f"{path} is no object for this libbpf ({reason}): build it again with `make bpf`")
        try:
            _choose(loaded, handle, entries or {}, programs)
            code = loaded.bpf_object__load(handle)
        except BaseException:
            loaded.bpf_object__close(handle)
            raise
        if code:
            loaded.bpf_object__close(handle)
            raise _refusal(path, code, said, log)
        return BpfObject(path.name, handle)


def _choose(loaded: Any, handle: Any, entries: Mapping[str, int], programs: Collection[str] | None) -> None:  # noqa: ANN401
    maps = dict(_maps(loaded, handle))
    known = dict(_programs(loaded, handle))
    unknown = (entries.keys() - maps.keys()) | (set(programs or ()) - known.keys())
    if unknown:
        raise ValueError(f"the object has no {', '.join(sorted(unknown))}")
    for name, count in entries.items():
        code = loaded.bpf_map__set_max_entries(maps[name], count)
        if code:
            raise failure(f"setting the size of map {name}", code)
    for name, program in known.items():
        loaded.bpf_program__set_autoload(program, programs is None or name in programs)


def _refusal(path: Path, code: int, said: list[str], log: mmap.mmap) -> BpfUnavailableError:
    """Why the kernel did not take an object: a missing privilege, or the last lines of what its verifier wrote."""
    number = abs(code)
    if number == errno.EPERM:
        return BpfUnavailableError(
            f"the kernel does not let us load {path.name}: needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW "
            "(AmbientCapabilities of the unit, --cap-add of the container), and bpf() in SystemCallFilter"
        )
    end = log.find(b"\0")
    lines = log[: end if end >= 0 else len(log)].decode(errors="replace").splitlines()
    told = " | ".join(line.strip() for line in [*said[-3:], *lines[-_LINES:]] if line.strip())
    hint = "" if number != errno.EACCES or _has_perfmon() else " (before Linux 6.13 it needs CAP_PERFMON too)"
    return BpfUnavailableError(f"the kernel refuses {path.name}: {os.strerror(number)}{hint}: {told}")


def _has_perfmon() -> bool:
    """Whether we have CAP_PERFMON.

    A verifier of Linux 6.1 to 6.12 that does not know it takes half a word that the compiler saved on the stack for a
    corrupted pointer (mended by Linux commit b0e66977dc07).
    """
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _CAP_PERFMON & 1)


def _map(loaded: Any, item: Any) -> BpfMap:  # noqa: ANN401
    return BpfMap(
        int(loaded.bpf_map__fd(item)),
        int(loaded.bpf_map__type(item)),
        ffi.string(loaded.bpf_map__name(item)).decode(),
        int(loaded.bpf_map__key_size(item)),
        int(loaded.bpf_map__value_size(item)),
        int(loaded.bpf_map__max_entries(item)),
    )


def _maps(loaded: Any, handle: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    item = loaded.bpf_object__next_map(handle, ffi.NULL)
    while item != ffi.NULL:
        yield ffi.string(loaded.bpf_map__name(item)).decode(), item
        item = loaded.bpf_object__next_map(handle, item)


def _programs(loaded: Any, handle: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    item = loaded.bpf_object__next_program(handle, ffi.NULL)
    while item != ffi.NULL:
        yield ffi.string(loaded.bpf_program__name(item)).decode(), item
        item = loaded.bpf_object__next_program(handle, item)
