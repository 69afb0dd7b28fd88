"""From the [policy] section to the rules and limits of the policy."""

from __future__ import annotations

from agent.protocol.policy import PolicyConfig, Rule
from agent.service.config import Configuration, PolicyAction


def policy_config(configuration: Configuration) -> PolicyConfig:
    """Rules and limits; the agent's limit on channels in all is the owner's to check."""
    section = configuration.policy
    return PolicyConfig(
        rules=tuple(
            Rule(rule.action is PolicyAction.ALLOW, rule.source, rule.group, rule.neighbor, rule.interface)
            for rule in section.rule
        ),
        allow_by_default=section.default is PolicyAction.ALLOW,
        joins_per_second=section.joins_per_second,
        join_burst=section.join_burst,
        channels_per_neighbor=section.channels_per_neighbor,
        bandwidth=section.bandwidth,
    )
