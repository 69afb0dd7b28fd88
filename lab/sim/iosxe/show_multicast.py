"""Output of the multicast show commands.

Synthetic: the layouts follow public documentation and the fixtures of ntc-templates. How the gateways of an AMT tunnel
look in `show ip mroute verbose` is told nowhere; the layout here is a guess.
"""

from __future__ import annotations

from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.relay import View, duration, interfaces, view
from lab.sim.population import SimChannel, SimTunnel

_MROUTE_HEAD = """IP Multicast Routing Table
Flags: D - Dense, S - Sparse, B - Bidir Group, s - SSM Group, C - Connected,
       L - Local, P - Pruned, R - RP-bit set, F - Register flag,
       T - SPT-bit set, J - Join SPT, M - MSDP created entry, E - Extranet,
       X - Proxy Join Timer Running, A - Candidate for MSDP Advertisement,
       U - URD, I - Received Source Specific Host Report,
       Z - Multicast Tunnel, z - MDT-data group sender,
       Y - Joined MDT-data group, y - Sending to MDT-data group,
       V - RD & Vector, v - Vector
Outgoing interface flags: H - Hardware switched, A - Assert winner
 Timers: Uptime/Expires
 Interface state: Interface, Next-Hop or VCD, State/Mode

"""
_NEIGHBOR_HEAD = """PIM Neighbor Table
Mode: B - Bidir Capable, DR - Designated Router, N - Default DR Priority,
      P - Proxy Capable, S - State Refresh Capable, G - GenID Capable,
      L - DR Load-balancing Capable
Neighbor          Interface                Uptime/Expires    Ver   DR
Address                                                            Prio/Mode
"""
_PIM_INTERFACE_HEAD = """
Address          Interface                Ver/   Nbr    Query  DR         DR
                                          Mode   Count  Intvl  Prior
"""
_GROUPS_HEAD = """IGMP Connected Group Membership
Group Address    Interface                Uptime    Expires   Last Reporter   Group Accounted
"""
_DETAIL_HEAD = """
Flags: L - Local, U - User, SG - Static Group, VG - Virtual Group,
       SS - Static Source, VS - Virtual Source,
       Ac - Group accounted towards access control limit

"""
_MEMBERSHIP_HEAD = """Flags: A  - aggregate, T - tracked
       L  - Local, S - static, V - virtual, R - Reported through v3
       I - v3lite, U - Urd, M - SSM (S,G) channel
       1,2,3 - The version of IGMP, the group is in
Channel/Group-Flags:
       / - Filtering entry (Exclude mode (S,G), Include mode (G))
Reporter:
       <mac-or-ip-address> - last reporter if group is not explicitly tracked
       <n>/<m>      - <n> reporter in include mode, <m> reporter in exclude

 Channel/Group                  Reporter        Uptime   Exp.  Flags  Interface
"""
_EXPIRES = 150
"""Seconds an outgoing interface is kept without a report."""


def mroute(device: IosDevice, *, verbose: bool = False, wanted: tuple[str, ...] = ()) -> str:
    """`show ip mroute [GROUP [SOURCE]] [verbose]`."""
    if not _routing(device):
        return "IP multicast routing is not enabled\n"  # synthetic wording
    seen = view(device)
    gateways = seen.gateways()
    entries = []
    for channel in seen.channels:
        source, group = str(channel.source or "*"), str(channel.group)
        if not set(wanted) <= {source, group}:
            continue
        entries.append(
            _mroute_entry(seen, channel, gateways.get((source, group), []) if verbose and seen.relay else [])
        )
    return _MROUTE_HEAD + "\n".join(entries) + ("\n" if entries else "")


def _mroute_entry(seen: View, channel: SimChannel, gateways: list[SimTunnel]) -> str:
    assert seen.members is not None
    uptime = duration(channel.uptime_seconds)
    source = str(channel.source or "*")
    rendezvous = ", RP 0.0.0.0" if channel.source is None else ""
    neighbor = seen.neighbors[0].address if seen.neighbors else "0.0.0.0"
    incoming = seen.core.name if seen.core else "Null"
    tunnel = seen.members.name
    outgoing = [f"    {tunnel}, Forward/Sparse, {uptime}/{duration(_EXPIRES)}\n"]
    if gateways:
        outgoing = [
            f"    {tunnel}, {gateway.gateway_address}, UDP port {gateway.gateway_port}, Forward/Sparse, "
            f"{duration(gateway.uptime_seconds)}/{duration(max(0, gateway.expires_seconds))}\n"
            for gateway in gateways
        ]
    return (
        f"({source}, {channel.group}), {uptime}/{duration(180)}{rendezvous}, flags: sTI\n"
        f"  Incoming interface: {incoming}, RPF nbr {neighbor}\n"
        f"  Outgoing interface list:\n{''.join(outgoing)}"
    )


def _routing(device: IosDevice) -> bool:
    return bool(device.running.matching("ip multicast-routing"))


