"""What the REST API answers: one model per resource of the contract, every field with its unit.

The daemon fills these; the API, the command line and /metrics only read them. Times are UTC, durations are seconds,
counters are whole inner IP packets and their bytes (headers included) since the agent started, unless a field says
otherwise.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from pydantic import Field

from agent.service.engine_model import ChannelPlane, EngineStatus, InterfaceRole, Resource

AnyAddress: TypeAlias = IPv4Address | IPv6Address


class Role(Enum):
    """What this agent is."""

    GATEWAY = "gateway"
    RELAY = "relay"


class TunnelState(Enum):
    """Where a tunnel stands; a relay knows only `established`, because it keeps no state before an Update."""

    IDLE = "idle"
    DISCOVERING = "discovering"
    REQUESTING = "requesting"
    ESTABLISHED = "established"
    HELD_DOWN = "held_down"
    CLOSED = "closed"


class InterestKind(Enum):
    """Who asks for a channel."""

    IGMP = "igmp"
    MLD = "mld"
    PIM = "pim"
    STATIC = "static"
    API = "api"
    AMT = "amt"


class NeighborKind(Enum):
    """What a neighbour was seen doing."""

    QUERIER = "querier"
    PIM = "pim"


class UpstreamKind(Enum):
    """How a channel comes to us."""

    TUNNEL = "tunnel"
    NATIVE = "native"


class AssertState(Enum):
    """Who forwards a channel onto a link that several routers share: `winner`, we do; `loser`, another does."""

    WINNER = "winner"
    LOSER = "loser"


class JoinOrigin(Enum):
    """Where a static join comes from; only joins of the API can be removed through the API."""

    CONFIGURATION = "configuration"
    API = "api"


class Severity(Enum):
    """How bad a problem is."""

    WARNING = "warning"
    ERROR = "error"


class Problem(Resource):
    """Something an operator should look at now."""

    code: str = Field(description="Stable machine-readable code, such as `relay_unreachable`.")
    severity: Severity = Field(description="`error`: channels are not carried; `warning`: they are, but not as meant.")
    message: str = Field(description="What is wrong and what to do, in one sentence.")
    subject: str | None = Field(default=None, description="Interface, relay or channel concerned, if it is one.")


class ConfigurationState(Resource):
    """The running configuration in short."""

    etag: str = Field(description="ETag of the running configuration, quoted as in the HTTP header.")
    candidate: bool = Field(description="Whether a candidate is waiting to be committed.")
    confirm_deadline: datetime | None = Field(
        default=None, description="When an unconfirmed commit is rolled back (UTC); null when nothing is pending."
    )
    last_error: str | None = Field(
        default=None, description="Why the last reload or rollback failed; null when it did not."
    )


class Counts(Resource):
    """How much there is of everything."""

    tunnels: int = Field(default=0, ge=0, description="Tunnels established.")
    channels: int = Field(default=0, ge=0, description="Channels with at least one interest.")
    joins: int = Field(default=0, ge=0, description="Static joins, of the configuration and of the API.")
    interfaces: int = Field(default=0, ge=0, description="Interfaces in use and up.")


class AgentStatus(Resource):
    """GET /v1/status."""

    name: str = Field(description="Host name of this agent.")
    version: str = Field(description="Version of the program.")
    role: Role = Field(description="`gateway` or `relay`.")
    started_at: datetime = Field(description="When the process started (UTC).")
    uptime: float = Field(ge=0, description="Seconds since the process started, on a monotonic clock.")
    ready: bool = Field(description="Whether interfaces, sockets and engine are all up.")
    draining: bool = Field(description="Whether new tunnels are turned away (relay) or sent elsewhere (gateway).")
    engine: EngineStatus = Field(description="The forwarding engine in use.")
    counts: Counts = Field(description="How much there is of everything.")
    configuration: ConfigurationState = Field(description="The running configuration in short.")
    problems: list[Problem] = Field(default_factory=list, description="What an operator should look at now.")


class RelayOrigin(Enum):
    """Who named a relay."""

    CONFIGURED = "configured"
    DRIAD = "driad"
    DNS_SD = "dns-sd"
    ANYCAST = "anycast"


class TunnelStatus(Resource):
    """One tunnel: one gateway endpoint at one relay."""

    id: str = Field(description="Key of the tunnel, unique in this agent and stable while the tunnel lives.")
    state: TunnelState = Field(description="Where the tunnel stands.")
    discovery_address: AnyAddress | None = Field(
        default=None, description="Address the Relay Discovery goes to; null in the relay role."
    )
    relay_address: AnyAddress | None = Field(default=None, description="Unicast address of the relay, once known.")
    relay_port: int | None = Field(default=None, ge=0, le=65535, description="UDP port of the relay, once known.")
    gateway_address: AnyAddress | None = Field(
        default=None, description="Address of the gateway as the relay sees it (behind NAT: the translated one)."
    )
    gateway_port: int | None = Field(
        default=None, ge=0, le=65535, description="UDP port of the gateway as the relay sees it."
    )
    local_address: AnyAddress | None = Field(default=None, description="Our own address on this tunnel.")
    local_port: int | None = Field(default=None, ge=0, le=65535, description="Our own UDP port on this tunnel.")
    established_at: datetime | None = Field(default=None, description="When the tunnel was last established (UTC).")
    query_interval: float | None = Field(
        default=None, ge=0, description="Seconds between Membership Queries, as the relay announces them (QQIC)."
    )
    last_query_age: float | None = Field(
        default=None, ge=0, description="Seconds since the last valid Membership Query (gateway) or Update (relay)."
    )
    expires_in: float | None = Field(
        default=None, ge=0, description="Seconds until the relay forgets the tunnel unless it hears an Update."
    )
    limited: bool = Field(default=False, description="Whether the relay set the L flag: no new tunnels there.")
    channels: int = Field(default=0, ge=0, description="Channels subscribed over this tunnel.")
    packets: int = Field(default=0, ge=0, description="Multicast packets received (gateway) or sent (relay).")
    bytes: int = Field(default=0, ge=0, description="Bytes of those packets, inner IP header included.")
    last_error: str | None = Field(default=None, description="Why the tunnel was last lost; null when it never was.")
    origin: RelayOrigin | None = Field(
        default=None, description="The configuration, or the discovery method that found it; null in the relay role."
    )
    held_until: datetime | None = Field(
        default=None, description="Until when the relay is passed over while another one serves (UTC); null: it is not."
    )
    hold_reason: str | None = Field(
        default=None, description="Why it is passed over, such as `request_unanswered`; null when it is not."
    )
    live_live: bool = Field(
        default=False, description="Whether it brings a channel that another relay brings at the same time."
    )


class Interest(Resource):
    """One reason why a channel is carried."""

    kind: InterestKind = Field(description="Who asks.")
    interface: str | None = Field(default=None, description="Interface the interest came from, if from one.")
    neighbor: str | None = Field(default=None, description="Host, PIM neighbour or tunnel it came from, if known.")
    excluded_sources: list[AnyAddress] = Field(
        default_factory=list, description="For (*,G): sources this interest does not want."
    )


class AssertStatus(Resource):
    """How the routers of one link settled who forwards a channel onto it (RFC 7761 §4.6)."""

    interface: str = Field(description="Interface onto that link.")
    state: AssertState = Field(description="`winner`: we forward; `loser`: another router does.")
    winner: AnyAddress | None = Field(default=None, description="The router that forwards.")


class CandidateStatus(Resource):
    """One relay that serves a channel."""

    id: str = Field(description="Name of its first tunnel, which may not be open.")
    origin: RelayOrigin = Field(description="The configuration, or the discovery method that found it.")
    preference: int = Field(ge=0, description="Less is better; nothing moves between equals.")
    established: bool = Field(description="Whether it answers.")
    held: bool = Field(description="Whether it is passed over, because it failed.")
    used: bool = Field(description="Whether it brings the channel.")


class ChannelStatus(Resource):
    """One channel, (S,G) or (*,G)."""

    source: AnyAddress | None = Field(description="Source address; null for (*,G).")
    group: AnyAddress = Field(description="Multicast group.")
    since: datetime | None = Field(default=None, description="When the first interest came (UTC).")
    interests: list[Interest] = Field(
        default_factory=list, description="Who asks for it; at most 64 are listed, `interest_count` counts all."
    )
    interest_count: int = Field(default=0, ge=0, description="How many interests there are.")
    upstream: UpstreamKind | None = Field(
        default=None, description="How it comes: through a `tunnel`, or by `native` multicast; null when it does not."
    )
    incoming_interface: str | None = Field(default=None, description="Interface its packets come in on.")
    upstream_neighbor: AnyAddress | None = Field(
        default=None, description="PIM neighbour we ask for it; null for a tunnel, or a source on the link itself."
    )
    outgoing_interfaces: list[str] = Field(default_factory=list, description="Interfaces its packets leave by.")
    tunnels: list[str] = Field(
        default_factory=list,
        description="Tunnels that feed it (gateway) or carry it (relay); at most 64, `tunnel_count` counts all.",
    )
    tunnel_count: int = Field(default=0, ge=0, description="How many tunnels there are.")
    candidates: list[CandidateStatus] = Field(
        default_factory=list, description="Relays that serve it, most preferred first, at most 16; empty if native."
    )
    plane: ChannelPlane | None = Field(
        default=None,
        description="Who forwards it: `xdp`, `xdp-mfc`, `tc`, `userspace`, or the `kernel` alone if native; null when "
        "nobody does, and in the relay role.",
    )
    plane_reason: str | None = Field(
        default=None, description="Why no faster plane of the configured engine forwards it; null when the first does."
    )
    packets: int = Field(default=0, ge=0, description="Packets forwarded (one a packet, however many interfaces).")
    bytes: int = Field(default=0, ge=0, description="Bytes of those packets, IP header included.")
    last_packet_age: float | None = Field(
        default=None,
        ge=0,
        description="Seconds since the counter was seen to move, to within 5 s; null before the first packet.",
    )
    join_latency: float | None = Field(
        default=None, ge=0, description="Seconds from the first interest to the first packet; null before it."
    )
    asserts: list[AssertStatus] = Field(
        default_factory=list, description="Links on which an Assert settled who forwards it."
    )
    reason: str | None = Field(
        default=None,
        description="Why it is not forwarded, such as `no_relay`, `assert_lost`, `policy_denied`; null when it is.",
    )


class QuerierStatus(Resource):
    """IGMP or MLD router side of one interface."""

    protocol: str = Field(description="`igmp` or `mld`.")
    version: int = Field(ge=1, le=3, description="Version spoken: IGMP 2 or 3, MLD 1 or 2.")
    querier_address: AnyAddress | None = Field(default=None, description="Address of the elected querier.")
    elected: bool = Field(description="Whether we are the querier.")
    groups: int = Field(default=0, ge=0, description="Groups with at least one listener.")


class PimStatus(Resource):
    """PIM of one IP version on one interface."""

    family: int = Field(ge=4, le=6, description="IP version: 4 or 6.")
    address: AnyAddress | None = Field(default=None, description="Our address in Hellos; null: nothing is said.")
    designated_router: AnyAddress | None = Field(default=None, description="The link's designated router.")
    designated: bool = Field(description="Whether that is us, so that hosts are served by us.")
    priority: int = Field(ge=0, description="Our priority in the election of it.")
    hello_interval: float = Field(ge=0, description="Seconds between our Hellos.")
    neighbors: int = Field(default=0, ge=0, description="PIM neighbours.")
    channels: int = Field(default=0, ge=0, description="(S,G), (*,G) and (S,G,rpt) states neighbours asked for.")
    sent: int = Field(default=0, ge=0, description="Packets sent.")
    received: dict[str, int] = Field(default_factory=dict, description="Messages taken, by kind.")
    refused: dict[str, int] = Field(default_factory=dict, description="Messages or parts of them refused, by reason.")


class InterfaceStatus(Resource):
    """One interface in use."""

    name: str = Field(description="Name of the interface.")
    role: InterfaceRole = Field(description="What it is used for.")
    index: int | None = Field(default=None, ge=0, description="Kernel interface index; null while it does not exist.")
    up: bool = Field(description="Whether it exists, is up and has a carrier.")
    mtu: int | None = Field(default=None, ge=0, description="MTU in bytes.")
    addresses: list[str] = Field(default_factory=list, description="Addresses with prefix length.")
    queriers: list[QuerierStatus] = Field(default_factory=list, description="IGMP and MLD on this interface.")
    pim: list[PimStatus] = Field(default_factory=list, description="PIM on this interface, by IP version.")
    packets: int = Field(default=0, ge=0, description="Multicast packets forwarded through it by us.")
    bytes: int = Field(default=0, ge=0, description="Bytes of those packets, IP header included.")


class NeighborStatus(Resource):
    """One multicast router seen on an interface."""

    kind: NeighborKind = Field(description="What it was seen doing.")
    interface: str = Field(description="Interface it is on.")
    address: AnyAddress = Field(description="Its address on that interface.")
    expires_in: float | None = Field(
        default=None, ge=0, description="Seconds until it is forgotten; null: never, or not known."
    )
    uptime: float | None = Field(default=None, ge=0, description="PIM: seconds since its first Hello.")
    designated: bool | None = Field(default=None, description="PIM: whether it is the link's designated router.")
    priority: int | None = Field(
        default=None, ge=0, description="PIM: its priority in that election; null when it told none."
    )
    generation_id: int | None = Field(
        default=None, ge=0, description="PIM: drawn anew when it restarts; null when it told none."
    )
    secondary_addresses: list[AnyAddress] = Field(
        default_factory=list, description="PIM: its other addresses on the link."
    )


class StatisticsReport(Resource):
    """GET /v1/statistics."""

    collected_at: datetime = Field(description="When the counters were read (UTC).")
    uptime: float = Field(ge=0, description="Seconds since the process started.")
    forwarded_packets: int = Field(default=0, ge=0, description="Packets handed on by the engine.")
    forwarded_bytes: int = Field(default=0, ge=0, description="Bytes of those packets, IP header included.")
    refused: dict[str, int] = Field(
        default_factory=dict, description="Tunnelled or native packets not forwarded, by reason."
    )
    exceptions: dict[str, int] = Field(
        default_factory=dict, description="Packets of tunnels a fast plane left to userspace, by reason; no loss."
    )
    control: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Protocol machine (`gateway`, `relay`, `igmp`, `mld`) to counter name to count of messages.",
    )
    cpu_seconds: float = Field(default=0, ge=0, description="Processor time used by the process, user and system.")
    resident_bytes: int = Field(default=0, ge=0, description="Resident memory of the process, in bytes.")


class JoinRequest(Resource):
    """POST and DELETE /v1/joins."""

    source: AnyAddress | None = Field(default=None, description="Source address; null or left out for (*,G).")
    group: AnyAddress = Field(description="Multicast group beyond link-local scope.")
    interface: str | None = Field(
        default=None,
        min_length=1,
        max_length=15,
        description="Downstream interface to forward to; null for every downstream interface.",
    )


class JoinStatus(JoinRequest):
    """One static join."""

    origin: JoinOrigin = Field(description="`configuration` or `api`.")


class DrainRequest(Resource):
    """PUT /v1/drain."""

    enabled: bool = Field(description="True to turn new tunnels away, false to take them again.")


class DrainStatus(Resource):
    """Answer of PUT /v1/drain."""

    draining: bool = Field(description="Whether new tunnels are turned away.")
    tunnels: int = Field(ge=0, description="Tunnels still established.")
