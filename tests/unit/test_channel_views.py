"""Channels as the API shows them: those somebody wants in vain among them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace

from agent.protocol.channels import Channel, Filter
from agent.protocol.policy import Policy, PolicyConfig, Rule
from agent.service.admission import AdmissionControl
from agent.service.channel_ledger import ChannelLedger
from agent.service.channel_views import ChannelViews
from agent.tree import InterestKind, Owner, Tree

CHANNEL = Channel(ip_address("198.51.100.1"), ip_address("232.1.1.1"))
ROUTER = ip_address("10.20.0.2")


def test_who_asked_for_what_the_policy_does_not_give_is_shown():
    tree = Tree(lambda _: None)
    deny = Rule(allow=False, groups=(ip_network("232.0.0.0/8"),))
    admission = AdmissionControl(tree, Policy(PolicyConfig((deny,))), lambda: 0.0, lambda: None)
    wanted = Filter.include([CHANNEL.source])
    admission.wish(Owner(InterestKind.PIM, "eth1"), CHANNEL.group, wanted, lambda _: ROUTER)
    admission.wish(Owner(InterestKind.IGMP, "eth2"), CHANNEL.group, wanted)
    service = SimpleNamespace(asserts={}, links={})
    control = SimpleNamespace(ledger=ChannelLedger())
    role = SimpleNamespace(tree=tree, admission=admission, control=control, pim=SimpleNamespace(service=service))
    [row] = ChannelViews(role, SimpleNamespace()).rows()
    assert (row.reason, row.since, row.interest_count) == ("policy_denied", None, 2)
    assert {(each.kind.value, each.interface, each.neighbor) for each in row.interests} == {
        ("pim", "eth1", str(ROUTER)),
        ("igmp", "eth2", None),
    }
