"""Output of the show commands about the router itself. Synthetic: layouts follow the fixtures of ntc-templates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.sim.iosxe.configuration import RunningConfiguration
from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.relay import Interface, interfaces, relay_tunnel, view
from lab.sim.iosxe.words import Refusal

SERIAL = "9SYNTHETIC0"


def version(device: IosDevice) -> str:
    """`show version`."""
    profile = device.profile
    hostname = device.running.hostname
    up = _uptime(int(device.clock() - device.booted_at))
    if profile.platform == "ios":
        return (
            f"Cisco IOS Software, C2900 Software (C2900-UNIVERSALK9-M), "
            f"Version {profile.version}, RELEASE SOFTWARE (fc1)\n"
            "Synthetic output of a simulator\n\n"
            "ROM: System Bootstrap, Version 15.0(1r)M16, RELEASE SOFTWARE (fc1)\n\n"
            f"{hostname} uptime is {up}\nSystem returned to ROM by power-on\n"
            f'System image file is "flash0:c2900-universalk9-mz.SPA.{profile.version}.bin"\n'
            "Last reload type: Normal Reload\n"
            "Last reload reason: power-on\n\n"
            f"Cisco {profile.model} (revision 1.0) with 483328K/40960K bytes of memory.\nProcessor board ID {SERIAL}\n"
            "3 Gigabit Ethernet interfaces\n255K bytes of non-volatile configuration memory.\n\n"
            "Configuration register is 0x2102\n\n"
        )
    return (
        f"Cisco IOS XE Software, Version {_padded(profile.version)}\n"
        "Cisco IOS Software [Synthetic], Virtual XE Software (X86_64_LINUX_IOSD-UNIVERSALK9-M), "
        f"Version {profile.version}, RELEASE SOFTWARE (fc1)\n"
        "Synthetic output of a simulator\n\n"
        "ROM: IOS-XE ROMMON\n\n"
        f"{hostname} uptime is {up}\nUptime for this control processor is {up}\nSystem returned to ROM by reload\n"
        'System image file is "bootflash:packages.conf"\nLast reload reason: reload\n\n'
        f"cisco {profile.model} (VXE) processor (revision VXE) with 2071896K/3075K bytes of memory.\n"
        f"Processor board ID {SERIAL}\nRouter operating mode: Autonomous\n2 Gigabit Ethernet interfaces\n"
        "32768K bytes of non-volatile configuration memory.\n3965344K bytes of physical memory.\n\n"
        "Configuration register is 0x2102\n\n"
    )


def _padded(text: str) -> str:
    """`17.9.4a` as the first line of newer releases prints it: `17.09.04a`."""
    return ".".join(
        part if index == 0 else re.sub(r"^\d+", lambda digits: digits.group().zfill(2), part)
        for index, part in enumerate(text.split("."))
    )


def _uptime(seconds: int) -> str:
    minutes = max(1, seconds // 60)
    parts = []
    for name, size in (("week", 10_080), ("day", 1440), ("hour", 60), ("minute", 1)):
        count, minutes = divmod(minutes, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return ", ".join(parts)


def clock(device: IosDevice) -> str:
    """`show clock`."""
    now = device.clock()
    text = device.time_text(now)
    return f"{text[:8]}.{int(now * 1000) % 1000:03}{text[8:]}\n"


def users(device: IosDevice, session: int) -> str:
    """`show users`."""
    printed = "    Line       User       Host(s)              Idle       Location\n"
    for index, terminal in enumerate(device.terminals.values()):
        star = "*" if terminal.number == session else " "
        printed += (
            f"{star}{index + 1:>4} vty {index:<5} {terminal.user:<10} {'idle':<20} {'00:00:00':<10} {terminal.host}\n"
        )
    return printed + "\n  Interface    User               Mode         Idle     Peer Address\n"


def archive(device: IosDevice) -> str:
    """`show archive`."""
    path = device.running.archive_path
    if path is None:
        return " Archive feature not enabled\n"
    count = len(device.archive)
    printed = (
        "The maximum archive configurations allowed is 10.\n"
        f"There are currently {count} archive configurations saved.\n"
        f"The next archive file will be named {path}-<timestamp>-{device.archived}\n"
        " Archive #  Name\n"
    )
    for index in range(10):
        name = device.archive[index][0] if index < count else ""
        printed += f"   {index + 1:<9} {name}{' <- Most Recent' if index == count - 1 else ''}\n"
    return printed


def rollback_timer(device: IosDevice) -> str:
    """`show archive config rollback timer`."""
    revert = device.revert
    if revert is None:
        return "%No Rollback Confirmed Change pending\n"
    return (
        f"Time configured(or reconfigured): {device.time_text(revert.configured_at)}\n"
        f"Timer type: {'idle' if revert.idle else 'absolute'} timer\n"
        f"Timer value: {revert.minutes} min\n"
        f"User: {revert.user}\n"
    )


def stored_file(device: IosDevice, name: str) -> str:
    """A configuration by its file name; raises Refusal."""
    if name in {"system:running-config", "running-config"}:
        return device.running.text()
    if name in {"nvram:startup-config", "startup-config"}:
        return device.startup.text
    for known, text in device.archive:
        if known == name:
            return text
    raise Refusal(f"%Error opening {name} (No such file or directory)\n")


def differences(device: IosDevice, first: str, second: str) -> str:
    """`show archive config differences [FIRST [SECOND]]`: what leads from the first to the second."""
    features = device.profile.features
    before = RunningConfiguration.parsed(stored_file(device, first), features)
    after = RunningConfiguration.parsed(stored_file(device, second), features)
    old, new = _paths(before), _paths(after)
    printed = list(_changes(old, new, "-")) + list(_changes(new, old, "+"))
    return "!Contextual Config Diffs:\n" + ("\n".join(printed) if printed else "!No changes were found") + "\n"


def _paths(configuration: RunningConfiguration) -> dict[tuple[str, ...], None]:
    """Every line with the sections it stands in, in order."""
    found: dict[tuple[str, ...], None] = {}
    stack: list[str] = []
    for line in configuration.lines():
        if line != "!":
            depth = len(line) - len(line.lstrip())
            stack[depth:] = [line.strip()]
            found[tuple(stack)] = None
    return found


def _changes(here: dict[tuple[str, ...], None], there: dict[tuple[str, ...], None], sign: str) -> Iterator[str]:
    shown: set[tuple[str, ...]] = set()
    for path in here:
        if path in there:
            continue
        for depth in range(1, len(path)):
            if path[:depth] not in shown and path[:depth] in there:
                shown.add(path[:depth])
                yield " " * (depth - 1) + path[depth - 1]
        shown.add(path)
        yield " " * (len(path) - 1) + sign + path[-1]


def interface_status(device: IosDevice, wanted: str | None) -> str:
    """`show interfaces [NAME]`; raises Refusal for an interface that is not there."""
    found = [one for one in interfaces(device) if wanted is None or one.name == wanted]
    if not found:
        raise Refusal("                                   ^\n% Invalid input detected at '^' marker.\n")
    return "".join(_one_interface(device, one) for one in found)


def _up(device: IosDevice, one: Interface) -> bool:
    if one.name.startswith("Tunnel"):
        relay = relay_tunnel(device)
        return relay is not None and relay.interface.name == one.name and relay.up
    return one.enabled


def _one_interface(device: IosDevice, one: Interface) -> str:
    up = _up(device, one)
    state = ("up" if one.enabled else "administratively down", "up" if up else "down")
    hardware = next(
        (text for kind, text in (("Tunnel", "Tunnel"), ("Loopback", "Loopback")) if one.name.startswith(kind)),
        "vNIC, address is 0200.5e00.5301 (bia 0200.5e00.5301)",
    )
    printed = [f"{one.name} is {state[0]}, line protocol is {state[1]} ", f"  Hardware is {hardware}"]
    if description := one.value("description"):
        printed.append(f"  Description: {description}")
    if one.address is not None:
        printed.append(f"  Internet address is {one.address}")
    printed += [
        "  MTU 1500 bytes, BW 1000000 Kbit/sec, DLY 10 usec, ",
        "     reliability 255/255, txload 1/255, rxload 1/255",
        f"  Encapsulation {'TUNNEL' if hardware == 'Tunnel' else 'ARPA'}, loopback not set",
    ]
    if hardware == "Tunnel":
        source = one.value("tunnel source") or "UNKNOWN"
        mode = "multi-UDP/IP" if one.value("tunnel mode") == "udp multipoint" else "GRE/IP"
        printed += [f"  Tunnel source {source}", f"  Tunnel protocol/transport {mode}", "  Tunnel TTL 255"]
    packets, octets, rate = _output(device, one)
    printed += [
        "  Last input never, output never, output hang never",
        "  Input queue: 0/375/0/0 (size/max/drops/flushes); Total output drops: 0",
        "  Queueing strategy: fifo",
        "  5 minute input rate 0 bits/sec, 0 packets/sec",
        f"  5 minute output rate {rate * 8 * 1356} bits/sec, {rate} packets/sec",
        "     0 packets input, 0 bytes, 0 no buffer",
        "     0 input errors, 0 CRC, 0 frame, 0 overrun, 0 ignored, 0 abort",
        f"     {packets} packets output, {octets} bytes, 0 underruns",
        "     0 output errors, 0 collisions, 0 interface resets",
    ]
    return "\n".join(printed) + "\n"


def _output(device: IosDevice, one: Interface) -> tuple[int, int, int]:
    """Packets, bytes and packets a second sent into the tunnels."""
    seen = view(device)
    if seen.relay is None or seen.relay.interface.name != one.name:
        return 0, 0, 0
    return (
        sum(tunnel.packets for tunnel in seen.tunnels),
        sum(tunnel.bytes for tunnel in seen.tunnels),
        sum(1000 * len(tunnel.channels) for tunnel in seen.tunnels),
    )


def interface_brief(device: IosDevice) -> str:
    """`show ip interface brief`."""
    printed = "Interface              IP-Address      OK? Method Status                Protocol\n"
    for one in interfaces(device):
        address = str(one.address.ip) if one.address else "unassigned"
        status = "up" if one.enabled else "administratively down"
        printed += f"{one.name:<22} {address:<15} YES NVRAM  {status:<21} {'up' if _up(device, one) else 'down'}\n"
    return printed


def access_lists(device: IosDevice, wanted: str | None) -> str:
    """`show ip access-lists [NAME]`."""
    printed = []
    for line in device.running.matching("ip access-list "):
        _, _, kind, name = line.text.split()
        if wanted in {None, name}:
            printed.append(f"{kind.capitalize()} IP access list {name}")
            printed += [f"    {child.key} {child.text.removeprefix(child.key + ' ')}" for child in line.children]
    return "".join(line + "\n" for line in printed)
