"""Sends bursts of inner packets to tunnels, never blocking the loop and never losing the others for one."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from agent.dataplane.fanout_list import Part, Tunnel
from agent.net.send_batch import Batch, BatchSender

AMT_DATA: Final = b"\x06\x00"
"""Multicast Data header: version 0, type 6, reserved (RFC 7450 §5.1.6)."""

_BACKLOG_LIMIT: Final = 512

OnTooBig = Callable[[Tunnel], None]
"""Called when the kernel refused a datagram as too big for a tunnel, or would not segment for it."""


class Burst:
    """Inner packets of one channel, in order, all of one size except that the last may be shorter."""

    def __init__(self, packets: list[bytes]) -> None:
        self.packets = packets

    @cached_property
    def payload(self) -> bytes:
        """UDP payloads of all packets, one after the other."""
        return AMT_DATA + AMT_DATA.join(self.packets)

    @property
    def segment(self) -> int:
        """UDP payload bytes of each packet but a shorter last one."""
        return len(AMT_DATA) + len(self.packets[0])

    @cached_property
    def size(self) -> int:
        """Bytes of all inner packets."""
        return sum(map(len, self.packets))


@dataclass(slots=True)
class _Job:
    """One call of sendmmsg, or what is left of it.

    Attributes:
        part: whom to.
        packets: the inner packets, sent alone again where segmentation is refused.
        payload: what is sent.
        segment: 0 for a single datagram.
        position: first destination not yet dealt with.
    """

    part: Part
    packets: list[bytes]
    payload: bytes
    segment: int
    position: int = 0


class Transmitter:
    """Everything that leaves by one UDP socket.

    When the socket's buffer is full the rest waits for it to drain, in order; more than `backlog_limit` waiting jobs
    are dropped and counted as ENOBUFS, since late video is lost video.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sender: BatchSender,
        on_too_big: OnTooBig,
        backlog_limit: int = _BACKLOG_LIMIT,
    ) -> None:
        self._loop = loop
        self._sender = sender
        self._on_too_big = on_too_big
        self._backlog: deque[_Job] = deque()
        self._backlog_limit = backlog_limit
        # A descriptor of our own: the owner of the socket may watch its own for writing.
        self._descriptor = os.dup(sender.fileno())

    def send(self, part: Part, burst: Burst) -> None:
        """Send a burst to every tunnel of `part`."""
        segment = burst.segment
        if len(burst.packets) > 1 and self._sender.segmentation and segment <= part.segment_limit:
            self._submit(_Job(part, burst.packets, burst.payload, segment))
            return
        for packet in burst.packets:
            self._submit(_Job(part, [packet], AMT_DATA + packet, 0))

    def close(self) -> None:
        """Drop what waits."""
        with suppress(OSError, ValueError):
            self._loop.remove_writer(self._descriptor)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._backlog.clear()

    def _submit(self, job: _Job) -> None:
        if not self._backlog:
            if not self._run(job):
                self._backlog.append(job)
                self._loop.add_writer(self._descriptor, self._writable)
        elif len(self._backlog) < self._backlog_limit:
            self._backlog.append(job)
        else:
            for tunnel in job.part.tunnels:
                tunnel.lose("ENOBUFS", len(job.packets), sum(map(len, job.packets)))

    def _writable(self) -> None:
        while self._backlog and self._run(self._backlog[0]):
            self._backlog.popleft()
        if not self._backlog:
            self._loop.remove_writer(self._descriptor)

    def _run(self, job: _Job) -> bool:
        """Send as much as goes; returns whether the job is done."""
        outcome = self._sender.send(job.part.batch, job.payload, job.segment, job.position)
        job.position = outcome.position
        for index in outcome.unsegmentable:
            self._send_singly(job, job.part.tunnels[index])
        for index, number in outcome.failed:
            tunnel = job.part.tunnels[index]
            tunnel.lose(errno.errorcode.get(number, str(number)), len(job.packets), sum(map(len, job.packets)))
            if number == errno.EMSGSIZE:
                self._on_too_big(tunnel)
        return outcome.position >= len(job.part.tunnels)

    def _send_singly(self, job: _Job, tunnel: Tunnel) -> None:
        """One tunnel's path is too narrow for segmentation by the kernel, which does not fragment segments."""
        tunnel.segment_limit = min(tunnel.segment_limit, job.segment - 1)
        self._on_too_big(tunnel)
        batch = Batch([tunnel.destination])
        part = Part(self._sender, (tunnel,), batch, 0, tunnel.path_mtu)
        for packet in job.packets:
            single = _Job(part, [packet], AMT_DATA + packet, 0)
            if not self._run(single):
                tunnel.lose("EAGAIN", 1, len(packet))
