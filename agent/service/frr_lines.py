"""What FRR has to be told beside this agent, as lines of its configuration (tried with FRR 8.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.protocol.channels import Family
from agent.service.config import Configuration

_HALVES = {Family.IPV4: ("0.0.0.0/1", "128.0.0.0/1"), Family.IPV6: ("::/1", "8000::/1")}
_WORD = {Family.IPV4: "ip", Family.IPV6: "ipv6"}
_HOSTS = {Family.IPV4: "igmp", Family.IPV6: "mld"}


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together.

    Attributes:
        why: what they are for, sentences.
        lines: what to configure.
        interface: name of the interface they belong to, None for the top level.
    """

    why: str
    lines: tuple[str, ...]
    interface: str | None = None

    def __iter__(self) -> Iterator[tuple[str | None, str]]:
        """Each line with its interface."""
        return ((self.interface, line) for line in self.lines)


def frr_blocks(configuration: Configuration, family: Family) -> list[Block]:
    """What pimd (IPv4) or pim6d (IPv6, FRR 10 and later) has to be told; none when the family is not carried."""
    gateway, section = configuration.gateway, configuration.frr
    tunnel, word = gateway.tunnel_interface, _WORD[family]
    neighbor = next((item.ip for item in section.neighbor_address if item.version == family), None)
    if neighbor is None or not (gateway.ipv4 if family is Family.IPV4 else gateway.ipv6):
        return []
    blocks = [Block(f"The agent is the PIM neighbour {neighbor} on {tunnel}.", (f"{word} pim",), tunnel)]
    for name in gateway.downstream:
        why = f"PIM with the domain's routers on {name}, and {_HOSTS[family].upper()} with its hosts."
        blocks.append(Block(why, (f"{word} pim", f"{word} {_HOSTS[family]}"), name))
    routes = tuple(f"{word} route {half} {neighbor} {tunnel}" for half in _HALVES[family])
    why = (
        f"The reverse path to every source without a longer route leads to {tunnel}. Unicast does not follow these: "
        + _rules(configuration)
    )
    blocks.append(Block(why, routes))
    groups = [group for group in configuration.pim.rendezvous_groups if group.version == family]
    points = [address for address in configuration.pim.rendezvous_address if address.version == family]
    if groups and points:
        lines = tuple(f"{word} pim rp {points[0]} {group}" for group in groups)
        why = (
            f"The rendezvous point of these groups is behind {tunnel}: no address of this host. Every router of the "
            "domain needs the same lines."
        )
        blocks.append(Block(why, lines))
    return blocks


def frr_configuration(configuration: Configuration, *, with_ipv6: bool = False) -> str:
    """The text for /etc/frr/frr.conf or vtysh; IPv6 takes another FRR, and so is asked for."""
    tunnel = configuration.gateway.tunnel_interface
    daemons = "pimd=yes and pim6d=yes" if with_ipv6 else "pimd=yes"
    text = [
        f"! FRR routes multicast on this border; the agent brings it in on {tunnel}.",
        f"! /etc/frr/daemons needs {daemons}; zebra and staticd run anyway.",
    ]
    blocks = frr_blocks(configuration, Family.IPV4)
    ipv6 = frr_blocks(configuration, Family.IPV6)
    if with_ipv6:
        blocks += ipv6
    elif ipv6:
        text.append("! IPv6 takes FRR 10, which has pim6d: amt-agent frr-config --ipv6 prints its lines too.")
    for block in blocks:
        text += ["!", *_text(block)]
    return "\n".join([*text, "!", ""])


def _text(block: Block) -> list[str]:
    why = [f"! {line}" for line in _wrapped(block.why)]
    if block.interface is None:
        return [*why, *block.lines]
    return [*why, f"interface {block.interface}", *(f" {line}" for line in block.lines), "exit"]


def _rules(configuration: Configuration) -> str:
    section = configuration.frr
    if section.manage_rules:
        return "the agent keeps it on the real default routes with rules and a table of its own while it runs."
    return "see that rules keep it on the real default routes, because manage_rules is false."


def _wrapped(text: str, width: int = 100) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".lstrip()
    yield line
