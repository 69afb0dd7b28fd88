"""Mode `frr` as `status` and /metrics show it."""

from __future__ import annotations

from collections.abc import Iterator

from agent.service.frr_mode import FrrMode
from agent.service.model import Problem, Severity


def frr_counters(frr: FrrMode) -> dict[str, int]:
    """Frames that came out of the tunnel interface, and what the kernel refused."""
    status = frr.status()
    dropped = {f"dropped_{reason}": count for reason, count in status.dropped.items()}
    return {**dropped, "answered_address_questions": status.answered, "route_errors": status.errors}


def frr_problems(frr: FrrMode, tunnel_interface: str) -> Iterator[Problem]:
    """What keeps unicast from the uplink, as far as is seen here."""
    status = frr.status()
    if status.last_error is not None:
        yield Problem(
            code="unicast_rules",
            severity=Severity.WARNING,
            message=f"Unicast may not be kept on the uplink beside FRR: {status.last_error}.",
            subject=tunnel_interface,
        )
    if unicast := status.dropped.get("unicast", 0):
        yield Problem(
            code="unicast_in_tunnel_interface",
            severity=Severity.WARNING,
            message=f"{unicast} unicast packets were routed into {tunnel_interface} and dropped; `amt-agent doctor` "
            "looks at the rules that keep them out.",
            subject=tunnel_interface,
        )
