"""Examples for the members of intents, whose models are the domain's."""

from __future__ import annotations

from typing import Any, Final

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "RelayFamily": {"anycast_address": "192.0.2.1"},
    "Advertise": {"protocol": "bgp", "policy": "ANYCAST-OUT", "group": "upstreams"},
    "IgmpParameters": {
        "version": 3,
        "query_interval_seconds": 125,
        "query_response_interval_seconds": 10,
        "robustness": 2,
        "group_limit": 100,
        "group_threshold_percent": 80,
        "accounting": True,
    },
    "GroupPolicy": {"name": "AMT-GROUPS", "permit": ["232.0.0.0/8"]},
    "PimInterface": {"name": "ge-1/0/0.0", "hello_interval_seconds": 30, "priority": 1},
    "ProtectionFilter": {"name": "PROTECT-AMT", "rate_kbps": 10000, "permit_from": ["203.0.113.0/24"]},
    "TunnelServices": {"fpc": 1, "pic": 0, "bandwidth_gbps": 10},
    "TraceOptions": {"file": "amt-trace", "size_bytes": 10485760, "files": 3, "flags": ["errors"]},
    "JunosExtras": {
        "tunnel_devices": ["ud-1/0/10"],
        "loopback_unit": 5,
        "routing_instance": "multicast",
        "ssm_map_policy": "SSM-MAP",
    },
    "IosxeExtras": {
        "tunnel_interface": "Tunnel2268",
        "tunnel_address": "192.0.2.129",
        "tunnel_prefix_length": 24,
        "local_loopback": "Loopback2268",
        "anycast_loopback": "Loopback2269",
    },
    "IsthmusExtras": {"native_interface": "eth1"},
    "RelayIntent": {"tunnel_limit": 5000, "stream_limit": 20000, "key_timeout_minutes": 60, "accounting": True},
}
"""Model -> member -> example; members that are models have those of theirs."""
