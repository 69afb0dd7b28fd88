"""PIM neighbours of one interface: who is there, what they told, and who is DR (RFC 7761 §4.3)."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Address
from agent.protocol.wire.pim import LanPruneDelay


@dataclass(frozen=True, slots=True)
class NeighborView:
    """One neighbour as `status` shows it.

    Attributes:
        address: its primary address, the source of its Hellos.
        secondaries: its other addresses on the link (Address List option).
        dr_priority: None when its Hello had no such option.
        generation_id: None when its Hello had no such option.
        since: when its first Hello came, or its first after a restart.
        expires: when it is gone unless it says Hello again, None for never.
        holdtime: seconds, as told; infinite for 0xffff.
        lan_prune_delay: None when its Hello had no such option.
    """

    address: Address
    secondaries: tuple[Address, ...]
    dr_priority: int | None
    generation_id: int | None
    since: float
    expires: float | None
    holdtime: float
    lan_prune_delay: LanPruneDelay | None
