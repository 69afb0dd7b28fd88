"""The sections of the configuration file. Descriptions are what `config show-defaults` prints."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.service.config.discovery_section import DiscoverySection
from agent.service.config.failover_section import FailoverSection
from agent.service.config.frr_section import FrrSection
from agent.service.config.pim_section import PimSection
from agent.service.config.policy_section import PolicySection
from agent.service.config.section import Section
from agent.service.config.values import (
    AbsolutePath,
    AnyAddress,
    AnyInterfaceAddress,
    AnyNetwork,
    Flag,
    InterfaceName,
    OneOrMany,
    Port,
    Seconds,
)
from agent.service.model import Role

DEFAULT_STATE_DIR = Path("/var/lib/isthmus-agent")
DEFAULT_SOCKET = "/run/isthmus-agent/api.sock"


class GatewayRelay(Section):
    """A relay and the sources to reach through it.

    The longest prefix decides; among equals the first in the file that takes new tunnels.
    """

    address: OneOrMany[AnyAddress] = Field(
        min_length=1,
        max_length=2,
        examples=[["192.0.2.1"]],
        description="Address of the relay, or one of each IP version; the first that answers is used.",
    )
    sources: OneOrMany[AnyNetwork] = Field(
        default=(), description="Prefixes of the sources it can give; empty means every source."
    )
    groups: OneOrMany[AnyNetwork] = Field(
        default=(),
        examples=[["239.1.0.0/16"]],
        description="Prefixes of the groups it can give; empty means every group. With it a relay brings any-source "
        "groups, and relays of other channels are still discovered.",
    )
    discover: Flag = Field(
        default=True,
        description="Send Relay Discovery there and follow the Advertisement; false: the address is the relay itself.",
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(default=2268, description="UDP port of the relay.")
    strict_data_port: Flag = Field(
        default=True, description="Refuse data sent from another UDP port than the relay's; some relays need false."
    )
    tunnels: Annotated[int, Field(strict=True, ge=1, le=16)] = Field(
        default=1,
        description="Tunnels to it, each from a port of its own with its share of the channels, so that several "
        "receive queues work; some relays know a gateway by its address alone and need 1.",
    )


class GatewayMode(Enum):
    """How the agent lives on the router."""

    ROUTER = "router"
    FRR = "frr"


class StaticJoin(Section):
    """A channel that is always wanted, whether a receiver asks or not."""

    source: AnyAddress | None = Field(
        default=None, examples=["198.51.100.7"], description="Source address; leave out for any source, (*,G)."
    )
    group: AnyAddress = Field(examples=["232.1.1.1"], description="Multicast group.")
    interface: InterfaceName | None = Field(
        default=None,
        examples=["eth1"],
        description="Downstream interface to forward to; leave out for all of them.",
    )


class GatewaySection(Section):
    """Gateway role: receivers here, sources behind relays."""

    mode: GatewayMode = Field(
        default=GatewayMode.ROUTER,
        description="`router`: the agent routes multicast itself and speaks PIM, IGMP and MLD on `downstream`; `frr`: "
        "FRR does, and has the agent as its upstream PIM neighbour on the tunnel interface.",
    )
    uplink: OneOrMany[InterfaceName] = Field(
        default=(), examples=["eth0"], description="Interface towards the relays; leave out to follow the routes."
    )
    downstream: OneOrMany[InterfaceName] = Field(
        default=(), examples=[["eth1"]], description="Interfaces with receivers; IGMP and MLD are spoken there."
    )
    native: OneOrMany[InterfaceName] = Field(
        default=(),
        examples=[["eth2"]],
        description="Interfaces with native multicast from elsewhere: PIM is spoken there, and a source whose route "
        "leads there to a PIM neighbour is joined natively, never through a tunnel.",
    )
    port: OneOrMany[Port] = Field(
        default=(0,),
        description="Local UDP port of the tunnels; 0: chosen once and kept in state_dir, because some relays know a "
        "gateway by its first port for minutes.",
    )
    state_dir: AbsolutePath = Field(
        default=DEFAULT_STATE_DIR, description="Directory for what must survive a restart: ports, joins, rollbacks."
    )
    mroute_table: Annotated[int, Field(strict=True, ge=0, lt=1_000_000_000)] = Field(
        default=0, description="Kernel multicast routing table; 0: the kernel's default one."
    )
    tunnel_interface: InterfaceName = Field(
        default="amt0", description="Tap device that everything from the tunnels comes in on."
    )
    tunnel_addresses: OneOrMany[AnyInterfaceAddress] = Field(
        default=("192.0.0.8/32",),
        validate_default=True,
        description="Addresses of that device; with any IPv4 address (here RFC 7600's) rp_filter = 2 will do.",
    )
    ipv4: Flag = Field(default=True, description="Carry IPv4 multicast.")
    ipv6: Flag = Field(default=True, description="Carry IPv6 multicast.")
    channel_limit: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=20_000, description="Channels carried at most; more joins are refused and counted."
    )
    relay: tuple[GatewayRelay, ...] = Field(default=(), description="Relays, in order of preference.")
    join: tuple[StaticJoin, ...] = Field(default=(), description="Channels always wanted.")


class QuerierSection(Section):
    """Timers and limits both listener protocols share."""

    robustness_variable: Annotated[int, Field(strict=True, ge=1, le=7)] = Field(
        default=2, description="Lost packets to survive, plus one."
    )
    query_interval: Annotated[Seconds, Field(ge=1, le=31744)] = Field(
        default=125.0, description="Seconds between general queries."
    )
    query_response_interval: Annotated[Seconds, Field(ge=0.1, le=3174.4)] = Field(
        default=10.0, description="Seconds hosts may take to answer a general query; less than query_interval."
    )
    startup_query_interval: Seconds | None = Field(
        default=None, examples=[31.25], description="Seconds between the first queries; default query_interval / 4."
    )
    startup_query_count: Annotated[int, Field(strict=True, ge=1, le=16)] | None = Field(
        default=None, examples=[2], description="How many first queries; default robustness_variable."
    )
    unsolicited_report_interval: Seconds = Field(
        default=1.0, description="Seconds between repetitions of our own first report upstream."
    )
    fast_leave: Flag = Field(
        default=False, description="Stop at the first leave without asking the others; only with one host a link."
    )
    group_limit: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=4096, description="Groups an interface may have listeners for."
    )
    source_limit: Annotated[int, Field(strict=True, ge=1, le=65_535)] = Field(
        default=1024, description="Sources a group may have on an interface."
    )

    @property
    def effective_startup_query_interval(self) -> float:
        """Startup Query Interval in seconds (RFC 3376 §8.6, RFC 3810 §9.6)."""
        return self.query_interval / 4 if self.startup_query_interval is None else self.startup_query_interval

    @property
    def effective_startup_query_count(self) -> int:
        """Startup Query Count (RFC 3376 §8.7, RFC 3810 §9.7)."""
        return self.robustness_variable if self.startup_query_count is None else self.startup_query_count


class IgmpSection(QuerierSection):
    """IGMP on the downstream interfaces; names and defaults of RFC 3376 §8."""

    last_member_query_interval: Annotated[Seconds, Field(ge=0.1, le=3174.4)] = Field(
        default=1.0, description="Seconds between the queries sent when a host leaves."
    )
    last_member_query_count: Annotated[int, Field(strict=True, ge=1, le=16)] | None = Field(
        default=None, examples=[2], description="How many of them; default robustness_variable."
    )

    @property
    def effective_last_member_query_count(self) -> int:
        """Last Member Query Count (RFC 3376 §8.9)."""
        return self.robustness_variable if self.last_member_query_count is None else self.last_member_query_count


class MldSection(QuerierSection):
    """MLD on the downstream interfaces; names and defaults of RFC 3810 §9."""

    last_listener_query_interval: Annotated[Seconds, Field(ge=0.001, le=3174.4)] = Field(
        default=1.0, description="Seconds between the queries sent when a listener leaves."
    )
    last_listener_query_count: Annotated[int, Field(strict=True, ge=1, le=16)] | None = Field(
        default=None, examples=[2], description="How many of them; default robustness_variable."
    )

    @property
    def last_member_query_interval(self) -> float:
        """Last Listener Query Interval in seconds, under the name IGMP has for it."""
        return self.last_listener_query_interval

    @property
    def effective_last_member_query_count(self) -> int:
        """Last Listener Query Count (RFC 3810 §9.9), under the name IGMP has for it."""
        return self.robustness_variable if self.last_listener_query_count is None else self.last_listener_query_count


class Oversize(Enum):
    """What a relay does with a packet that does not fit the path with its encapsulation."""

    FRAGMENT = "fragment"
    REFUSE = "refuse"


class RelaySection(Section):
    """Relay role: sources here, gateways on the Internet."""

    interfaces: OneOrMany[InterfaceName] = Field(
        default=(), examples=[["eth1"]], description="Interfaces with native multicast."
    )
    address: OneOrMany[AnyAddress] = Field(
        default=(),
        max_length=2,
        examples=[["192.0.2.1"]],
        description="Our unicast address for tunnels, or one of each IP version.",
    )
    discovery_address: OneOrMany[AnyAddress] = Field(
        default=(),
        max_length=2,
        examples=[["192.52.193.1"]],
        description="Anycast address Relay Discovery is answered on; leave out to answer on address itself.",
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(
        default=2268, description="UDP port; gateways expect 2268."
    )
    tunnel_limit: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=10_000, description="Tunnels at most; beyond it queries carry the L flag."
    )
    channels_per_tunnel: Annotated[int, Field(strict=True, ge=1, le=100_000)] = Field(
        default=1000, description="Channels one tunnel may subscribe to."
    )
    requests_per_second: Annotated[float, Field(strict=True, gt=0, le=1_000_000)] = Field(
        default=10.0,
        description="Requests answered per second and source address on average, 20 seconds' worth at once; the rest "
        "is dropped and counted. A gateway with a tunnel has four a second of its own besides.",
    )
    query_interval: Annotated[Seconds, Field(ge=1, le=31744)] = Field(
        default=125.0, description="Seconds between a gateway's Requests, announced in the query (QQIC)."
    )
    query_response_interval: Annotated[Seconds, Field(ge=0.1, le=3174.4)] = Field(
        default=10.0, description="Seconds a gateway may take to answer; less than query_interval."
    )
    robustness_variable: Annotated[int, Field(strict=True, ge=1, le=7)] = Field(
        default=2, description="Lost updates to survive, plus one."
    )
    gateway_address_in_query: Flag = Field(
        default=True, description="Tell gateways their address (G flag); old VLC and kernel gateways need false."
    )
    secret_rotation: Annotated[Seconds, Field(ge=10)] = Field(
        default=7200.0, description="Seconds between new secrets of the response MAC; the previous one stays valid."
    )
    oversize: Oversize = Field(
        default=Oversize.FRAGMENT,
        description="Packets too big for the path: `fragment` the tunnel datagram, or `refuse` and tell the source.",
    )
    ipv4: Flag = Field(default=True, description="Answer Requests for IPv4 multicast.")
    ipv6: Flag = Field(default=True, description="Answer Requests for IPv6 multicast.")
    state_dir: AbsolutePath = Field(
        default=DEFAULT_STATE_DIR, description="Directory for what must survive a restart: rollbacks, joins."
    )


class EngineChoice(Enum):
    """Which forwarding engine to use."""

    AUTO = "auto"
    XDP = "xdp"
    XDP_MFC = "xdp-mfc"
    TC = "tc"
    USERSPACE = "userspace"


class DataplaneSection(Section):
    """How packets are moved."""

    engine: EngineChoice = Field(
        default=EngineChoice.AUTO,
        description="How channels from tunnels are forwarded. `auto`: each by the fastest of `xdp`, `tc`, `userspace` "
        "that its uplink and all its outgoing interfaces allow, found out by trying and shown in `status`; `xdp`: in "
        "the uplink's driver, past nftables, tcpdump and the kernel's multicast routing; `xdp-mfc`: unwrapped in the "
        "driver, forwarded by the kernel's multicast routing, so that all of these see it (not in mode `frr`); `tc`: "
        "behind the driver, also for VLANs, bridges, bonds and drivers without native XDP; `userspace`: sockets and "
        "the kernel's multicast routing, on every host, and always for what the engine named here cannot do. In role "
        "`relay` `auto` and `tc` have the kernel copy packets to tunnels. A gateway takes a change over by reload.",
    )
    receive_cores: Annotated[int, Field(strict=True, ge=0, le=128)] = Field(
        default=0,
        description="`xdp`: processors that share the packets of one tunnel, by source and group, so that a channel "
        "keeps its order; 0: all stay on the one their receive queue interrupts, which is right on one processor, and "
        "where `tunnels` of a relay already spreads them over receive queues.",
    )
    receive_buffer: Annotated[int, Field(strict=True, ge=65_536, le=1_073_741_824)] = Field(
        default=16_777_216, description="Bytes of socket buffer for incoming tunnel data."
    )
    send_buffer: Annotated[int, Field(strict=True, ge=65_536, le=1_073_741_824)] = Field(
        default=16_777_216, description="Bytes of socket buffer for outgoing tunnel data."
    )


class ApiSection(Section):
    """REST interface and /metrics."""

    listen: Annotated[str, Field(strict=True, min_length=1)] = Field(
        default=DEFAULT_SOCKET,
        description="Unix socket path, or address:port; beyond loopback TLS and a token are required.",
    )
    token_file: AbsolutePath | None = Field(
        default=None,
        examples=["/etc/isthmus/token"],
        description="File holding the bearer token, or its SHA-256 as `sha256:HEX`.",
    )
    tls_cert: AbsolutePath | None = Field(
        default=None, examples=["/etc/isthmus/cert.pem"], description="Certificate chain in PEM."
    )
    tls_key: AbsolutePath | None = Field(
        default=None, examples=["/etc/isthmus/key.pem"], description="Private key in PEM."
    )
    socket_group: Annotated[str, Field(strict=True, min_length=1)] | None = Field(
        default=None, examples=["adm"], description="Group allowed to use the unix socket, which has mode 0660."
    )


class LogLevel(Enum):
    """Least severity that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """How a log line looks."""

    LOGFMT = "logfmt"
    JSON = "json"


