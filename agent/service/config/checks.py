"""What a configuration must satisfy beyond the types of its values. Each check yields (key path, message)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

from agent.protocol.channels import Channel, Network, is_forwardable_group, is_ssm_group, is_unicast
from agent.service.config.frr_section import FrrSection
from agent.service.config.lines import KeyPath
from agent.service.config.sections import (
    ApiSection,
    Configuration,
    EngineChoice,
    GatewayMode,
    GatewayRelay,
    GatewaySection,
    IgmpSection,
    MldSection,
    RelaySection,
    StaticJoin,
)
from agent.service.model import Role

Finding = tuple[KeyPath, str]

_UNIX_PATH_LIMIT = 107  # sun_path is 108 bytes with its terminating zero (unix(7))


def check_section(name: str, section: Any) -> Iterator[Finding]:  # noqa: ANN401 the sections share no more than a name
    """Findings of one section by itself."""
    if isinstance(section, GatewaySection):
        yield from _gateway(section)
    elif isinstance(section, FrrSection):
        yield from _frr(section)
    elif isinstance(section, RelaySection):
        yield from _relay(section)
    elif isinstance(section, IgmpSection | MldSection):
        if section.query_response_interval >= section.query_interval:  # RFC 3376 §8.3, RFC 3810 §9.3
            yield (name, "query_response_interval"), "must be less than query_interval"
    elif isinstance(section, ApiSection):
        yield from _api(section)


def check_role(configuration: Configuration) -> Iterator[Finding]:
    """What the chosen role cannot do without."""
    if configuration.role is Role.GATEWAY:
        if not configuration.gateway.downstream and configuration.gateway.mode is GatewayMode.ROUTER:
            yield ("gateway", "downstream"), "mode router needs at least one downstream interface"
        yield from _gateway_engine(configuration)
        if not configuration.gateway.relay and not configuration.discovery.methods:
            yield ("gateway", "relay"), "role gateway needs at least one [[gateway.relay]], or discovery.methods"
        return
    if not configuration.relay.interfaces:
        yield ("relay", "interfaces"), "role relay needs at least one interface with native multicast"
    if not configuration.relay.address:
        yield ("relay", "address"), "role relay needs the address tunnels come to"
    yield from _relay_engine(configuration)


def _gateway_engine(configuration: Configuration) -> Iterator[Finding]:
    engine, cores = configuration.dataplane.engine, configuration.dataplane.receive_cores
    if engine is EngineChoice.XDP_MFC and configuration.gateway.mode is GatewayMode.FRR:
        yield (
            ("dataplane", "engine"),
            (
                "xdp-mfc forwards by multicast routes of our own, which mode frr leaves to FRR; "
                "use auto, xdp, tc or userspace"
            ),
        )
    if cores and engine not in {EngineChoice.AUTO, EngineChoice.XDP}:
        yield (
            ("dataplane", "receive_cores"),
            f"only xdp shares packets among processors, and engine is {engine.value}; use auto or xdp, or leave it out",
        )


def _relay_engine(configuration: Configuration) -> Iterator[Finding]:
    if configuration.dataplane.engine in {EngineChoice.XDP, EngineChoice.XDP_MFC}:
        message = f"{configuration.dataplane.engine.value} is for gateways; a relay has auto, tc and userspace"
        yield ("dataplane", "engine"), message
    if configuration.dataplane.receive_cores:
        yield ("dataplane", "receive_cores"), "is for gateways, which receive from tunnels; leave it out"


def check_files(configuration: Configuration) -> Iterator[Finding]:
    """Files the configuration names and this process cannot read."""
    for key in ("token_file", "tls_cert", "tls_key"):
        path: Path | None = getattr(configuration.api, key)
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                content = file.read(65_536)
        except OSError as error:
            yield ("api", key), f"cannot read {path}: {error.strerror}"
        else:
            if not content.strip():
                yield ("api", key), f"{path} is empty"


def listen_address(listen: str) -> tuple[str, int] | None:
    """(host, port) of a TCP `listen` value, or None when it is a unix socket path.

    Raises:
        ValueError: it is neither.
    """
    if listen.startswith("/"):
        if len(listen.encode()) > _UNIX_PATH_LIMIT:
            raise ValueError(f"unix socket path is longer than {_UNIX_PATH_LIMIT} bytes")
        return None
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be an absolute path or address:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ip_address(host)
    except ValueError:
        raise ValueError("must be an absolute path or address:port, with an IP address or localhost") from None
    return host, int(port)


def _gateway(section: GatewaySection) -> Iterator[Finding]:
    yield from _interfaces(section)
    yield from _duplicates(("gateway", "port"), [port for port in section.port if port])
    if not (section.ipv4 or section.ipv6):
        yield ("gateway", "ipv6"), "at least one of ipv4 and ipv6 must be true"
    if section.native and section.mode is GatewayMode.FRR:
        yield ("gateway", "native"), "in mode frr FRR routes native multicast; leave it out"
    yield from _relays(section.relay)
    joins: set[StaticJoin] = set()
    for index, join in enumerate(section.join):
        message = _join(join, section)
        if join in joins:
            message = "the same join is already in the file"
        if message is not None:
            yield ("gateway", "join", index), message
        joins.add(join)


def _relays(relays: tuple[GatewayRelay, ...]) -> Iterator[Finding]:
    seen: dict[Hashable, int] = {}
    for index, relay in enumerate(relays):
        where: KeyPath = ("gateway", "relay", index)
        for position, address in enumerate(relay.address):
            if not _is_host(address):
                yield (*where, "address", position), f"{address} cannot be the address of a relay"
            if (address, relay.port) in seen:
                other = seen[address, relay.port] + 1
                yield (*where, "address", position), f"{address} is already relay number {other}"
            seen.setdefault((address, relay.port), index)
        if len({address.version for address in relay.address}) < len(relay.address):
            yield (*where, "address"), "at most one address of each IP version"
        yield from _prefixes((*where, "sources"), relay.sources)
        for position, prefix in enumerate(relay.groups):
            if not prefix.is_multicast:
                yield (*where, "groups", position), f"{prefix} is not multicast"


def _interfaces(section: GatewaySection) -> Iterator[Finding]:
    yield from _duplicates(("gateway", "uplink"), section.uplink)
    yield from _duplicates(("gateway", "downstream"), section.downstream)
    yield from _duplicates(("gateway", "native"), section.native)
    for key in ("uplink", "downstream", "native"):
        names: tuple[str, ...] = getattr(section, key)
        for index, name in enumerate(names):
            if name == section.tunnel_interface:
                yield ("gateway", key, index), f"{name} is the tunnel_interface"
            elif name == "lo":
                yield ("gateway", key, index), "the loopback interface carries no multicast"
            elif key == "downstream" and name in section.uplink:
                yield ("gateway", key, index), f"{name} is an uplink; traffic would loop"
            elif key == "native" and name in section.downstream:
                yield ("gateway", key, index), f"{name} is a downstream interface already"


def _join(join: StaticJoin, section: GatewaySection) -> str | None:
    try:
        channel = Channel.parse("*" if join.source is None else str(join.source), str(join.group))
    except ValueError as error:
        return str(error)
    if not is_forwardable_group(channel.group):
        return f"{channel.group} has link-local scope or is for the routers of one domain, and is never forwarded"
    if channel.source is None and is_ssm_group(channel.group):
        return f"{channel.group} is source-specific (RFC 4607): it needs a source"
    if not (section.ipv4 if channel.group.version == 4 else section.ipv6):
        return f"IPv{channel.group.version} is switched off in [gateway]"
    return _join_interface(join, section)


def _join_interface(join: StaticJoin, section: GatewaySection) -> str | None:
    if join.interface is None:
        return None
    if section.mode is GatewayMode.FRR:
        return "in mode frr FRR chooses the interfaces; leave interface out"
    return None if join.interface in section.downstream else f"{join.interface} is not a downstream interface"


def _frr(section: FrrSection) -> Iterator[Finding]:
    """Both ends of the tunnel interface's link, of each IP version that is spoken there."""
    theirs = {address.version: address for address in section.router_address}
    ours = {address.version: address for address in section.neighbor_address}
    for key, ends in (("router_address", theirs), ("neighbor_address", ours)):
        if len(ends) < len(getattr(section, key)):
            yield ("frr", key), "at most one address of each IP version"
    if set(theirs) != set(ours):
        yield ("frr", "neighbor_address"), "must have an address of the same IP versions as router_address"
    for version in theirs.keys() & ours.keys():
        if theirs[version].ip == ours[version].ip or theirs[version].network != ours[version].network:
            yield ("frr", "neighbor_address"), f"must be another address of {theirs[version].network}"


