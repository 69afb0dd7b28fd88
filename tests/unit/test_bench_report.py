"""The benchmark's page says what was measured and does not flatter it."""

from __future__ import annotations

from lab.bench.idle import Idle
from lab.bench.join_latency import JoinLatency
from lab.bench.report import Results, aims, page, plot


def engine_row(name, nanoseconds, **changes):
    row = {"name": name, "native": False, "size": 1316, "interfaces": 1, "zero_checksums": False}
    return row | {"ns_per_packet": nanoseconds, "packets_per_second": 90_000, "saturated_per_second": 120_000} | changes


RESULTS = Results(
    engine=[
        engine_row("native", 2000, native=True),
        engine_row("native, 8 interfaces", 9000, native=True, interfaces=8),
        engine_row("userspace, 1 channel", 2500),
        engine_row("userspace, 8 channels", 5000),
        engine_row("userspace, 1 channel, 8 interfaces", 18_000, interfaces=8),
        engine_row("userspace, 1 channel, zero outer checksums", 4000, zero_checksums=True),
    ],
    relay=[
        {
            "load": "full batches",
            "tunnels": 100,
            "tunnel_packets_per_second": 1.1e6,
            "cpu_ns": 600,
            "cpu_share": 0.7,
            "loss": 0.0,
        },
        {
            "load": "one stream",
            "tunnels": 1000,
            "tunnel_packets_per_second": 1e6,
            "cpu_ns": 700,
            "cpu_share": 0.9,
            "loss": 0.01,
        },
    ],
    joins=[JoinLatency("warm", tuple(number / 10_000 for number in range(100)))],
    idle=[Idle("gateway", 10_000, 120_000_000, 0.02)],
    left_out=["nothing but this line"],
)


def test_costs_are_compared_with_native_forwarding_of_the_same_shape():
    row = RESULTS.engine_row("userspace, 1 channel, 8 interfaces")
    assert RESULTS.cost_ratio(row) == 2.0


def test_each_aim_is_judged_by_its_own_bound():
    judged = {aim: (reached, is_reached) for aim, reached, is_reached in aims(RESULTS)}
    assert judged["userspace, 1 channel: at most 1.3 times native"] == ("1.25 times", True)
    assert judged["userspace, 8 channels: at most 2.2 times native"] == ("2.50 times", False)
    assert judged["userspace, 1 channel, zero outer checksums: 100,000 packets/s without loss"] == ("90,000", False)
    assert judged["relay, 100 tunnels: 1,000,000 tunnel packets/s"] == ("1,100,000", True)
    assert judged["relay, one stream to 1000 tunnels: no loss"] == ("1.00% lost", False)
    assert judged["warm join: p99 under 5 ms"] == ("9.8 ms", False)
    assert judged["gateway, 10,000 idle channels: under 150 MB and 3 % of a core"] == ("120 MB, 2.00%", True)


def test_the_page_names_what_was_left_out_and_what_was_not_reached():
    text = page(RESULTS)
    assert "- nothing but this line" in text
    assert "| warm join: p99 under 5 ms | 9.8 ms | **no** |" in text


def test_the_plot_is_a_picture_even_of_nothing(tmp_path):
    for name, results in (("full", RESULTS), ("empty", Results())):
        plot(results, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
