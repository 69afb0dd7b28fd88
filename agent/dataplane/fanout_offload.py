"""Keeps the kernel's fan-out in step with the flows of userspace's, and credits what it sent."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.dataplane.fanout_flows import Flow, FlowTable
from agent.dataplane.fanout_kernel import KernelFanout, Served
from agent.dataplane.fanout_list import SendList, Tunnel

_SWEEP_EVERY: Final = 5.0


class Offload:
    """Which flows the kernel serves.

    Args:
        loop: the event loop.
        flows: all flows.

    Attributes:
        kernel: serves them, None where it cannot; closed by `close`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, flows: FlowTable) -> None:
        self.kernel: KernelFanout | None = None
        self._loop = loop
        self._flows = flows
        self._served: dict[Flow, Served] = {}
        self._sweeping = loop.call_later(_SWEEP_EVERY, self._sweep)

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._served

    def __len__(self) -> int:
        return len(self._served)

    def offer(self, flow: Flow) -> None:
        """Have the kernel serve a flow from its next packet on, if it can."""
        if self.kernel is not None and flow.send_list is not None and flow not in self._served:
            served = self.kernel.serve(_key(flow), flow.send_list)
            if served is not None:
                self._served[flow] = served

    def replace(self, flow: Flow, send_list: SendList | None) -> bool:
        """Send a flow the kernel serves to others; False when it is userspace's from now on."""
        before = self._served[flow]
        after = None
        if self.kernel is not None and send_list is not None:
            after = self.kernel.serve(before.key, send_list)
        if after is None:
            self._withdraw(flow)
            return False
        assert self.kernel is not None
        self._credit(flow, before)
        self.kernel.retire(before)
        self._served[flow] = after
        return True

    def forget(self, tunnel: Tunnel) -> None:
        """A tunnel ends, or its local address is another one."""
        if self.kernel is not None:
            self.kernel.settle_losses()
            self.kernel.forget(tunnel)

    def credit(self) -> None:
        """Credit flows and lists with what the kernel sent, and tunnels with what it lost."""
        if self.kernel is not None:
            for flow, served in self._served.items():
                self._credit(flow, served)

    def settle_losses(self) -> None:
        """Take back what did not leave, once lists are settled."""
        if self.kernel is not None:
            self.kernel.settle_losses()

    def refresh(self) -> None:
        """Tunnels changed: give back what cannot stay, offer the rest."""
        if self.kernel is None:
            return
        for flow, served in list(self._served.items()):
            if not self.kernel.is_ready(served):
                self._withdraw(flow)
        for flow in self._flows:
            self.offer(flow)

    def withdraw_all(self) -> None:
        """Give every flow back to userspace, credited with what the kernel sent."""
        for flow in list(self._served):
            self._withdraw(flow)

    def stop(self) -> None:
        """Have the kernel serve nothing any more; another one may be set later."""
        if self.kernel is not None:
            self.withdraw_all()
            self.kernel.settle_losses()
            self.kernel.close()
            self.kernel = None

    def close(self) -> None:
        """Stop for good."""
        self._sweeping.cancel()
        self.stop()

    def _withdraw(self, flow: Flow) -> None:
        served = self._served.pop(flow)
        assert self.kernel is not None
        self.kernel.withdraw(served)
        self._credit(flow, served)

    def _credit(self, flow: Flow, served: Served) -> None:
        assert self.kernel is not None
        fresh = self.kernel.read(served)
        if fresh.packets:
            flow.traffic.packets += fresh.packets
            flow.traffic.bytes += fresh.bytes
            flow.seen_at = self._loop.time()
            served.send_list.count(fresh.packets, fresh.bytes)

    def _sweep(self) -> None:
        self.credit()
        for flow in [flow for flow in self._served if self._flows.by_key.get(_key(flow)) is not flow]:
            self._withdraw(flow)
        self._sweeping = self._loop.call_later(_SWEEP_EVERY, self._sweep)


def _key(flow: Flow) -> bytes:
    source = flow.channel.source
    assert source is not None
    return source.packed + flow.channel.group.packed
