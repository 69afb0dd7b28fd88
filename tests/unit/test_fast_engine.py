"""What is opened for the fast engine is closed when a later part cannot be had, in the opposite order."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from agent.dataplane.fast import loaded
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.net.bpf import BpfError, BpfUnavailableError
from agent.service import fast_engine
from agent.service.config import parse
from agent.service.fast_engine import FastEngine

TAP = SimpleNamespace(index=7, name="amt0", fd=-1)
BESIDE = ["Watchdog", "KeptRoutes"]
PARTS = ["LoadedPrograms", "KernelPorts", "KernelUplinks", "MulticastMirror", *BESIDE, "AcceleratedEngine"]


class World:
    """Stand-ins for everything the fast engine opens; one of them may refuse."""

    def __init__(self, monkeypatch, refuses=None):
        self.open = []
        self.closed = []
        for name in PARTS:
            monkeypatch.setattr(fast_engine, name, self._maker(name, refuses))

    def _maker(self, name, refuses):
        def make(*_arguments, **_options):
            if name == refuses:
                raise RuntimeError(name)
            self.open.append(name)
            close = self._close_all if name == "AcceleratedEngine" else lambda: self._close(name)
            return SimpleNamespace(close=close, send=None, gateway=None, redirected=dict, by_programs=dict)

        return make

    def _close_all(self):
        for name in [name for name in reversed(self.open) if name not in BESIDE]:
            self._close(name)

    def _close(self, name):
        self.open.remove(name)
        self.closed.append(name)


def build(choice="auto", mode="frr"):
    configuration = parse(
        f'role = "gateway"\n[gateway]\nmode = "{mode}"\ndownstream = "eth1"\n'
        f'[[gateway.relay]]\naddress = "192.0.2.1"\n[dataplane]\nengine = "{choice}"\n'
    )
    return FastEngine(None, configuration, TAP, "slow")


@pytest.mark.parametrize("refuses", PARTS[1:])
def test_all_that_was_opened_is_closed_when_a_part_is_refused(monkeypatch, refuses):
    world = World(monkeypatch, refuses)
    with pytest.raises(RuntimeError, match=refuses):
        build()
    assert world.open == []
    assert [name for name in world.closed if name not in BESIDE][-1] == "LoadedPrograms"


def test_the_rule_of_xdp_mfc_is_closed_too(monkeypatch):
    world = World(monkeypatch, "AcceleratedEngine")
    monkeypatch.setattr(fast_engine, "DontFragmentRule", world._maker("rule", None))
    with pytest.raises(RuntimeError):
        build("xdp-mfc", "router")
    assert world.open == []


def test_what_an_engine_stands_on_is_its_own_to_close(monkeypatch):
    world = World(monkeypatch)
    fast = build()
    assert world.closed == []
    assert fast.planes == (Plane.XDP, Plane.TC)
    fast.close()
    assert world.closed == ["Watchdog", "KeptRoutes"]
    fast.close()
    assert world.closed == BESIDE


def test_without_bpf_userspace_works_alone_and_the_reason_is_told(monkeypatch):
    World(monkeypatch)

    def refuse(*_):
        raise BpfUnavailableError("libbpf.so.1 is missing")

    monkeypatch.setattr(fast_engine, "LoadedPrograms", refuse)
    fast = build("xdp")
    assert (fast.engine, fast.planes, fast.uplinks(), fast.ports()) == ("slow", (), {}, {})
    assert "libbpf.so.1 is missing" in fast.reason
    (problem,) = fast.problems()
    assert (problem.code, "libbpf.so.1 is missing" in problem.message) == ("engine_not_usable", True)


@pytest.mark.parametrize("error", [BpfUnavailableError("no executable memory"), BpfError(errno.EMFILE, "no ring")])
def test_userspace_works_alone_when_events_of_loaded_programs_cannot_be_read(monkeypatch, error):
    world = World(monkeypatch)

    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr(fast_engine, "AcceleratedEngine", refuse)
    fast = build("xdp")
    assert (fast.engine, fast.planes, world.open) == ("slow", (), [])
    assert str(error) in fast.reason


@pytest.mark.parametrize("refuses", ["probe", "settings"])
def test_nothing_stays_loaded_when_a_part_cannot_be_had(monkeypatch, refuses):
    closed = []

    class Loaded:
        def __init__(self, name, **_options):
            if name == refuses:
                raise BpfUnavailableError(name)
            self.name = name

        def map(self, _name):
            return self

        def update(self, _key, _value):
            raise BpfError(errno.ENOMEM, "settings")

        def close(self):
            closed.append(self.name)

    monkeypatch.setattr(loaded, "load", Loaded)
    monkeypatch.setattr(loaded, "possible_cpus", lambda: 2)
    with pytest.raises((BpfUnavailableError, BpfError), match=refuses):
        LoadedPrograms(7, 0)
    assert closed == {"probe": ["gateway"], "settings": ["probe", "gateway"]}[refuses]
