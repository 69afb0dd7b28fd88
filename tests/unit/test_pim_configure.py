"""Another configuration while PIM runs: neighbours and what they joined stay."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from scripted.pim_peer import (
    HIGHER,
    LOWER,
    OURS,
    beside_neighbors,
    group,
    hear,
    interface,
    join,
    listed,
    messages,
    plain,
    router,
    rpt,
    run,
    shared,
    source,
    star,
    tell,
    wanted,
)

from agent.protocol.channels import NOTHING, Channel, Filter
from agent.protocol.pim import PimConfig
from agent.protocol.pim_events import DesignatedRouterChanged
from agent.protocol.wire.pim import Hello, JoinPrune

SG = Channel(source(1), group(1))
CONFIG = PimConfig(rendezvous_groups=(ip_network("239.0.0.0/8"),))


def test_neighbours_hear_at_once_and_keep_what_they_joined():
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG), now=1)
    assert wanted(machine) == {SG.group: Filter.include([SG.source])}
    machine.configure(replace(CONFIG, hello_interval=10.0, dr_priority=7), 20)
    hello = messages(machine, Hello)[0]
    assert (hello.holdtime, hello.dr_priority) == (35, 7)
    assert wanted(machine) == {}
    assert [view.channel for view in machine.channels()] == [SG]
    said = [when for when, packet in run(machine, 50) if isinstance(packet.message, Hello)]
    assert said == [30, 40, 50]


def test_the_generation_stays_so_that_nobody_takes_it_for_a_restart():
    machine = beside_neighbors(LOWER)
    machine.configure(replace(CONFIG, propagation_delay=0.1), 20)
    before = messages(machine, Hello)[0].generation_id
    machine.configure(CONFIG, 21)
    assert messages(machine, Hello)[0].generation_id == before


def test_another_priority_elects_anew():
    machine = beside_neighbors(HIGHER)
    machine.configure(replace(CONFIG, dr_priority=2), 1)
    assert tell(machine, DesignatedRouterChanged) == [DesignatedRouterChanged(router(OURS), is_ours=True)]


def test_nothing_is_said_before_the_first_hello_or_without_an_address():
    machine = interface(random=0.5)
    machine.configure(replace(CONFIG, hello_interval=10.0), 1)
    assert machine.packets_to_send() == []
    assert [when for when, _ in run(machine, 12)] == [2.5, 12]
    machine.set_address(None, (), 13)
    machine.packets_to_send()
    machine.configure(CONFIG, 14)
    assert machine.packets_to_send() == []


def test_groups_we_are_the_rp_of_no_longer_end_and_others_stay():
    machine = beside_neighbors(LOWER)
    one = listed(shared(1), joins=(star(router(OURS)), plain(source(2))), prunes=(rpt(source(3)),))
    hear(machine, JoinPrune(router(OURS), 100, (one,)), now=1)
    hear(machine, join(SG), now=1)
    assert wanted(machine)[shared(1)] == Filter.exclude([source(3)])
    machine.configure(replace(CONFIG, rendezvous_groups=(ip_network("239.2.0.0/16"),)), 2)
    assert wanted(machine) == {shared(1): Filter.include([source(2)])}
    machine.configure(CONFIG, 3)
    hear(machine, join(Channel(None, shared(1))), now=4)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    machine.configure(replace(CONFIG, rendezvous_groups=()), 5)
    hear(machine, join(SG), now=6)
    assert wanted(machine) == {shared(1): Filter.include([source(2)])}
    assert NOTHING not in wanted(machine).values()


def test_our_own_joins_keep_their_round_and_take_the_other_period_from_then_on():
    machine = beside_neighbors(LOWER)
    machine.join_upstream(SG, router(LOWER), 1)
    assert len(messages(machine, JoinPrune)) == 1
    machine.configure(replace(CONFIG, join_prune_interval=10.0, hello_interval=1000.0), 2)
    machine.packets_to_send()
    said = [(when, packet.message) for when, packet in run(machine, 85) if isinstance(packet.message, JoinPrune)]
    assert [(when, message.holdtime) for when, message in said] == [(61, 35), (71, 35), (81, 35)]
