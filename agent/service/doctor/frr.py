"""FRR beside the agent: whether it was told what it needs, and whether it sees us."""

from __future__ import annotations

import json
from collections.abc import Iterator

from agent.net.unicast_rules import PRIORITY_STEP
from agent.protocol.channels import Family
from agent.service.config import Configuration, GatewayMode, Role
from agent.service.doctor.finding import Finding, fail, ok, unknown, warn
from agent.service.doctor.host import Host
from agent.service.frr_lines import Block, frr_blocks

_MAIN_RULE = 32766
_NEIGHBORS = {Family.IPV4: ("frr-neighbor", "pimd", "ip"), Family.IPV6: ("frr-neighbor-ipv6", "pim6d", "ipv6")}
_ROUTER_BLOCKS = {"router pim": "ip pim ", "router pim6": "ipv6 pim "}
"""How FRR 10 shows what FRR 8 and 9 show, and all take, as lines of the top level."""


def check_frr(host: Host, configuration: Configuration | None) -> Iterator[Finding]:
    """Findings about FRR; none in mode `router`."""
    if configuration is None or configuration.role is not Role.GATEWAY:
        return
    if configuration.gateway.mode is not GatewayMode.FRR:
        return
    running = host.run("vtysh", "-c", "show running-config")
    if running is None:
        yield unknown("frr", "vtysh is missing or does not answer", "Install and start FRR, or run the doctor as root.")
    else:
        told = _statements(running)
        yield _lines("frr-config", frr_blocks(configuration, Family.IPV4), told)
        yield from _ipv6(configuration, host, told)
        yield from _neighbor(host, configuration, Family.IPV4)
    for family in (Family.IPV4, Family.IPV6):
        if configuration.gateway.ipv4 if family is Family.IPV4 else configuration.gateway.ipv6:
            yield _rules(host, configuration, family)


def _statements(text: str) -> set[tuple[str | None, str]]:
    """Lines of a running configuration, each with the interface it is under, as `frr-config` writes them."""
    found: set[tuple[str | None, str]] = set()
    interface: str | None = None
    prefix = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line in {"", "!", "exit", "end"}:
            if line:
                interface, prefix = None, ""
        elif line.startswith("interface "):
            interface = line.split()[1]
        elif line in _ROUTER_BLOCKS:
            prefix = _ROUTER_BLOCKS[line]
        else:
            found.add((interface if raw.startswith(" ") else None, prefix + line))
    return found


def _lines(name: str, wanted: list[Block], told: set[tuple[str | None, str]]) -> Finding:
    missing = [item for block in wanted for item in block if item not in told]
    if not missing:
        return ok(name, "FRR runs with every line it needs")
    seen = "; ".join(line if interface is None else f"interface {interface}: {line}" for interface, line in missing)
    return fail(name, f"FRR lacks {seen}", "amt-agent frr-config prints all of it.")


def _ipv6(configuration: Configuration, host: Host, told: set[tuple[str | None, str]]) -> Iterator[Finding]:
    wanted = frr_blocks(configuration, Family.IPV6)
    if not wanted:
        return
    if "pim6d" in host.commands().values():
        yield _lines("frr-config-ipv6", wanted, told)
        yield from _neighbor(host, configuration, Family.IPV6)
    else:
        yield warn(
            "frr-config-ipv6",
            "pim6d does not run: FRR routes no IPv6 multicast",
            "FRR 10 and later have it (pim6d=yes in /etc/frr/daemons); or set gateway.ipv6 = false.",
        )


def _neighbor(host: Host, configuration: Configuration, family: Family) -> Iterator[Finding]:
    tunnel = configuration.gateway.tunnel_interface
    ours = next((item.ip for item in configuration.frr.neighbor_address if Family.of(item.ip) is family), None)
    if ours is None or (family is Family.IPV4 and not configuration.gateway.ipv4):
        return
    name, daemon, word = _NEIGHBORS[family]
    text = host.run("vtysh", "-c", f"show {word} pim neighbor json")
    try:
        known = json.loads(text or "")
        neighbors = list(known.get(tunnel, {}))
    except (ValueError, AttributeError):
        yield unknown(name, f"{daemon} does not tell its neighbours", f"Is {daemon}=yes in /etc/frr/daemons?")
        return
    if str(ours) in neighbors:
        yield ok(name, f"{daemon} has {ours} as its neighbour on {tunnel}")
        return
    others = f", but {', '.join(neighbors)}" if neighbors else ""
    advice = f"The agent has to run, and {daemon} to speak PIM there: vtysh -c 'show {word} pim interface {tunnel}'."
    yield warn(name, f"{daemon} has not {ours} as its neighbour on {tunnel}{others}", advice)


def _rules(host: Host, configuration: Configuration, family: Family) -> Finding:
    """The rules are there, or will be; and no rule of somebody else comes too late because of them."""
    name, section = f"frr-rules-ipv{int(family)}", configuration.frr
    try:
        rules = json.loads(host.run("ip", "-j", f"-{int(family)}", "rule") or "")
        priorities = {int(rule["priority"]): rule for rule in rules}
    except (ValueError, KeyError, TypeError):
        return unknown(name, "ip rule cannot be read")
    kept = next((rule for rule in priorities.values() if int(rule.get("suppress_prefixlen", -1)) >= 1), None)
    if not section.manage_rules:
        if kept is not None:
            return ok(name, f"rule {kept['priority']} keeps unicast off the half-default routes")
        advice = (
            f"ip -{int(family)} rule add pref 80 lookup main suppress_prefixlength 1, and a table for the defaults."
        )
        return fail(name, "manage_rules is false, and no rule keeps unicast off the half-default routes", advice)
    ours = {section.rule_priority, section.rule_priority + PRIORITY_STEP}
    late = sorted(number for number in priorities if max(ours) < number < _MAIN_RULE)
    if late:
        return warn(
            name,
            f"rules {', '.join(map(str, late))} come after the agent's {max(ours)}, which answers for everything",
            "Set [frr] rule_priority above them.",
        )
    return ok(
        name, "the agent's rules are in force" if ours <= set(priorities) else "the agent sets them when it starts"
    )
