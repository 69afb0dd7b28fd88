"""The [policy] section as the policy is told it."""

from ipaddress import ip_network

from agent.protocol.policy import PolicyConfig, Rule
from agent.service.config import parse
from agent.service.policy_settings import policy_config

GATEWAY = """
role = "gateway"
[gateway]
downstream = "eth1"
[[gateway.relay]]
address = "192.0.2.1"
"""
POLICY = """
[policy]
default = "deny"
joins_per_second = 50.0
join_burst = 20
channels_per_neighbor = 300
bandwidth = 1e9
[[policy.rule]]
action = "deny"
source = "198.51.100.0/24"
neighbor = ["10.20.0.2/32", "fe80::/10"]
[[policy.rule]]
action = "allow"
group = "232.0.0.0/8"
interface = "eth1"
"""


def test_without_a_section_everything_is_allowed():
    assert policy_config(parse(GATEWAY)) == PolicyConfig()


def test_rules_keep_their_order_and_all_of_their_keys():
    deny = Rule(
        allow=False,
        sources=(ip_network("198.51.100.0/24"),),
        neighbors=(ip_network("10.20.0.2/32"), ip_network("fe80::/10")),
    )
    allow = Rule(allow=True, groups=(ip_network("232.0.0.0/8"),), interfaces=("eth1",))
    assert policy_config(parse(GATEWAY + POLICY)) == PolicyConfig((deny, allow), False, 50.0, 20, 300, 1e9)