def mroute_count(device: IosDevice) -> str:
    """`show ip mroute count`."""
    channels = view(device).channels
    groups: dict[str, list[SimChannel]] = {}
    for channel in channels:
        groups.setdefault(str(channel.group), []).append(channel)
    head = (
        'Use "show ip mfib count" to get better response time for a large number of mroutes.\n\n'
        "IP Multicast Statistics\n"
        f"{len(channels)} routes using {1024 * len(channels)} bytes of memory\n"
        f"{len(groups)} groups, {len(channels) / max(1, len(groups)):.2f} average sources per group\n"
        "Forwarding Counts: Pkt Count/Pkts per second/Avg Pkt Size/Kilobits per second\n"
        "Other counts: Total/RPF failed/Other drops(OIF-null, rate-limit etc)\n\n"
    )
    printed = [head]
    for group, members in groups.items():
        total = sum(channel.packets for channel in members)
        printed.append(
            f"Group: {group}, Source count: {len(members)}, Packets forwarded: {total}, Packets received: {total}\n"
        )
        for channel in members:
            size = channel.bytes // channel.packets if channel.packets else 0
            kilobits = 8 * (channel.kilobytes_per_second or 0)
            printed.append(
                f"  Source: {channel.source or '*'}/32, Forwarding: {channel.packets}/"
                f"{channel.packets_per_second or 0}/{size}/{kilobits}, Other: {channel.packets}/0/0\n"
            )
        printed.append("\n")
    return "".join(printed)


def igmp_groups(device: IosDevice, *, detail: bool = False) -> str:
    """`show ip igmp groups [detail]`."""
    seen = view(device)
    if detail:
        return _DETAIL_HEAD + "".join(_group_details(seen))
    lines = []
    for group, (reporter, uptime) in _groups(seen).items():
        assert seen.members is not None
        lines.append(f"{group:<16} {seen.members.name:<24} {duration(uptime):<9} {'stopped':<9} {reporter:<15}\n")
    return _GROUPS_HEAD + "".join(lines)


def _groups(seen: View) -> dict[str, tuple[str, int]]:
    """Group -> last reporter and uptime."""
    found: dict[str, tuple[str, int]] = {}
    for tunnel in seen.tunnels:
        for _, group in tunnel.channels:
            found[str(group)] = (str(tunnel.joined_by), tunnel.uptime_seconds)
    return found


def _sources(seen: View) -> dict[str, dict[str, int]]:
    """Group -> source -> seconds until it expires."""
    found: dict[str, dict[str, int]] = {}
    for tunnel in seen.tunnels:
        for source, group in tunnel.channels:
            if source is not None:
                found.setdefault(str(group), {})[str(source)] = max(0, tunnel.expires_seconds)
    return found


def _group_details(seen: View) -> list[str]:
    printed = []
    sources = _sources(seen)
    for group, (reporter, uptime) in _groups(seen).items():
        assert seen.members is not None
        body = "".join(
            f"  {source:<16} {duration(uptime)}  {duration(expires)}  stopped   Yes  R\n"
            for source, expires in sources.get(group, {}).items()
        )
        printed.append(
            f"Interface:\t{seen.members.name}\nGroup:\t\t{group}\nFlags:\t\tSSM\nUptime:\t\t{duration(uptime)}\n"
            f"Group mode:\tINCLUDE\nLast reporter:\t{reporter}\n"
            "Group source list: (C - Cisco Src Report, U - URD, R - Remote, S - Static,\n"
            "                    V - Virtual, M - SSM Mapping, L - Local,\n"
            "                    Ac - Channel accounted towards access control limit)\n"
            f"  Source Address   Uptime    v3 Exp   CSR Exp   Fwd  Flags\n{body}\n"
        )
    return printed


def igmp_membership(device: IosDevice) -> str:
    """`show ip igmp membership`."""
    seen = view(device)
    lines = []
    sources = _sources(seen)
    for group, (reporter, uptime) in _groups(seen).items():
        assert seen.members is not None
        name = seen.members.short_name
        lines.append(f"{'/*,' + group:<31} {reporter:<15} {duration(uptime)} stop  3MA    {name}\n")
        lines += [
            f" {source + ',' + group:<30} {'':<15} {duration(uptime)} {duration(expires)[3:]} RA     {name}\n"
            for source, expires in sources.get(group, {}).items()
        ]
    return _MEMBERSHIP_HEAD + "".join(lines)


def pim_neighbors(device: IosDevice) -> str:
    """`show ip pim neighbor`."""
    seen = view(device)
    lines = []
    for neighbor in seen.neighbors:
        assert seen.core is not None
        left = max(1, neighbor.hold_time_seconds - neighbor.uptime_seconds % 30)
        times = f"{duration(neighbor.uptime_seconds)}/{duration(left)}"
        lines.append(
            f"{neighbor.address!s:<17} {seen.core.name:<24} {times:<17} v2    {neighbor.priority} / DR S P G\n"
        )
    return _NEIGHBOR_HEAD + "".join(lines)


def pim_interfaces(device: IosDevice) -> str:
    """`show ip pim interface`."""
    seen = view(device)
    lines = []
    for one in interfaces(device):
        if one.pim_mode is None or one.address is None or not one.enabled:
            continue
        count = len(seen.neighbors) if seen.core is not None and one.name == seen.core.name else 0
        mode = {"passive": "P", "dense-mode": "D", "sparse-dense-mode": "SD"}.get(one.pim_mode, "S")
        hello = (one.value("ip pim query-interval") or "30").split()[0]
        priority = one.value("ip pim dr-priority") or "1"
        lines.append(
            f"{one.address.ip!s:<16} {one.name:<24} {'v2/' + mode:<6} {count:<6} {hello:<6} {priority:<10} "
            f"{one.address.ip}\n"
        )
    return _PIM_INTERFACE_HEAD + "".join(lines)
