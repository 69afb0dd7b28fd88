"""One interface as the API shows it, in either role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agent.dataplane.engine import Traffic
from agent.net.interfaces import Interface
from agent.service.engine_model import InterfaceRole
from agent.service.model import (
    InterfaceStatus,
    PimStatus,
    Problem,
    QuerierStatus,
    Severity,
)


def interface_status(
    name: str,
    role: InterfaceRole,
    interface: Interface | None,
    queriers: Sequence[QuerierStatus] = (),
    traffic: Traffic | None = None,
    pim: Sequence[PimStatus] = (),
) -> InterfaceStatus:
    """Row of an interface, existing or not."""
    moved = traffic or Traffic()
    if interface is None:
        return InterfaceStatus(
            name=name,
            role=role,
            up=False,
            queriers=list(queriers),
            pim=list(pim),
            packets=moved.packets,
            bytes=moved.bytes,
        )
    return InterfaceStatus(
        name=name,
        role=role,
        index=interface.index,
        up=interface.up,
        mtu=interface.mtu,
        addresses=[f"{item.address}/{item.prefix_length}" for item in interface.addresses],
        queriers=list(queriers),
        pim=list(pim),
        packets=moved.packets,
        bytes=moved.bytes,
    )


def interface_problems(statuses: Iterable[InterfaceStatus]) -> Iterator[Problem]:
    """One problem for each interface that cannot carry packets."""
    for status in statuses:
        if not status.up:
            yield Problem(
                code="interface_down",
                severity=Severity.ERROR,
                message=f"Interface {status.name} is absent or down.",
                subject=status.name,
            )
