"""Native joins against a model of the kernel's socket memberships (RFC 3376 §3, limits as Linux has them)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dataplane import joins as joins_module
from agent.dataplane import joins_pool
from agent.dataplane.joins import NativeJoins
from agent.protocol.channels import NOTHING, Address, Family, Filter, FilterMode, merge_filters

GROUPS = [ip_address(f"232.1.1.{number}") for number in range(1, 6)]
SOURCES = [ip_address(f"10.0.0.{number}") for number in range(1, 9)]
GROUP_LIMIT, SOURCE_LIMIT = 3, 2


class Kernel:
    """Sockets and what they joined; refuses as Linux does."""

    def __init__(self) -> None:
        self.sockets: list[ModelSocket] = []
        self.after_each: Callable[[], None] = lambda: None
        self.interfaces = {"native": 7}

    def merged(self, group: Address, interface: int = 7) -> Filter:
        return merge_filters(
            held[interface, group] for held in (one.held for one in self.sockets) if (interface, group) in held
        )


class ModelSocket:
    kernel: Kernel

    def __init__(self, family: Family) -> None:
        self.family = family
        self.held: dict[tuple[int, Address], Filter] = {}
        self.kernel.sockets.append(self)

    def join(self, interface: int, group: Address) -> None:
        self._new((interface, group))
        self._store((interface, group), Filter.exclude())

    def leave(self, interface: int, group: Address) -> None:
        if (interface, group) not in self.held:
            raise OSError(errno.EADDRNOTAVAIL, "not joined")
        self._store((interface, group), NOTHING)

    def join_source(self, interface: int, group: Address, source: Address) -> None:
        held = self.held.get((interface, group))
        if held is None:
            self._new((interface, group))
            held = NOTHING
        elif held.mode is FilterMode.EXCLUDE or source in held.sources:
            raise OSError(errno.EINVAL, "other mode")
        if len(held.sources) >= SOURCE_LIMIT:
            raise OSError(errno.ENOBUFS, "too many sources")
        self._store((interface, group), Filter.include(held.sources | {source}))

    def leave_source(self, interface: int, group: Address, source: Address) -> None:
        self._store((interface, group), Filter.include(self.held[interface, group].sources - {source}))

    def block(self, interface: int, group: Address, source: Address) -> None:
        held = self.held[interface, group]
        assert held.mode is FilterMode.EXCLUDE
        if len(held.sources) >= SOURCE_LIMIT:
            raise OSError(errno.ENOBUFS, "too many sources")
        self._store((interface, group), Filter.exclude(held.sources | {source}))

    def unblock(self, interface: int, group: Address, source: Address) -> None:
        held = self.held[interface, group]
        assert source in held.sources
        self._store((interface, group), Filter.exclude(held.sources - {source}))

    def close(self) -> None:
        self.kernel.sockets.remove(self)
        self.kernel.after_each()

    def _new(self, key: tuple[int, Address]) -> None:
        if key[0] not in self.kernel.interfaces.values():
            raise OSError(errno.ENODEV, "no interface")
        if key in self.held:
            raise OSError(errno.EADDRINUSE, "joined already")
        if len(self.held) >= GROUP_LIMIT:
            raise OSError(errno.ENOBUFS, "too many groups")

    def _store(self, key: tuple[int, Address], value: Filter) -> None:
        if value.wants_nothing:
            del self.held[key]
        else:
            self.held[key] = value
        self.kernel.after_each()


def install(patch: pytest.MonkeyPatch) -> Kernel:
    """Let the joins under test speak to a model."""
    made = Kernel()
    patch.setattr(ModelSocket, "kernel", made, raising=False)
    patch.setattr(joins_pool, "GroupSocket", ModelSocket)
    patch.setattr(joins_pool, "membership_limits", lambda _: (GROUP_LIMIT, SOURCE_LIMIT))
    patch.setattr(joins_module, "_interface_index", lambda name: made.interfaces.get(name, 0))
    return made


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return install(monkeypatch)


filters = st.builds(
    lambda exclude, sources: Filter.exclude(sources) if exclude else Filter.include(sources),
    st.booleans(),
    st.sets(st.sampled_from(SOURCES)),
)


def covers(joined: Filter, wanted: Filter) -> bool:
    """Whether the joined filter is the wanted one, but for exclusions a socket has no room for."""
    if wanted.mode is FilterMode.INCLUDE or len(wanted.sources) <= SOURCE_LIMIT:
        return joined == wanted
    return joined.mode is FilterMode.EXCLUDE and joined.sources < wanted.sources and len(joined.sources) == SOURCE_LIMIT


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(GROUPS), filters), max_size=30))
def test_the_kernel_always_has_what_is_wanted_and_stays_wanted(changes: list[tuple[Address, Filter]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kernel = install(patch)
        joins = NativeJoins(max_sockets=100)
        wanted: dict[Address, Filter] = {}
        for group, change in changes:
            before = wanted.get(group, NOTHING)
            stay = [source for source in SOURCES if before.admits(source) and change.admits(source)]

            def check(group: Address = group, stay: list[Address] = stay) -> None:
                joined = kernel.merged(group)
                assert all(joined.admits(source) for source in stay)

            kernel.after_each = check
            joins.set_filter("native", group, change)
            wanted[group] = change
            for each, expected in wanted.items():
                assert covers(kernel.merged(each), expected)
        assert joins.failures == {}
        assert joins.sockets == len(kernel.sockets)
        kernel.after_each = lambda: None
        for group in GROUPS:
            joins.set_filter("native", group, NOTHING)
        assert joins.sockets == 0
        assert kernel.sockets == []


def test_a_new_index_moves_every_join(kernel: Kernel) -> None:
    joins = NativeJoins(max_sockets=100)
    for group in GROUPS:
        joins.set_filter("native", group, Filter.include(SOURCES[:3]))
    kernel.interfaces.clear()
    joins.interface_changed("native")
    assert set(joins.failures) == {("native", group) for group in GROUPS}
    assert joins.sockets == 0
    kernel.interfaces["native"] = 8
    joins.interface_changed("other")
    assert joins.failures
    joins.interface_changed("native")
    assert joins.failures == {}
    assert all(kernel.merged(group, 8) == Filter.include(SOURCES[:3]) for group in GROUPS)


def test_the_same_index_disturbs_nothing(kernel: Kernel) -> None:
    joins = NativeJoins(max_sockets=100)
    joins.set_filter("native", GROUPS[0], Filter.exclude())

    def touched() -> None:
        raise AssertionError("a join was touched")

    kernel.after_each = touched
    joins.interface_changed("native")
    joins.set_filter("native", GROUPS[0], Filter.exclude())


def test_a_missing_interface_is_waited_for(kernel: Kernel) -> None:
    told: list[OSError] = []
    joins = NativeJoins(max_sockets=100, on_failure=lambda _name, _group, error: told.append(error))
    joins.set_filter("later", GROUPS[0], Filter.exclude())
    joins.retry()
    assert [error.errno for error in told] == [errno.ENODEV]
    joins.set_filter("later", GROUPS[1], Filter.exclude())
    joins.set_filter("later", GROUPS[1], NOTHING)
    assert list(joins.failures) == [("later", GROUPS[0])]
    kernel.interfaces["later"] = 9
    joins.retry()
    assert joins.failures == {}
    assert kernel.merged(GROUPS[0], 9) == Filter.exclude()
    assert kernel.merged(GROUPS[1], 9) == NOTHING
