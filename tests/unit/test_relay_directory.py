"""The directory opens, asks, watches and closes tunnels as the selection says."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.dataplane.engine import Traffic
from agent.protocol.channels import Channel
from agent.protocol.discovery import Answer, DiscoveryMethod, Outcome, RelayLocation
from agent.protocol.gateway_events import LostReason, RelayLost, StateChanged
from agent.protocol.gateway_state import State
from agent.protocol.upstream import TunnelUpstream
from agent.service import relay_directory
from agent.service.config import parse
from agent.service.port_store import PortStore

CHANNEL = Channel.parse("10.0.0.1", "232.1.1.1")
OTHER = Channel.parse("10.0.0.1", "232.1.1.2")
ELSEWHERE = Channel.parse("10.0.0.9", "232.1.1.1")

BASE = """
role = "gateway"
[gateway]
downstream = "lan0"
"""
TWO = BASE + '[[gateway.relay]]\naddress = "192.0.2.1"\n[[gateway.relay]]\naddress = "192.0.2.2"\n'
FOUND = BASE + '[discovery]\nmethods = "driad"\nrelay_limit = 2\nidle_time = 60.0\n'


class Timer:
    def __init__(self, due, run):
        self.due, self.run, self.is_cancelled = due, run, False

    def cancel(self):
        self.is_cancelled = True


class Loop:
    """A loop without IO whose time moves when a test says so."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback, *arguments):
        self.soon.append(lambda: callback(*arguments))

    def call_at(self, when, callback, *arguments):
        self.timers.append(Timer(when, lambda: callback(*arguments)))
        return self.timers[-1]

    def turn(self):
        while self.soon:
            self.soon.pop(0)()

    def advance(self, seconds):
        self.turn()
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.due <= end and not timer.is_cancelled]:
            first = min(due, key=lambda timer: timer.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.run()
            self.turn()
        self.now = end


class Machine:
    def __init__(self, relay):
        self.state = State.IDLE
        self.relay = relay


class Tunnel:
    """Does nothing, and remembers it."""

    def __init__(self, loop, settings, engine, ports, on_event):
        if str(settings.gateway.address) == "203.0.113.66":
            raise OSError("no such family")
        self.settings = settings
        self.machine = Machine(settings.gateway.endpoint)
        self.on_event = on_event
        self.has_groups = False
        self.asked = (frozenset(), None)
        self.probes = self.refreshed = 0
        self.is_probed = True
        self.signal = None
        self.closed = None

    @property
    def name(self):
        return self.settings.name

    def ask(self, families, probe_timeout):
        self.asked = (families, probe_timeout)

    def probe(self):
        self.probes += 1
        return self.is_probed

    def refresh(self):
        self.refreshed += 1

    def close(self, *, farewell=True):
        self.closed = farewell

    def become(self, state):
        old, self.machine.state = self.machine.state, state
        self.on_event(self, StateChanged(old, state))

    def lose(self):
        self.on_event(self, RelayLost(self.machine.relay, LostReason.REQUEST_UNANSWERED))
        self.become(State.DISCOVERING)


class Engine:
    def __init__(self):
        self.tunnels = {}
        self.feeds = {}

    def tunnel_traffic(self):
        return {name: Traffic(packets, 0) for name, packets in self.tunnels.items()}

    def feed_traffic(self, channel):
        return self.feeds.get(channel, {})


class Discovery:
    is_enabled = True

    def __init__(self):
        self.known = {}
        self.looked_up = []
        self.released = []

    def lookup(self, source):
        self.looked_up.append(source)
        return self.known.get(source)

    def release(self, source):
        self.released.append(source)

    def answer(self, source, *addresses):
        locations = tuple(
            RelayLocation(ip_address(address), DiscoveryMethod.DRIAD, preference=number)
            for number, address in enumerate(addresses)
        )
        self.known[source] = Answer(source, locations, Outcome.FOUND, 1e9)


class Bench:
    """A directory on a loop whose time stands still."""

    def __init__(self, text, tmp_path):
        self.loop = Loop()
        self.engine = Engine()
        self.discovery = Discovery()
        self.told = set()
        ports = PortStore(tmp_path / "ports.json")
        self.directory = relay_directory.RelayDirectory(
            self.loop, parse(text), self.engine, ports, self.told.update, self.discovery
        )
        self.directory.start()
        self.turn()

    def turn(self):
        self.loop.turn()

    def tunnel(self, name):
        return self.directory.tunnels[name]

    def establish(self, *names):
        for name in names:
            self.tunnel(name).become(State.ESTABLISHED)
        self.turn()

    def told_groups(self):
        told = set(self.told)
        self.told.clear()
        return told


@pytest.fixture
def make_bench(monkeypatch, tmp_path):
    monkeypatch.setattr(relay_directory, "Tunnel", Tunnel)
    return lambda text: Bench(text, tmp_path)


def upstream(*names):
    return TunnelUpstream(names)


# Relays of the configuration ------------------------------------------------------------------------------------------


def test_every_relay_of_the_file_is_opened_and_kept_asked(make_bench):
    bench = make_bench(TWO)
    assert list(bench.directory.tunnels) == ["192.0.2.1", "192.0.2.2"]
    assert all(tunnel.asked[0] and tunnel.asked[1] == 0.5 for tunnel in bench.directory.tunnels.values())


def test_one_relay_is_silent_until_something_is_wanted(make_bench):
    bench = make_bench(BASE + '[[gateway.relay]]\naddress = "192.0.2.1"\n')
    assert bench.tunnel("192.0.2.1").asked == (frozenset(), None)


def test_a_lost_relay_has_its_channels_asked_of_the_next_and_others_probed(make_bench, caplog):
    caplog.set_level("INFO")
    bench = make_bench(TWO)
    bench.establish("192.0.2.1", "192.0.2.2")
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.1")
    bench.turn()
    bench.told.clear()
    bench.tunnel("192.0.2.1").lose()
    bench.turn()
    assert bench.told_groups() == {CHANNEL.group}
    assert bench.tunnel("192.0.2.2").probes == 1
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.2")
    assert "from=192.0.2.1 to=192.0.2.2 reason=request_unanswered" in caplog.text
    view = bench.directory.view("192.0.2.1")
    assert (view.origin, view.reason, view.held_until) == ("configured", "request_unanswered", bench.loop.now + 120)


def test_after_its_hold_down_a_relay_is_tried_and_has_its_channels_back(make_bench):
    bench = make_bench(TWO)
    bench.establish("192.0.2.1", "192.0.2.2")
    bench.directory.select(CHANNEL)
    bench.tunnel("192.0.2.1").lose()
    bench.turn()
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.2")
    bench.loop.advance(121)
    assert bench.tunnel("192.0.2.1").refreshed == 1
    bench.establish("192.0.2.1")
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.2")
    bench.told.clear()
    bench.loop.advance(31)
    assert bench.told_groups() == {CHANNEL.group}
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.1")


def test_a_tunnel_that_fell_silent_is_probed(make_bench):
    bench = make_bench(TWO)
    bench.establish("192.0.2.1", "192.0.2.2")
    bench.tunnel("192.0.2.1").has_groups = True
    for count in range(20):
        bench.engine.tunnels["192.0.2.1"] = count
        bench.loop.advance(0.5)
    assert bench.tunnel("192.0.2.1").probes == 0
    bench.loop.advance(3.0)
    assert bench.tunnel("192.0.2.1").probes == 1


def test_a_probe_that_could_not_be_sent_is_tried_again(make_bench):
    bench = make_bench(TWO)
    bench.establish("192.0.2.1", "192.0.2.2")
    tunnel = bench.tunnel("192.0.2.1")
    tunnel.has_groups, tunnel.is_probed = True, False
    for count in range(3):
        bench.engine.tunnels["192.0.2.1"] = count
        bench.loop.advance(0.5)
    bench.loop.advance(3.0)
    assert tunnel.probes > 1
    tunnel.probes, tunnel.is_probed = 0, True
    bench.loop.advance(2.0)
    assert tunnel.probes == 1


def test_a_channel_that_stopped_alone_goes_to_the_next_relay(make_bench):
    bench = make_bench(TWO + "[failover]\nchannel_silence = 4.0\n")
    bench.establish("192.0.2.1", "192.0.2.2")
    bench.tunnel("192.0.2.1").has_groups = True
    for channel in (CHANNEL, ELSEWHERE):
        bench.directory.select(channel)
    for count in range(40):
        bench.engine.tunnels["192.0.2.1"] = count
        bench.engine.feeds[CHANNEL] = {"192.0.2.1": min(count, 10)}
        bench.engine.feeds[ELSEWHERE] = {"192.0.2.1": count}
        bench.loop.advance(0.5)
    assert bench.directory.select(CHANNEL) == upstream("192.0.2.2")
    assert bench.directory.select(ELSEWHERE) == upstream("192.0.2.1")


def test_a_reload_keeps_tunnels_whose_settings_did_not_change(make_bench):
    bench = make_bench(TWO)
    bench.establish("192.0.2.1", "192.0.2.2")
    first, second = bench.directory.tunnels.values()
    closing = []
    bench.directory.on_closing = closing.append
    bench.directory.reconfigure(parse(TWO.replace('"192.0.2.1"', '"192.0.2.1"\nstrict_data_port = false')))
    assert closing == ["192.0.2.1"]
    assert first.closed
    assert bench.tunnel("192.0.2.1") is not first
    assert bench.tunnel("192.0.2.2") is second
    assert list(bench.directory.tunnels) == ["192.0.2.1", "192.0.2.2"]


def test_several_tunnels_to_a_relay_are_opened_by_number(make_bench):
    bench = make_bench(BASE + '[[gateway.relay]]\naddress = "192.0.2.1"\ntunnels = 3\n')
    assert list(bench.directory.tunnels) == ["192.0.2.1", "192.0.2.1#2", "192.0.2.1#3"]


def test_everything_is_closed_with_or_without_farewell(make_bench):
    bench = make_bench(TWO)
    tunnels = list(bench.directory.tunnels.values())
    bench.directory.close(farewell=False)
    assert [tunnel.closed for tunnel in tunnels] == [False, False]


# Discovered relays ----------------------------------------------------------------------------------------------------


def test_a_source_waits_for_its_relays_and_is_told_when_they_are_found(make_bench):
    bench = make_bench(FOUND)
    assert bench.directory.select(CHANNEL) is None
    bench.discovery.answer(CHANNEL.source, "203.0.113.1")
    bench.directory.answered(CHANNEL.source)
    bench.turn()
    assert bench.told_groups() == {CHANNEL.group}
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.1")
    assert bench.directory.view("203.0.113.1").origin == "driad"
    (candidate,) = bench.directory.candidates(CHANNEL)
    assert (candidate.name, candidate.used, candidate.established) == ("203.0.113.1", True, False)


def test_the_next_discovered_relay_is_asked_when_the_first_is_late(make_bench):
    bench = make_bench(FOUND)
    bench.discovery.answer(CHANNEL.source, "203.0.113.1", "203.0.113.2")
    bench.directory.select(CHANNEL)
    bench.turn()
    assert list(bench.directory.tunnels) == ["203.0.113.1"]
    bench.tunnel("203.0.113.1").become(State.DISCOVERING)
    bench.loop.advance(0.3)
    assert list(bench.directory.tunnels) == ["203.0.113.1", "203.0.113.2"]
    bench.establish("203.0.113.2")
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.2")


def test_a_relay_that_cannot_be_used_is_passed_over(make_bench):
    bench = make_bench(FOUND)
    bench.discovery.answer(CHANNEL.source, "203.0.113.66", "203.0.113.2")
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.2")
    assert bench.directory.counters["refused_unusable"] == 1


def test_discovered_relays_are_bounded(make_bench):
    bench = make_bench(FOUND)
    for number in range(1, 10):
        source = ip_address(f"10.0.0.{number}")
        bench.discovery.answer(source, f"203.0.113.{number}")
        bench.directory.select(Channel(source, CHANNEL.group))
    bench.turn()
    assert len(bench.directory.tunnels) == 2
    assert bench.directory.counters["refused_relay_limit"] >= 7


def test_a_discovered_relay_nothing_comes_through_is_let_go_after_a_while(make_bench):
    bench = make_bench(FOUND)
    bench.discovery.answer(CHANNEL.source, "203.0.113.1")
    bench.directory.select(CHANNEL)
    tunnel = bench.tunnel("203.0.113.1")
    for _ in range(70):
        bench.loop.advance(1.0)
        bench.directory.sampled(lambda _channel: False)
        bench.turn()
    assert bench.directory.tunnels == {}
    assert tunnel.closed
    assert bench.discovery.released == [CHANNEL.source]
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.1")


def test_a_relay_in_use_stays_and_its_source_stays_looked_up(make_bench):
    bench = make_bench(FOUND)
    bench.discovery.answer(CHANNEL.source, "203.0.113.1")
    bench.directory.select(CHANNEL)
    bench.tunnel("203.0.113.1").has_groups = True
    bench.discovery.looked_up.clear()
    for _ in range(70):
        bench.loop.advance(1.0)
        bench.directory.sampled(lambda _channel: True)
    assert list(bench.directory.tunnels) == ["203.0.113.1"]
    assert bench.discovery.looked_up


def test_a_dns_answer_does_not_disturb_a_healthy_tunnel(make_bench):
    bench = make_bench(FOUND)
    bench.discovery.answer(CHANNEL.source, "203.0.113.1")
    bench.directory.select(CHANNEL)
    bench.establish("203.0.113.1")
    bench.discovery.answer(CHANNEL.source, "203.0.113.2")
    bench.directory.answered(CHANNEL.source)
    bench.turn()
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.1")
    assert bench.directory.select(OTHER) == upstream("203.0.113.2")


def test_without_methods_what_was_discovered_is_left(make_bench):
    bench = make_bench(TWO + '[discovery]\nmethods = "driad"\n')
    bench.directory.reconfigure(parse(FOUND))
    bench.discovery.answer(CHANNEL.source, "203.0.113.1")
    assert bench.directory.select(CHANNEL) == upstream("203.0.113.1")
    bench.discovery.is_enabled = False
    bench.directory.reconfigure(parse(TWO))
    assert list(bench.directory.tunnels) == ["192.0.2.1", "192.0.2.2"]
