"""The forwarding engine in the lines of `amt-agent status`."""

from __future__ import annotations

from typing import Any

from agent.cli.tables import count


def engine_pairs(engine: dict[str, Any]) -> list[tuple[str, object]]:
    """Names and values: the engine, a line for each interface, what was left to userspace."""
    told = engine["reason"] or (f"configured {engine['configured']}" if engine["configured"] else "")
    details = ", ".join(f"{key}: {value}" for key, value in engine["details"].items())
    pairs: list[tuple[str, object]] = [("engine", f"{engine['name']}{f', {told}' if told else ''}")]
    if details:
        pairs.append(("  details", details))
    pairs += [(f"  {item['name']}", _interface(item)) for item in engine["interfaces"]]
    if engine["exceptions"]:
        left = (f"{reason} {count(number)}" for reason, number in sorted(engine["exceptions"].items()))
        pairs.append(("  left to userspace", ", ".join(left)))
    return pairs


def _interface(item: dict[str, Any]) -> str:
    """Its best plane, and why none that the engine would rather use: those before it in the list that are named."""
    if item["plane"] is None:
        return f"{item['role']}, not in use: no channel needs it, or it is down or absent"
    said = [f"{item['role']}, {item['plane']}"]
    for plane in item["planes"]:
        if plane["plane"] == item["plane"]:
            break
        if not plane["usable"] and not plane["reason"].endswith("does not use it"):
            said.append(f"not {plane['plane']}: {plane['reason']}")
    if item["probe"] == "pending":
        said.append("being tried out")
    return "; ".join(said)
