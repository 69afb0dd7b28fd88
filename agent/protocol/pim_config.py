"""What a PIM interface machine is told; names and defaults of RFC 7761 §4.11. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Network


@dataclass(frozen=True, slots=True)
class PimConfig:
    """One interface and family.

    Attributes:
        hello_interval: Hello_Period.
        hello_holdtime: told to neighbours; None for 3.5 times the interval.
        triggered_hello_delay: upper bound of the random delay of a triggered Hello.
        dr_priority: of ours in the DR election (RFC 7761 §4.3.2).
        propagation_delay: J/P propagation delay told in the LAN Prune Delay option.
        override_interval: J/P override interval told in it.
        join_prune_interval: t_periodic of our own Joins upstream; their holdtime is 3.5 times it.
        assert_time: Assert_Time, after which a loser forwards again.
        assert_override_interval: Assert_Override_Interval, by which the winner repeats its Assert earlier.
        assert_preference: metric preference of ours in Asserts for channels out of tunnels; lower wins.
        assert_metric: metric of ours in them.
        max_neighbors: neighbours remembered.
        max_channels: (S,G), (*,G) and (S,G,rpt) states remembered.
        rendezvous_groups: group ranges we are the RP for; elsewhere (*,G) Joins are refused.
        forward_bootstrap: hand Bootstrap messages on to the other interfaces (RFC 5059 §3.4).
    """

    hello_interval: float = 30.0
    hello_holdtime: float | None = None
    triggered_hello_delay: float = 5.0
    dr_priority: int = 1
    propagation_delay: float = 0.5
    override_interval: float = 2.5
    join_prune_interval: float = 60.0
    assert_time: float = 180.0
    assert_override_interval: float = 3.0
    assert_preference: int = 200
    assert_metric: int = 0
    max_neighbors: int = 256
    max_channels: int = 1_000_000
    rendezvous_groups: tuple[Network, ...] = ()
    forward_bootstrap: bool = False