class LogSection(Section):
    """What is written to standard error."""

    level: LogLevel = Field(default=LogLevel.INFO, description="Least severity written: debug, info, warning, error.")
    format: LogFormat = Field(default=LogFormat.LOGFMT, description="`logfmt` for people, `json` for collectors.")
    repeat_interval: Annotated[Seconds, Field(le=86_400)] = Field(
        default=10.0, description="Seconds in which the same reason is written once; the next line counts the others."
    )


class Configuration(Section):
    """The whole file."""

    role: Role = Field(
        examples=["gateway"],
        description="`gateway`: receivers are here; `relay`: sources are here. The other role's section is not used.",
    )
    gateway: GatewaySection = Field(default_factory=GatewaySection)
    igmp: IgmpSection = Field(default_factory=IgmpSection)
    mld: MldSection = Field(default_factory=MldSection)
    pim: PimSection = Field(default_factory=PimSection)
    frr: FrrSection = Field(default_factory=FrrSection)
    discovery: DiscoverySection = Field(default_factory=DiscoverySection)
    failover: FailoverSection = Field(default_factory=FailoverSection)
    policy: PolicySection = Field(default_factory=PolicySection)
    relay: RelaySection = Field(default_factory=RelaySection)
    dataplane: DataplaneSection = Field(default_factory=DataplaneSection)
    api: ApiSection = Field(default_factory=ApiSection)
    log: LogSection = Field(default_factory=LogSection)

    @property
    def state_dir(self) -> Path:
        """State directory of the role in use."""
        return self.gateway.state_dir if self.role is Role.GATEWAY else self.relay.state_dir
