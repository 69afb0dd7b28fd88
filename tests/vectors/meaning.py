"""Turns the text of a vector's expectation into the types of the codecs."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from agent.protocol.wire import amt, groups, ip, pim
from agent.protocol.wire.group_packet import GroupPacket

if TYPE_CHECKING:
    from vectors.loader import Vector

    from agent.protocol.channels import Address

FLAGS = {"yes": True, "no": False}


def amt_message(vector: Vector, vectors: dict[str, Vector]) -> amt.Message:
    """The AMT message a vector describes."""
    values: dict[str, Any] = {}
    for name, text in vector.fields:
        if name == "packet":
            values[name] = vectors[text.removeprefix("@")].data
        elif name == "nonce":
            values[name] = int(text, 0)
        elif name == "relay":
            values[name] = ip_address(text)
        elif name == "response_mac":
            values[name] = bytes.fromhex(text)
        elif name == "gateway":
            values[name] = None if text == "none" else _gateway(text)
        else:
            values[name] = FLAGS[text]
    return getattr(amt, vector.expect)(**values)


def _gateway(text: str) -> tuple[Address, int]:
    address, port = text.split()
    return ip_address(address), int(port)


def group_packet(vector: Vector) -> GroupPacket:
    """The IGMP or MLD packet a vector describes."""
    return GroupPacket(
        source=ip_address(vector.value("source")),
        destination=ip_address(vector.value("destination")),
        ttl=int(vector.value("ttl")),
        router_alert=FLAGS[vector.value("router_alert")],
        message=_group_message(vector),
    )


def _group_message(vector: Vector) -> groups.GroupMessage:
    if vector.expect == "Report":
        return groups.Report(tuple(_record(text) for text in vector.values("record")))
    if vector.expect == "Leave":
        return groups.Leave(ip_address(vector.value("group")))
    version = groups.GroupVersion[vector.value("version")]
    if vector.expect == "AnySourceReport":
        return groups.AnySourceReport(ip_address(vector.value("group")), version)
    assert vector.expect == "Query", vector.expect
    group = vector.value("group")
    return groups.Query(
        group=None if group == "none" else ip_address(group),
        sources=tuple(ip_address(text) for text in vector.value("sources").split()),
        max_response_time=float(vector.value("max_response_time")),
        suppress=FLAGS[vector.value("suppress")],
        robustness=int(vector.value("robustness")),
        interval=int(vector.value("interval")),
        version=version,
    )


def _record(text: str) -> groups.GroupRecord:
    kind, group, *sources = text.split()
    return groups.GroupRecord(
        groups.RecordType[kind], ip_address(group), tuple(ip_address(source) for source in sources)
    )


def pim_message(vector: Vector) -> pim.Message:
    """The PIM message a vector describes; `source_address` is the message's, `source` the packet's."""
    values: dict[str, Any] = {}
    groups_listed = []
    for name, text in vector.fields:
        if name in {"source", "destination"}:
            continue
        if name == "group" and vector.expect == "JoinPrune":
            groups_listed.append(_join_prune_group(text))
        elif name in {"upstream", "group", "bsr"}:
            values[name] = ip_address(text)
        elif name == "source_address":
            values["source"] = None if text == "none" else ip_address(text)
        elif name == "addresses":
            values[name] = tuple(ip_address(address) for address in text.split())
        elif name in {"packet", "body"}:
            values[name] = bytes.fromhex(text)
        elif name == "lan_prune_delay" and text != "none":
            propagation, override, tracking = text.split()
            values[name] = pim.LanPruneDelay(int(propagation), int(override), FLAGS[tracking])
        else:
            values[name] = FLAGS[text] if text in FLAGS else None if text == "none" else int(text, 0)
    if vector.expect == "JoinPrune":
        values["groups"] = tuple(groups_listed)
    return getattr(pim, vector.expect)(**values)


def _join_prune_group(text: str) -> pim.JoinPruneGroup:
    """`GROUP/BITS join SOURCE... prune SOURCE...`, sources with `,wildcard` and `,rpt`."""
    prefix, *words = text.split()
    group, bits = prefix.split("/")
    lists: dict[str, list[pim.EncodedSource]] = {"join": [], "prune": []}
    chosen = lists["join"]
    for word in words:
        if word in lists:
            chosen = lists[word]
            continue
        address, *flags = word.split(",")
        chosen.append(pim.EncodedSource(ip_address(address), **dict.fromkeys(flags, True)))
    return pim.JoinPruneGroup(ip_address(group), int(bits), tuple(lists["join"]), tuple(lists["prune"]))


def ip_packet(vector: Vector) -> ip.IPPacket:
    """The IP packet a vector describes; its payload are the last bytes of the packet."""
    length = int(vector.value("payload_length"))
    end = len(vector.data) - _padding(vector.data)
    return ip.IPPacket(
        source=ip_address(vector.value("source")),
        destination=ip_address(vector.value("destination")),
        protocol=int(vector.value("protocol")),
        payload=vector.data[end - length : end],
        ttl=int(vector.value("ttl")),
        traffic_class=int(vector.value("traffic_class"), 0),
        options=bytes.fromhex(vector.value("options")),
        identification=int(vector.value("identification"), 0),
        dont_fragment=FLAGS[vector.value("dont_fragment")],
        more_fragments=FLAGS[vector.value("more_fragments")],
        fragment_offset=int(vector.value("fragment_offset")),
    )


def _padding(packet: bytes) -> int:
    return len(packet) - int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 0


def udp_datagram(vector: Vector) -> ip.UDPDatagram | None:
    """The UDP datagram in it, or None where the vector tells of none."""
    if not vector.values("udp_payload"):
        return None
    return ip.UDPDatagram(
        int(vector.value("source_port")),
        int(vector.value("destination_port")),
        bytes.fromhex(vector.value("udp_payload")),
    )
