"""What a machine lacks for the gateway's data plane."""

from __future__ import annotations

from pathlib import Path

from lab.own_namespace import missing_for_own_namespace


def missing_for_engine() -> str:
    """What is missing, in words; empty when nothing is."""
    if missing := missing_for_own_namespace():
        return missing
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    if not Path("/proc/net/ip_mr_vif").exists():
        return "needs a kernel with multicast routing (CONFIG_IP_MROUTE)"
    return ""