def _relay(section: RelaySection) -> Iterator[Finding]:
    yield from _duplicates(("relay", "interfaces"), section.interfaces)
    if section.query_response_interval >= section.query_interval:
        yield ("relay", "query_response_interval"), "must be less than query_interval"
    if not (section.ipv4 or section.ipv6):
        yield ("relay", "ipv6"), "at least one of ipv4 and ipv6 must be true"
    for key in ("address", "discovery_address"):
        addresses = getattr(section, key)
        for index, address in enumerate(addresses):
            if not _is_host(address):
                yield ("relay", key, index), f"{address} cannot be an address of a relay"
        if len({address.version for address in addresses}) < len(addresses):
            yield ("relay", key), "at most one address of each IP version"
    versions = {address.version for address in section.address}
    for index, address in enumerate(section.discovery_address):
        if section.address and address.version not in versions:
            yield ("relay", "discovery_address", index), f"needs an IPv{address.version} address in [relay] address"


def _api(section: ApiSection) -> Iterator[Finding]:
    for key, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(section, key) is not None and getattr(section, other) is None:
            yield ("api", key), f"needs {other} too"
    try:
        endpoint = listen_address(section.listen)
    except ValueError as error:
        yield ("api", "listen"), str(error)
        return
    if endpoint is None:
        if section.tls_cert is not None:
            yield ("api", "tls_cert"), "a unix socket speaks no TLS"
        return
    if section.socket_group is not None:
        yield ("api", "socket_group"), "only a unix socket has a group"
    if ip_address(endpoint[0]).is_loopback:
        return
    missing = [key for key in ("tls_cert", "tls_key", "token_file") if getattr(section, key) is None]
    if missing:
        yield ("api", "listen"), f"{section.listen} is not loopback: {', '.join(missing)} required"


def _prefixes(where: KeyPath, prefixes: tuple[Network, ...]) -> Iterator[Finding]:
    for index, prefix in enumerate(prefixes):
        if prefix.is_multicast:
            yield (*where, index), f"{prefix} is multicast; sources are unicast"
        for earlier in prefixes[:index]:
            if _overlap(prefix, earlier):
                yield (*where, index), f"{prefix} overlaps {earlier} of the same relay"
                break


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _is_host(address: Any) -> bool:  # noqa: ANN401 either family, no common base in ipaddress
    return is_unicast(address) or bool(address.is_loopback)


def _duplicates(where: KeyPath, values: Iterable[Hashable]) -> Iterator[Finding]:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            yield (*where, index), f"{value} is listed twice"
        seen.add(value)
