"""When a channel moves from one relay to another."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agent.service.config.section import Section
from agent.service.config.values import AnyNetwork, Flag, OneOrMany, Seconds, SecondsOrNone


class FailoverSection(Section):
    """Moving channels between relays."""

    hold_down: Annotated[Seconds, Field(ge=1, le=86_400)] = Field(
        default=120.0,
        description="Seconds a relay that failed is passed over while another one serves; doubles with "
        "each failure in a row, up to sixteen times this.",
    )
    failback_delay: Annotated[SecondsOrNone, Field(le=86_400)] = Field(
        default=30.0, description="Seconds a preferred relay must have been well before channels move back to it."
    )
    move_on_limit: Flag = Field(
        default=False,
        description="Move channels away, make before break, when a relay sets the L flag on a tunnel we have; false "
        "keeps the tunnel, as RFC 7450 means it.",
    )
    relay_silence: Annotated[Seconds, Field(ge=0.1, le=3600)] = Field(
        default=2.0, description="Seconds without any packet, on a tunnel that carried some, after which it is probed."
    )
    probe_timeout: Annotated[Seconds, Field(ge=0.01, le=60)] = Field(
        default=0.5,
        description="Seconds to wait for the answer to a probe; the relay is given up after three without one, in a "
        "quarter of the time where ICMP errors come back.",
    )
    channel_silence: Annotated[SecondsOrNone, Field(le=86_400)] = Field(
        default=0.0,
        description="Seconds without a packet of a channel that flowed, while others of the same relay flow, after "
        "which the next relay is tried for it; 0 never does.",
    )
    live_live: OneOrMany[AnyNetwork] = Field(
        default=(),
        examples=[["232.9.0.0/16"]],
        description="Groups taken from two relays at once, each packet forwarded once: losing a relay costs none.",
    )
    duplicate_window: Annotated[Seconds, Field(ge=0.01, le=10)] = Field(
        default=0.5, description="Seconds two copies of a live-live packet may be apart."
    )
