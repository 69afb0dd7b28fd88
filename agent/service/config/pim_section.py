"""PIM with the routers of the domain, in both ways to live on a router."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.service.config.section import Section
from agent.service.config.values import AnyAddress, AnyNetwork, Flag, OneOrMany, Seconds, SecondsOrNone


class PimSection(Section):
    """PIM sparse mode (RFC 7761) on the downstream and native interfaces; names and defaults of its §4.11."""

    enabled: Flag = Field(
        default=True, description="Be a PIM neighbour: routers' joins become AMT subscriptions, their prunes leaves."
    )
    hello_interval: Annotated[Seconds, Field(ge=1, le=18_000)] = Field(
        default=30.0, description="Seconds between Hellos; neighbours forget us after 3.5 times that."
    )
    dr_priority: Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF)] = Field(
        default=1, description="Priority in the DR election; the DR serves the IGMP and MLD hosts of a link."
    )
    propagation_delay: Annotated[SecondsOrNone, Field(le=32.767)] = Field(
        default=0.5, description="Seconds a Join/Prune may travel on a link (LAN Prune Delay option)."
    )
    override_interval: Annotated[SecondsOrNone, Field(le=65.535)] = Field(
        default=2.5, description="Seconds neighbours may take to override another's prune (LAN Prune Delay option)."
    )
    join_prune_interval: Annotated[Seconds, Field(ge=1, le=18_000)] = Field(
        default=60.0, description="Seconds between our own Joins towards native upstream neighbours."
    )
    assert_preference: Annotated[int, Field(strict=True, ge=0, le=0x7FFFFFFE)] = Field(
        default=200,
        description="Metric preference in Asserts for channels out of tunnels: between two borders the lower one "
        "forwards, then the lower assert_metric, then the higher address.",
    )
    assert_metric: Annotated[int, Field(strict=True, ge=0, le=0x7FFFFFFF)] = Field(
        default=0, description="Metric in those Asserts."
    )
    neighbor_limit: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(
        default=256, description="Neighbours an interface may have."
    )
    rendezvous_address: OneOrMany[AnyAddress] = Field(
        default=(),
        max_length=2,
        examples=[["10.255.0.1"]],
        description="Our address the domain's routers know as RP, or one of each IP version.",
    )
    rendezvous_groups: OneOrMany[AnyNetwork] = Field(
        default=(),
        examples=[["239.1.0.0/16"]],
        description="Any-source groups we are the RP for; (*,G) Joins for other groups are refused.",
    )
    forward_bootstrap: Flag = Field(
        default=False, description="Hand Bootstrap messages (RFC 5059) on between PIM interfaces; false ignores them."
    )
