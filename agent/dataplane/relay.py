"""The relay's data plane in one piece: native joins, capture and fan-out, kept in step."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from agent.dataplane.capture import SEGMENTS_UNREADABLE, Capture
from agent.dataplane.engine import Refusal
from agent.dataplane.fanout import Fanout, FanoutCounters
from agent.dataplane.fanout_kernel import KernelFanout
from agent.dataplane.fanout_oversize import Oversize
from agent.dataplane.joins import NativeJoins, OnFailure
from agent.net.bpf import BpfError, BpfUnavailableError
from agent.protocol.channels import Address, Endpoint, Family, Filter

_CHECK_EVERY: Final = 1.0


@dataclass(slots=True)
class RelayCounters(FanoutCounters):
    """Everything the relay's data plane counted since it started.

    Attributes:
        capture_dropped: packets the kernel dropped because the relay did not keep up, per native interface.
        capture_errors: errors of the capture sockets, by errno name or `segments_unreadable`.
        join_failures: native joins that did not come about, as (interface, group) and the reason.
    """

    capture_dropped: dict[str, int] = field(default_factory=dict)
    capture_errors: dict[str, int] = field(default_factory=dict)
    join_failures: dict[tuple[str, Address], str] = field(default_factory=dict)


class RelayDataPlane:
    """Carries native multicast of some interfaces into tunnels, joining natively what tunnels want.

    A native interface may be missing or vanish: it is looked for every second, or at once when `interface_changed` says
    so.

    Args:
        loop: the event loop everything is called from.
        sockets: the relay's non-blocking UDP sockets by family of the tunnel; control and data share them, and they
            stay the caller's.
        interfaces: names of the native interfaces.
        oversize: what to do with packets too big for a tunnel.
        on_join_failure: told about native joins that did not come about.
        kernel: have the kernel send what it can by itself; where it cannot, `details` says why.

    Raises:
        OSError: CAP_NET_RAW is missing, or an interface's link type is unknown.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Mapping[Family, socket.socket],
        interfaces: Iterable[str],
        *,
        oversize: Oversize = Oversize.FRAGMENT,
        on_join_failure: OnFailure | None = None,
        kernel: bool = False,
    ) -> None:
        self._loop = loop
        self._interfaces = tuple(dict.fromkeys(interfaces))
        self._indexes: dict[str, int] = {}
        self._captures: dict[str, Capture] = {}
        self._refused: Counter[Refusal] = Counter()
        self._dropped: Counter[str] = Counter()
        self._capture_errors: Counter[str] = Counter()
        self._joins = NativeJoins(on_failure=on_join_failure)
        self._fanout = Fanout(loop, sockets, oversize=oversize)
        self._sockets = sockets
        self._oversize = oversize
        self._without_kernel = "switched off"
        try:
            if kernel:
                self._start_kernel()
            for name in self._interfaces:
                self._open_capture(name)
        except OSError:
            self._fanout.close()
            self._close_captures()
            raise
        self._check = loop.call_later(_CHECK_EVERY, self._check_interfaces)

    @property
    def name(self) -> str:
        """The best plane in use: `tc` where the kernel sends what it can, else `userspace`."""
        return "userspace" if self._fanout.offload.kernel is None else "tc"

    @property
    def details(self) -> dict[str, str]:
        """How packets travel on this host, for `status` and `doctor`."""
        how = "packet socket, recvmmsg"
        if any(capture.errors[SEGMENTS_UNREADABLE] for capture in self._captures.values()):
            how += "; loses datagrams joined by offload, readable since Linux 6.2: switch off UDP segmentation or GRO"
        offload = self._fanout.offload
        told = f"no: {self._without_kernel}"
        if offload.kernel is not None:
            told = f"{offload.kernel.details}; channels in it: {len(offload)}"
        return {"capture": how, "kernel": told} | self._fanout.details

    def set_interest(self, tunnel: Endpoint, local: Address | None, group: Address, wanted: Filter) -> None:
        """Send `tunnel` what `wanted` admits of `group`, from address `local`; replaces what was set before.

        A filter that wants nothing ends the interest.

        Raises:
            ValueError: there is no socket of the tunnel's family.
        """
        self._fanout.set_interest(tunnel, local, group, wanted)
        self._join(group)

    def remove_tunnel(self, tunnel: Endpoint) -> None:
        """End every interest of a tunnel and forget its counters."""
        for group in self._fanout.remove_tunnel(tunnel):
            self._join(group)

    def interface_changed(self, name: str) -> None:
        """Capture and join anew when a native interface came, went or was made again; others are ignored."""
        if name not in self._interfaces:
            return
        if _interface_index(name) != self._indexes.get(name, 0):
            with suppress(OSError):
                self._open_capture(name)
        self._joins.interface_changed(name)

    def set_kernel(self, *, enabled: bool) -> None:
        """Have the kernel send what it can from now on, or have it send nothing; no packet is lost or sent twice."""
        offload = self._fanout.offload
        if enabled and offload.kernel is None:
            self._start_kernel()
            for name in self._captures:
                self._accelerate(name)
            offload.refresh()
        elif not enabled and offload.kernel is not None:
            offload.withdraw_all()
            for capture in self._captures.values():
                capture.detach()
            self._refused.update(offload.kernel.refused())
            offload.stop()
            self._without_kernel = "switched off"

    def counters(self) -> RelayCounters:
        """A snapshot of the counters."""
        sent = self._fanout.counters()
        refused = Counter(sent.refused) + self._refused
        if self._fanout.offload.kernel is not None:
            refused.update(self._fanout.offload.kernel.refused())
        dropped, errors = Counter(self._dropped), Counter(self._capture_errors)
        for name, capture in self._captures.items():
            refused.update(capture.refused)
            errors.update(capture.errors)
            dropped[name] += capture.dropped()
        return RelayCounters(
            channels=sent.channels,
            tunnels=sent.tunnels,
            refused=dict(refused),
            errors=sent.errors,
            tunnel_errors=sent.tunnel_errors,
            sent=sent.sent,
            seen_at=sent.seen_at,
            capture_dropped=dict(dropped),
            capture_errors=dict(errors),
            join_failures={key: str(error) for key, error in self._joins.failures.items()},
        )

    def close(self) -> None:
        """Stop forwarding and leave every group; the UDP sockets stay open."""
        self._check.cancel()
        self._close_captures()
        self._joins.close()
        self._fanout.close()

    def _join(self, group: Address) -> None:
        merged = self._fanout.merged(group)
        for name in self._interfaces:
            self._joins.set_filter(name, group, merged)

    def _open_capture(self, name: str) -> None:
        self._close_capture(name)
        index = _interface_index(name)
        if index:
            self._captures[name] = Capture(self._loop, name, self._fanout.deliver)
            self._indexes[name] = index
            self._accelerate(name)

    def _start_kernel(self) -> None:
        offload = self._fanout.offload
        try:
            offload.kernel = KernelFanout(self._loop, self._sockets, self._oversize, offload.refresh)
        except (BpfUnavailableError, BpfError, OSError) as error:
            self._without_kernel = str(error)

    def _accelerate(self, name: str) -> None:
        """Let the kernel serve an interface: its capture stops seeing what the programs take."""
        kernel = self._fanout.offload.kernel
        program = kernel.attach(name) if kernel is not None else None
        if kernel is None or program is None:
            return
        try:
            self._captures[name].attach(program)
        except OSError:
            kernel.detach(name)

    def _close_capture(self, name: str) -> None:
        self._indexes.pop(name, None)
        if self._fanout.offload.kernel is not None:
            self._fanout.offload.kernel.detach(name)
        capture = self._captures.pop(name, None)
        if capture is not None:
            self._refused.update(capture.refused)
            self._capture_errors.update(capture.errors)
            self._dropped[name] += capture.dropped()
            capture.close()

    def _close_captures(self) -> None:
        for name in list(self._captures):
            self._close_capture(name)

    def _check_interfaces(self) -> None:
        for name in self._interfaces:
            if _interface_index(name) != self._indexes.get(name, 0):
                self.interface_changed(name)
        self._joins.retry()
        self._check = self._loop.call_later(_CHECK_EVERY, self._check_interfaces)


def _interface_index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
