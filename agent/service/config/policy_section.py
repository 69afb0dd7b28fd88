"""Which channels the domain may have, and how many."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from agent.service.config.section import Section
from agent.service.config.values import AnyNetwork, Flag, InterfaceName, OneOrMany


class PolicyAction(Enum):
    """What a rule does with what it matches."""

    ALLOW = "allow"
    DENY = "deny"


class PolicyRule(Section):
    """A rule; the first that matches in every key it has decides."""

    action: PolicyAction = Field(examples=["deny"], description="`allow` or `deny`.")
    source: OneOrMany[AnyNetwork] = Field(
        default=(), examples=[["198.51.100.0/24"]], description="Prefixes of sources; a (*,G) matches only without."
    )
    group: OneOrMany[AnyNetwork] = Field(default=(), examples=[["232.0.0.0/8"]], description="Prefixes of groups.")
    neighbor: OneOrMany[AnyNetwork] = Field(
        default=(), examples=[["10.20.0.2/32"]], description="Prefixes of the PIM neighbours that ask."
    )
    interface: OneOrMany[InterfaceName] = Field(
        default=(), examples=[["eth1"]], description="Interfaces the wish comes from."
    )


class PolicySection(Section):
    """Limits on what is carried; what is refused shows its reason in `channels`."""

    default: PolicyAction = Field(default=PolicyAction.ALLOW, description="What happens when no rule matches.")
    joins_per_second: Annotated[float, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=0.0, description="New channels a PIM neighbour or interface may ask for per second; 0: no limit."
    )
    join_burst: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=1000, description="New channels at once before that rate counts."
    )
    channels_per_neighbor: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=0, description="Channels one PIM neighbour may have; 0: only gateway.channel_limit counts."
    )
    bandwidth: Annotated[float, Field(strict=True, ge=0)] = Field(
        default=0.0,
        description="Bits per second carried in all, through tunnels (each copy of live-live counts) and natively, "
        "measured once a second; new channels are refused while it is reached. 0: no limit.",
    )
    use_metadata: Flag = Field(
        default=False,
        description="Ask the source's DORMS server for a channel's bandwidth (CBACC) and reserve it before the join; "
        "without `bandwidth` nobody is asked.",
    )
    rule: tuple[PolicyRule, ...] = Field(default=(), description="Rules, in order.")
