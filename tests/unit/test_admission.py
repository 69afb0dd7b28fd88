"""Wishes are fulfilled as far as policy and limits allow."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.channels import NOTHING, Channel, Filter, FilterMode
from agent.protocol.policy import Policy, PolicyConfig, Refusal, Rule
from agent.service.admission import RETRIED_AT_ONCE, AdmissionControl
from agent.tree import InterestKind, Owner, Tree

GROUP = ip_address("232.1.1.1")
ANY = ip_address("239.1.1.1")
ONE, TWO, THREE = (ip_address(f"198.51.100.{number}") for number in (1, 2, 3))
HOSTS = Owner(InterestKind.IGMP, "eth1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    def __init__(self, config=None, **policy):
        self.tree = Tree(lambda _: None)
        self.clock = Clock()
        self.changes = 0
        self.control = AdmissionControl(self.tree, Policy(config or PolicyConfig(), **policy), self.clock, self.changed)

    def changed(self):
        self.changes += 1

    def wish(self, wanted, group=GROUP, owner=HOSTS):
        self.control.wish(owner, group, wanted)
        return self.tree.interest(owner, group)

    def reasons(self):
        return {channel.source: refusal for channel, _, refusal in self.control.refused()}


def test_a_wish_without_objection_is_fulfilled():
    desk = Desk()
    assert desk.wish(Filter.include((ONE, TWO))) == Filter.include((ONE, TWO))
    assert desk.wish(Filter.include((TWO,))) == Filter.include((TWO,))
    assert desk.wish(NOTHING) == NOTHING
    assert desk.changes == 3
    assert desk.control.policy._per_neighbor == {}


def test_denied_sources_are_left_out_and_shown_with_the_reason():
    desk = Desk(PolicyConfig((Rule(allow=False, sources=(ip_network("198.51.100.2/32"),)),)))
    assert desk.wish(Filter.include((ONE, TWO))) == Filter.include((ONE,))
    assert desk.reasons() == {TWO: Refusal.DENIED}
    assert desk.control.counts == {"policy_denied": 1}
    desk.control.retry()
    assert desk.control.counts == {"policy_denied": 1}
    desk.wish(NOTHING)
    assert desk.reasons() == {}


def test_what_there_was_no_room_for_is_taken_up_when_there_is():
    room = [True, False, False, True]
    desk = Desk(room=lambda _: room.pop(0))
    first, second = desk.wish(Filter.include((ONE, TWO))), desk.reasons()
    assert len(first.sources) == 1
    assert list(second.values()) == [Refusal.CHANNEL_LIMIT]
    desk.control.retry()
    assert len(desk.tree.interest(HOSTS, GROUP).sources) == 1
    desk.control.retry()
    assert desk.tree.interest(HOSTS, GROUP) == Filter.include((ONE, TWO))
    assert desk.reasons() == {}


def test_a_refused_any_source_wish_leaves_the_sources_carried_before():
    deny = Rule(allow=False, groups=(ip_network("239.0.0.0/8"),))
    allow = Rule(allow=True, sources=(ip_network("198.51.100.0/24"),))
    desk = Desk(PolicyConfig((allow, deny)))
    assert desk.wish(Filter.include((ONE, TWO)), ANY) == Filter.include((ONE, TWO))
    assert desk.wish(Filter.exclude((TWO,)), ANY) == Filter.include((ONE,))
    assert desk.reasons() == {None: Refusal.DENIED}


def test_an_any_source_wish_is_fulfilled_with_what_it_excludes():
    desk = Desk()
    assert desk.wish(Filter.exclude((TWO,)), ANY) == Filter.exclude((TWO,))
    assert desk.wish(Filter.exclude(), ANY) == Filter.exclude()


def test_sources_met_by_any_source_interest_obey_the_rules():
    desk = Desk(PolicyConfig((Rule(allow=False, sources=(ip_network("198.51.100.2/32"),)),)))
    desk.wish(Filter.exclude(), ANY)
    assert desk.control.permits_source(Channel(ONE, ANY))
    assert not desk.control.permits_source(Channel(TWO, ANY))
    assert not desk.control.permits_source(Channel(ONE, GROUP))


def test_sources_of_a_group_an_operator_joined_are_judged_by_no_rule():
    desk = Desk(PolicyConfig(allow_by_default=False))
    for kind in (InterestKind.STATIC, InterestKind.API):
        assert not desk.control.permits_source(Channel(ONE, ANY))
        desk.tree.set_interest(Owner(kind, "eth1"), ANY, Filter.exclude())
        assert desk.control.permits_source(Channel(ONE, ANY))
        desk.tree.set_interest(Owner(kind, "eth1"), ANY, NOTHING)


def many(count):
    return Filter.include(ONE + number for number in range(count))


def test_however_many_sources_of_a_group_wait_a_sample_looks_at_so_many():
    desk = Desk(room=lambda _: False)
    desk.wish(many(3000))
    seen = []
    desk.control.policy._room = lambda channel: seen.append(channel.source) or len(seen) > 3000
    for sample in range(1, 4):
        desk.control.retry()
        assert len(seen) == sample * RETRIED_AT_ONCE
    assert len(set(seen)) == 3000
    assert desk.control.counts == {"channel_limit": 3000}
    for _ in range(3):
        desk.control.retry()
    assert desk.tree.interest(HOSTS, GROUP) == many(3000)
    assert desk.reasons() == desk.control._waiting == {}


def test_another_source_costs_no_second_look_at_those_that_were_refused():
    asked = []
    desk = Desk(room=asked.append)
    desk.wish(many(100))
    desk.wish(many(101))
    assert len(asked) == 101
    assert desk.control.counts == {"channel_limit": 101}
    desk.wish(many(1))
    assert desk.reasons() == {ONE: Refusal.CHANNEL_LIMIT}


def test_an_any_source_wish_that_waited_takes_the_place_of_the_sources_carried_meanwhile():
    room = [True, False, False, True]
    desk = Desk(room=lambda _: room.pop(0))
    desk.wish(Filter.include((ONE,)), ANY)
    assert desk.wish(Filter.exclude((TWO,)), ANY) == Filter.include((ONE,))
    desk.control.retry()
    desk.control.retry()
    assert desk.tree.interest(HOSTS, ANY) == Filter.exclude((TWO,))
    assert desk.control.policy.count == 1
    assert desk.reasons() == desk.control._waiting == {}


def test_new_rules_reach_all_that_was_refused_sample_by_sample():
    desk = Desk(PolicyConfig(allow_by_default=False))
    desk.wish(many(2500))
    desk.control.reconfigure(Policy(PolicyConfig()))
    assert len(desk.tree.interest(HOSTS, GROUP).sources) == RETRIED_AT_ONCE
    desk.control.retry()
    desk.control.retry()
    assert desk.tree.interest(HOSTS, GROUP) == many(2500)


def test_new_limits_begin_with_what_is_measured():
    desk = Desk(PolicyConfig(bandwidth=1e6))
    desk.control.policy.measured = 3e6
    desk.control.reconfigure(Policy(PolicyConfig(bandwidth=2e6)))
    desk.wish(Filter.include((ONE,)))
    assert desk.reasons() == {ONE: Refusal.BANDWIDTH}


def test_a_channel_of_which_something_came_to_light_is_looked_at_alone():
    known = {}
    desk = Desk(PolicyConfig(bandwidth=1e6), expected=lambda channel: known.get(channel.source))
    desk.wish(Filter.include((ONE, TWO)))
    known[TWO] = 1e3
    desk.control.retry_channel(Channel(TWO, GROUP))
    assert desk.tree.interest(HOSTS, GROUP) == Filter.include((TWO,))
    desk.control.retry_channel(Channel(TWO, GROUP))
    desk.control.retry_channel(Channel(THREE, ANY))
    assert desk.reasons() == {ONE: Refusal.METADATA_PENDING}
    known[ONE] = 0.0
    desk.control.retry()
    assert desk.tree.interest(HOSTS, GROUP) == Filter.include((ONE, TWO))


def test_one_neighbour_that_may_not_have_a_channel_keeps_it_from_no_other():
    denied, allowed = ip_address("10.20.0.2"), ip_address("10.20.0.3")
    desk = Desk(PolicyConfig((Rule(allow=False, neighbors=(ip_network("10.20.0.2/32"),)),)))
    router = Owner(InterestKind.PIM, "eth1")
    last = [denied]
    desk.control.wish(router, GROUP, Filter.include((ONE,)), lambda _: last[0])
    assert list(desk.control.refused_to(Channel(ONE, GROUP))) == [(router, denied)]
    desk.control.retry()
    assert desk.tree.interest(router, GROUP) == NOTHING
    last[0] = allowed
    desk.control.retry()
    assert desk.tree.interest(router, GROUP) == Filter.include((ONE,))
    assert list(desk.control.refused_to(Channel(ONE, GROUP))) == []


def test_new_rules_end_what_they_deny_and_keep_the_rest_whatever_the_limits():
    desk = Desk()
    desk.wish(Filter.include((ONE, TWO, THREE)))
    rules = (Rule(allow=False, sources=(ip_network("198.51.100.2/32"),)),)
    desk.control.reconfigure(Policy(PolicyConfig(rules, joins_per_second=1.0, join_burst=1)))
    assert desk.tree.interest(HOSTS, GROUP) == Filter.include((ONE, THREE))
    assert desk.reasons() == {TWO: Refusal.DENIED}
    desk.control.reconfigure(Policy(PolicyConfig()))
    assert desk.tree.interest(HOSTS, GROUP) == Filter.include((ONE, TWO, THREE))


def test_an_owner_that_is_gone_takes_all_of_its_wishes_along():
    desk = Desk(PolicyConfig((Rule(allow=False, sources=(ip_network("198.51.100.2/32"),)),)))
    desk.wish(Filter.include((ONE, TWO)))
    desk.wish(Filter.include((TWO,)), ANY)
    desk.control.withdraw(HOSTS)
    assert list(desk.tree.groups()) == []
    assert desk.reasons() == {}


@given(
    st.lists(
        st.tuples(st.booleans(), st.frozensets(st.sampled_from((ONE, TWO, THREE))), st.integers(0, 3)), max_size=12
    )
)
def test_what_is_carried_is_wanted_and_what_is_held_is_given_back(steps):
    """Whatever is wished and however much room there is: never more than was asked for, nothing left at the end."""
    desk = Desk()
    for exclude, sources, room in steps:
        left = [room]
        desk.control.policy._room = lambda _, left=left: left[0] > 0 and not left.__setitem__(0, left[0] - 1)
        wanted = Filter.exclude(sources) if exclude else Filter.include(sources)
        got = desk.wish(wanted, ANY)
        if got.mode is FilterMode.EXCLUDE:
            assert got == wanted
        else:
            assert all(wanted.admits(source) for source in got.sources)
    desk.wish(NOTHING, ANY)
    assert desk.control._held == desk.control._refused == desk.control._waiting == {}
    assert desk.control.policy._holders == desk.control.policy._per_neighbor == {}
