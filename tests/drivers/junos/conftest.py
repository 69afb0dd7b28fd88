"""Intents that the Junos tests share."""

from __future__ import annotations

from typing import Any

import pytest

from relaymgr.domain.intent import RelayIntent

SMALLEST: dict[str, Any] = {"inet": {"anycast_prefix": "192.0.2.1/32", "local_address": "198.51.100.7"}}
FULL: dict[str, Any] = {
    "inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"},
    "tunnel_limit": 500,
    "stream_limit": 20000,
    "key_timeout_minutes": 60,
    "accounting": True,
    "igmp": {
        "version": 3,
        "query_interval_seconds": 60,
        "query_response_interval_seconds": 10,
        "robustness": 3,
        "group_limit": 100,
        "group_threshold_percent": 80,
        "accounting": False,
    },
    "group_policy": {"name": "AMT-GROUPS", "permit": ["232.0.0.0/8", "233.252.0.0/24"]},
    "pim_interfaces": [{"name": "ge-0/0/0.0", "hello_interval_seconds": 10, "priority": 5}, {"name": "ae0.5"}],
    "protection_filter": {"name": "AMT-PROTECT", "rate_kbps": 4000, "permit_from": ["203.0.113.0/24"]},
    "tunnel_services": {"fpc": 1, "pic": 0, "bandwidth_gbps": 1},
    "trace": {"file": "amt.log", "flags": ["errors", "packets"]},
    "advertise": {"protocol": "bgp", "policy": "AMT-ANYCAST"},
    "junos": {"tunnel_devices": ["ud-1/0/0"]},
}


@pytest.fixture
def smallest() -> RelayIntent:
    return RelayIntent.model_validate(SMALLEST)


@pytest.fixture
def full() -> RelayIntent:
    return RelayIntent.model_validate(FULL)


@pytest.fixture
def full_values() -> dict[str, Any]:
    return FULL
