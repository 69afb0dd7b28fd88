"""Identity of the simulated MX80, enough for PyEZ's facts. Synthetic: serial numbers and times are made up."""

from __future__ import annotations

import time
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from lab.sim.mx80.device import VERSION, Handler, Mx80, local_time
from lab.sim.mx80.selection import all_active
from lab.sim.netconf_server import NetconfSession, RpcFailed

MODEL: Final = "mx80"
_SPACE: Final = f"http://xml.juniper.net/junos/{VERSION[:6]}"


def hostname(device: Mx80) -> str:
    """The configured one."""
    return device.committed.findtext("system/host-name", "mx80")


def serial_number(device: Mx80) -> str:
    """Made from the host name, so that simulators differ and restarts do not."""
    return f"SYN{sum(hostname(device).encode()):05d}{len(hostname(device)):03d}"


def software(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-software-information."""
    return (
        f"<software-information>\n<host-name>{escape(hostname(device))}</host-name>\n"
        f"<product-model>{MODEL}</product-model>\n<product-name>{MODEL}</product-name>\n"
        f"<junos-version>{VERSION}</junos-version>\n"
        f"<package-information>\n<name>junos-version</name>\n<comment>Junos: {VERSION}</comment>\n"
        "</package-information>\n</software-information>"
    ).encode()


def system(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-system-information."""
    return (
        f"<system-information>\n<hardware-model>{MODEL}</hardware-model>\n<os-name>junos</os-name>\n"
        f"<os-version>{VERSION}</os-version>\n<serial-number>{serial_number(device)}</serial-number>\n"
        f"<host-name>{escape(hostname(device))}</host-name>\n</system-information>"
    ).encode()


def chassis(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-chassis-inventory."""
    return (
        f'<chassis-inventory xmlns="{_SPACE}/junos-chassis">\n<chassis>\n<name>Chassis</name>\n'
        f"<serial-number>{serial_number(device)}</serial-number>\n<description>MX80</description>\n"
        "<chassis-module>\n<name>Midplane</name>\n<serial-number>SYNMID0001</serial-number>\n"
        "<description>MX80</description>\n</chassis-module>\n</chassis>\n</chassis-inventory>"
    ).encode()


def route_engine(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-route-engine-information."""
    seconds = int(time.time() - device.booted)
    return (
        f'<route-engine-information xmlns="{_SPACE}/junos-chassis">\n<route-engine>\n<status>OK</status>\n'
        "<model>RE-MX80</model>\n<last-reboot-reason>Router rebooted after a normal shutdown.</last-reboot-reason>\n"
        f'<start-time junos:seconds="{int(device.booted)}">{local_time(device.booted)}</start-time>\n'
        f'<up-time junos:seconds="{seconds}">{seconds} seconds</up-time>\n</route-engine>\n</route-engine-information>'
    ).encode()


def uptime(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-system-uptime-information."""
    now, commit = time.time(), device.history.commits[0]
    seconds = int(now - device.booted)
    booted = local_time(device.booted)
    return (
        f'<system-uptime-information xmlns="{_SPACE}/junos">\n<current-time>\n'
        f'<date-time junos:seconds="{int(now)}">{local_time(now)}</date-time>\n</current-time>\n'
        f'<system-booted-time>\n<date-time junos:seconds="{int(device.booted)}">{booted}</date-time>\n'
        f'<time-length junos:seconds="{seconds}">{seconds} seconds</time-length>\n</system-booted-time>\n'
        f'<last-configured-time>\n<date-time junos:seconds="{int(commit.at)}">{local_time(commit.at)}</date-time>\n'
        f"<user>{escape(commit.user)}</user>\n</last-configured-time>\n</system-uptime-information>"
    ).encode()


def interfaces(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """get-interface-information: configured interfaces and their IPv4 addresses, always up."""
    parts = []
    for interface in all_active(device.committed, "interfaces/interface"):
        name = escape(interface.findtext("name", ""))
        units = "".join(
            f"<logical-interface>\n<name>{name}.{escape(unit.findtext('name', '0'))}</name>\n"
            "<admin-status>up</admin-status>\n<oper-status>up</oper-status>\n"
            "<address-family>\n<address-family-name>inet</address-family-name>\n"
            + "".join(
                f"<interface-address>\n<ifa-local>{escape(address.findtext('name', ''))}</ifa-local>\n"
                "</interface-address>\n"
                for address in all_active(unit, "family/inet/address")
            )
            + "</address-family>\n</logical-interface>\n"
            for unit in all_active(interface, "unit")
        )
        parts.append(
            f"<physical-interface>\n<name>{name}</name>\n<admin-status>up</admin-status>\n"
            f"<oper-status>up</oper-status>\n{units}</physical-interface>\n"
        )
    return (
        f'<interface-information xmlns="{_SPACE}/junos-interface">\n{"".join(parts)}</interface-information>'
    ).encode()


def command(device: Mx80, session: NetconfSession, request: etree._Element) -> bytes:
    """Command: the CLI, as far as it has an RPC here, always as XML."""
    words = " ".join((request.text or "").split())
    for prefix, name in _COMMANDS:
        if words in {prefix, f"{prefix} detail"}:
            asked = etree.Element(name)
            if words.endswith(" detail"):
                etree.SubElement(asked, "detail")
            handler = device.handlers[name]
            reply = handler(device, session, asked)
            assert isinstance(reply, bytes)
            return reply
    raise RpcFailed("syntax error", kind="application", info={"bad-element": words.split(" ")[-1]})


_COMMANDS: Final = (
    ("show version", "get-software-information"),
    ("show system information", "get-system-information"),
    ("show system uptime", "get-system-uptime-information"),
    ("show system commit", "get-commit-information"),
    ("show chassis hardware", "get-chassis-inventory"),
    ("show amt summary", "get-amt-summary"),
    ("show amt statistics", "get-amt-statistics"),
    ("show amt tunnel", "get-amt-tunnel-information"),
    ("show igmp interface", "get-igmp-interface-information"),
    ("show igmp group", "get-igmp-group-information"),
    ("show multicast route", "get-multicast-route-information"),
    ("show multicast usage", "get-multicast-usage-information"),
    ("show pim neighbors", "get-pim-neighbors-information"),
)

HANDLERS: Final[dict[str, Handler]] = {
    "get-software-information": software,
    "get-system-information": system,
    "get-chassis-inventory": chassis,
    "get-route-engine-information": route_engine,
    "get-system-uptime-information": uptime,
    "get-interface-information": interfaces,
    "command": command,
}
