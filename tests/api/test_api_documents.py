"""docs/metrics.md and docs/api.md tell what is served, no more and no less."""

import re
from pathlib import Path

from agent.service.api.problems import STATUS

DOCS = Path(__file__).parents[2] / "docs"


async def test_every_metric_is_documented_with_its_kind_and_labels(client):
    text = (await client.get("/metrics")).text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels = {}
    for name, block in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        labels.setdefault(name, sorted(re.findall(r"(\w+)=", block)))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| ", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    documented = {name: (kind, sorted(re.findall(r"`(\w+)`", names))) for name, kind, names in rows}
    assert documented == {name: (kinds[name], labels[name]) for name in kinds}


async def test_metrics_carry_the_agents_numbers(client):
    lines = (await client.get("/metrics")).text.splitlines()
    assert {
        "isthmus_forwarded_packets_total 10.0",
        'isthmus_exception_packets_total{reason="too_big"} 3.0',
        'isthmus_plane_channels{plane="tc"} 1.0',
        'isthmus_plane_channels{plane="xdp"} 0.0',
        'isthmus_interface_plane_usable{interface="eth0",plane="xdp",role="uplink"} 1.0',
        'isthmus_interface_plane_usable{interface="eth1.7",plane="xdp",role="downstream"} 0.0',
        'isthmus_refused_packets_total{reason="not_subscribed"} 3.0',
        'isthmus_tunnels{state="established"} 1.0',
        'isthmus_channels{state="idle"} 1.0',
        'isthmus_problems{severity="warning"} 1.0',
        'isthmus_channel_packets_total{group="232.1.1.1",source="198.51.100.7"} 10.0',
        "isthmus_ready 1.0",
    } <= set(lines)


async def test_the_content_type_is_prometheus_text(client):
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_every_error_code_is_documented_with_its_status():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert {code: int(status) for code, status in rows} == STATUS
