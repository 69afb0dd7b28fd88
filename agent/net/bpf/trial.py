"""Run a program once or a million times on a packet of ours (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from agent.net.bpf.errors import failure
from agent.net.bpf.library import ffi, library

LIVE_FRAMES: Final = 1 << 1
"""BPF_F_TEST_XDP_LIVE_FRAMES: what the program redirects or passes really goes there."""

_XDP: Final = 6  # enum bpf_prog_type
_MOST_ADDED: Final = 4096
_INTERFACE_AT: Final = 40  # in struct __sk_buff


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a program did.

    Attributes:
        verdict: what it returned (XDP_… or TC_ACT_…).
        data: the packet it left.
        nanoseconds: time of one run, on average.
    """

    __test__ = False  # for pytest, which takes it for tests

    verdict: int
    data: bytes
    nanoseconds: int


def test_run(
    program: int,
    data: bytes,
    *,
    repeat: int = 1,
    ifindex: int = 0,
    flags: int = 0,
) -> TestRun:
    """Run a program on one packet, Ethernet header first. With `repeat` the packet is not set back between runs.

    Args:
        program: its descriptor.
        data: the packet.
        repeat: how many times.
        ifindex: interface it seems to have come in by, in our network namespace; 0 for its loopback interface.
        flags: BPF_F_TEST_… of the kernel.

    Raises:
        BpfError: the kernel refused, EINVAL for a packet without an Ethernet header.
    """
    output = ffi.new("char[]", len(data) + _MOST_ADDED)
    options, kept = _options(program, data, ifindex)
    options.data_out, options.data_size_out = output, len(data) + _MOST_ADDED
    options.repeat, options.flags = repeat, flags
    code = library().bpf_prog_test_run_opts(program, options)
    del kept
    if code:
        raise failure("running a program on a packet", code)
    return TestRun(options.retval, bytes(ffi.buffer(output, options.data_size_out)), options.duration)


test_run.__test__ = False  # type: ignore[attr-defined] # for pytest, as above


def live_frames(program: int, data: bytes, repeat: int, batch: int = 64, *, ifindex: int = 0) -> int:
    """Send copies of a frame through an XDP program as if they had come in; nanoseconds of one, on average.

    Each copy starts as the program left the one before in the same buffer: it must not depend on what it rewrites.

    Args:
        program: its descriptor.
        data: the frame.
        repeat: how many.
        batch: how many at once, 256 at most.
        ifindex: interface they seem to come in by, 0 for the loopback interface.

    Raises:
        BpfError: the kernel refused; EINTR when a signal ended it.
    """
    options, kept = _options(program, data, ifindex)
    options.repeat, options.flags, options.batch_size = repeat, LIVE_FRAMES, batch
    code = library().bpf_prog_test_run_opts(program, options)
    del kept
    if code:
        raise failure("sending frames through a program", code)
    return int(options.duration)


def _options(program: int, data: bytes, ifindex: int) -> tuple[Any, tuple[Any, ...]]:
    """Options with the packet and its context, and what must live as long as they are used."""
    options = ffi.new("struct bpf_test_run_opts *")
    options.sz = ffi.sizeof("struct bpf_test_run_opts")
    packet = ffi.from_buffer(data)
    options.data_in, options.data_size_in = packet, len(data)
    if not ifindex:
        return options, (packet,)
    if _kind(program) == _XDP:
        context = struct.pack("=6I", 0, len(data), 0, ifindex, 0, 0)  # struct xdp_md
    else:
        context = bytes(_INTERFACE_AT) + struct.pack("=I", ifindex)
    kept = ffi.from_buffer(context)
    options.ctx_in, options.ctx_size_in = kept, len(context)
    return options, (packet, kept, context)


def _kind(program: int) -> int:
    information = ffi.new("char[]", 64)
    size = ffi.new("uint32_t *", 64)
    code = library().bpf_obj_get_info_by_fd(program, information, size)
    if code:
        raise failure("asking for the kind of a program", code)
    return int(struct.unpack_from("=I", ffi.buffer(information))[0])
