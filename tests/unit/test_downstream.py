"""What a listener tells the tree when there is room, and when there is none."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from agent.protocol.channels import NOTHING, Family, Filter
from agent.protocol.policy import Policy, PolicyConfig
from agent.protocol.querier import InterestChanged, QuerierConfig
from agent.protocol.upstream import TunnelUpstream
from agent.service import downstream
from agent.service.admission import AdmissionControl
from agent.service.downstream import Listener
from agent.tree import InterestKind, Owner, Tree

GROUP, SSM = ip_address("239.1.1.1"), ip_address("232.1.1.1")
ONE, TWO = ip_address("198.51.100.1"), ip_address("198.51.100.2")
OWNER = Owner(InterestKind.IGMP, "lan0")


@pytest.fixture
async def setting(monkeypatch):
    link = SimpleNamespace(reopen=lambda: True, send=lambda _: True, close=lambda: None)
    monkeypatch.setattr(downstream, "RawLink", lambda *_: link)
    loop, tree = asyncio.get_running_loop(), Tree(lambda _: TunnelUpstream(("relay",)))
    room = SimpleNamespace(is_there=True)
    policy = Policy(PolicyConfig(), room=lambda _: room.is_there)
    admission = AdmissionControl(tree, policy, loop.time, lambda: None)
    listener = Listener(loop, "lan0", Family.IPV4, QuerierConfig(), admission)

    def hear(wanted, group=GROUP):
        monkeypatch.setattr(listener.querier, "events", lambda: [InterestChanged(group, wanted)])
        listener._driver.flush()
        monkeypatch.undo()
        return tree.interest(OWNER, group)

    yield SimpleNamespace(tree=tree, room=room, admission=admission, listener=listener, hear=hear)
    listener.close()


async def test_an_interest_without_room_is_taken_up_once_there_is(setting):
    setting.room.is_there = False
    assert setting.hear(Filter.include([ONE])) == NOTHING
    assert [channel.group for channel, _, _ in setting.admission.refused()] == [GROUP]
    setting.room.is_there = True
    setting.admission.retry()
    assert setting.tree.interest(OWNER, GROUP) == Filter.include([ONE])
    assert list(setting.admission.refused()) == []


@pytest.mark.parametrize(
    ("before", "wanted", "kept"),
    [
        (Filter.include([ONE]), Filter.include([TWO]), NOTHING),
        (Filter.include([ONE]), Filter.include([ONE, TWO]), Filter.include([ONE])),
        (Filter.include([ONE, TWO]), Filter.exclude([TWO]), Filter.include([ONE])),
        (Filter.exclude(), Filter.include([ONE]), NOTHING),
    ],
)
async def test_what_is_not_wanted_any_more_gives_its_room_back(setting, before, wanted, kept):
    setting.hear(before)
    setting.room.is_there = False
    assert setting.hear(wanted) == kept


async def test_a_leave_needs_no_room(setting):
    setting.hear(Filter.include([ONE]))
    setting.room.is_there = False
    assert setting.hear(NOTHING) == NOTHING
    assert list(setting.admission.refused()) == []


async def test_a_closed_listener_withdraws_what_was_wanted_on_its_interface_only(setting):
    other = Owner(InterestKind.IGMP, "lan1")
    setting.hear(Filter.include([ONE]))
    setting.tree.set_interest(other, GROUP, Filter.include([TWO]))
    setting.listener.close()
    assert setting.tree.owners(GROUP) == {other: Filter.include([TWO])}
