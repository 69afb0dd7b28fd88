"""What the REST API answers of the forwarding engine: its planes, and what each interface can carry by them."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field


class Resource(BaseModel):
    """Base of every model: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InterfaceRole(Enum):
    """What an interface is used for."""

    UPLINK = "uplink"
    DOWNSTREAM = "downstream"
    NATIVE = "native"
    TUNNEL = "tunnel"


class FastPlane(Enum):
    """A plane whose programs run in the kernel."""

    XDP = "xdp"
    XDP_MFC = "xdp-mfc"
    TC = "tc"


class ChannelPlane(Enum):
    """Who forwards a channel; `kernel` is its multicast routing alone, for channels that come natively."""

    XDP = "xdp"
    XDP_MFC = "xdp-mfc"
    TC = "tc"
    USERSPACE = "userspace"
    KERNEL = "kernel"


class ProbeState(Enum):
    """Whether frames redirected to an interface were seen to leave by it, which `xdp` takes before it is used."""

    PASSED = "passed"
    PENDING = "pending"
    FAILED = "failed"


class PlaneStatus(Resource):
    """One fast plane on one interface."""

    plane: FastPlane = Field(description="The plane.")
    usable: bool = Field(description="Whether the engine as configured can use it there.")
    reason: str | None = Field(default=None, description="Why not, and what to do where something can be done.")


class InterfacePlanes(Resource):
    """What one interface can carry; a channel needs its uplink and each of its outgoing interfaces to carry a plane."""

    name: str = Field(description="Name of the interface.")
    role: InterfaceRole = Field(description="`uplink`: tunnels come in there; `downstream`: channels leave there.")
    plane: ChannelPlane | None = Field(
        description="The best plane there; null while nothing comes in or leaves there, or it is down or absent."
    )
    planes: list[PlaneStatus] = Field(default_factory=list, description="Each fast plane; empty when `plane` is null.")
    probe: ProbeState | None = Field(default=None, description="Whether `xdp` was tried out; null for an uplink.")


class EngineStatus(Resource):
    """The forwarding engine in use."""

    name: str = Field(description="Best plane in use on this host, such as `xdp` or `userspace`.")
    configured: str | None = Field(default=None, description="`engine` of the configuration, such as `auto`.")
    reason: str | None = Field(default=None, description="Why it works as it does, such as what the kernel refuses.")
    interfaces: list[InterfacePlanes] = Field(
        default_factory=list, description="Uplinks and downstream interfaces; empty where no fast plane is at work."
    )
    channels: dict[str, int] = Field(default_factory=dict, description="Channels from tunnels by the plane they take.")
    exceptions: dict[str, int] = Field(
        default_factory=dict, description="Packets of tunnels a fast plane left to userspace, by reason; no loss."
    )
    details: dict[str, str] = Field(
        default_factory=dict, description="How it works here, such as `tap_segmentation: per packet`."
    )
