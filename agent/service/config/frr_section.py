"""Living beside FRR, which owns multicast routing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.service.config.section import Section
from agent.service.config.values import AnyInterfaceAddress, Flag, OneOrMany


class FrrSection(Section):
    """Mode `frr`: FRR's pimd routes multicast, the tunnel interface is one of its PIM interfaces."""

    router_address: OneOrMany[AnyInterfaceAddress] = Field(
        default=("169.254.226.9/30", "fe80::226:9/64"),
        validate_default=True,
        max_length=2,
        description="Addresses of the tunnel interface on FRR's side, one of each IP version.",
    )
    neighbor_address: OneOrMany[AnyInterfaceAddress] = Field(
        default=("169.254.226.10/30", "fe80::226:a/64"),
        validate_default=True,
        max_length=2,
        description="Our addresses on that link: the PIM neighbour FRR sends its Joins to.",
    )
    manage_rules: Flag = Field(
        default=True,
        description="Keep unicast on the uplink: rules that make the kernel's lookups pass over the two half-default "
        "routes FRR's RPF needs; false leaves them to the operator.",
    )
    rule_priority: Annotated[int, Field(strict=True, ge=1, le=32_700)] = Field(
        default=80, description="Priority of the first of those rules; the second has ten more."
    )
    unicast_table: Annotated[int, Field(strict=True, ge=1, le=0xFFFFFFFF)] = Field(
        default=226, description="Routing table that holds a copy of the real default routes for them."
    )
