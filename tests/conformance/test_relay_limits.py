"""AMT relay, the L and G flags and limits (RFC 7450 §5.1.4, §6.1)."""

from __future__ import annotations

from ipaddress import ip_address

from scripted.relay_peer import (
    GATEWAY,
    NONCE,
    SOURCE,
    ask,
    inner_families,
    join,
    open_tunnel,
    outer_families,
    query_of,
    refusals,
    relay,
    update,
)

from agent.protocol.channels import Endpoint, Family
from agent.protocol.wire import amt
from agent.protocol.wire.groups import (
    GroupRecord,
    RecordType,
    Report,
)

# --- L flag and limits


def test_limit_is_told_to_new_gateways_only() -> None:
    """RFC 7450 §5.1.4.4, §5.3.3.3: L to whom has no tunnel; existing tunnels go on."""
    machine = relay(tunnel_limit=1)
    open_tunnel(machine, GATEWAY[Family.IPV4])
    assert machine.is_full
    assert not query_of(machine, GATEWAY[Family.IPV4], nonce=5).limit
    assert query_of(machine, GATEWAY[Family.IPV6]).limit


def test_update_beyond_the_limit_opens_nothing() -> None:
    """RFC 7450 §5.3.3.4: an Update of a new endpoint is refused at the limit; the others are not disturbed."""
    machine = relay(tunnel_limit=1)
    early = query_of(machine, GATEWAY[Family.IPV6])
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    machine.events()
    ask(machine, update(early, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV6], 1)
    assert [view.tunnel for view in machine.tunnels()] == [GATEWAY[Family.IPV4]]
    assert machine.events() == []
    assert refusals(machine) == 1
    ask(machine, update(query, join(Family.IPV6), Family.IPV6), GATEWAY[Family.IPV4], 2)
    assert len(machine.tunnels()[0].groups) == 2


def test_draining_turns_new_gateways_away() -> None:
    """RFC 7450 §5.1.4.4: L may be set for any reason; drained tunnels live on."""
    machine = relay()
    open_tunnel(machine, GATEWAY[Family.IPV4])
    early = query_of(machine, GATEWAY[Family.IPV6])
    machine.drain(enabled=True, now=1)
    assert query_of(machine, GATEWAY[Family.IPV6], now=1).limit
    assert not query_of(machine, GATEWAY[Family.IPV4], now=1).limit
    ask(machine, update(early, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV6], 2)
    assert [view.tunnel for view in machine.tunnels()] == [GATEWAY[Family.IPV4]]
    machine.drain(enabled=False, now=3)
    assert not query_of(machine, GATEWAY[Family.IPV6], now=3).limit


def test_channels_of_a_tunnel_are_limited() -> None:
    """RFC 7450 §6.1: an authenticated gateway must not exhaust the relay either."""
    machine = relay(channels_per_tunnel=10)
    query = query_of(machine, GATEWAY[Family.IPV4])
    for number in range(1, 100):
        record = GroupRecord(RecordType.ALLOW_NEW_SOURCES, ip_address(f"232.0.1.{number}"), (SOURCE[Family.IPV4],))
        ask(machine, update(query, Report((record,)), Family.IPV4), GATEWAY[Family.IPV4])
    (view,) = machine.tunnels()
    assert len(view.groups) == 10
    assert refusals(machine) >= 89


def test_requests_of_one_address_are_limited_and_others_are_not_starved() -> None:
    """RFC 7450 §6.1: a flood gets a bounded number of answers."""
    machine = relay(requests_per_second=10, request_burst=20)
    flood = sum(
        len(ask(machine, amt.Request(number + 1), Endpoint(GATEWAY[Family.IPV4].address, 1024 + number), number / 1000))
        for number in range(1000)
    )
    assert 20 <= flood <= 31
    assert refusals(machine) == 1000 - flood
    assert len(ask(machine, amt.Request(1), Endpoint(ip_address("192.0.2.11"), 1), 1)) == 1


def test_kernel_gateway_is_never_limited() -> None:
    """The kernel's gateway asks about every 2 s, for both families, whatever QQIC says."""
    machine = relay()
    open_tunnel(machine, GATEWAY[Family.IPV4])
    for second in range(0, 600, 2):
        for kernel_mld in (False, True):
            message = amt.Request(NONCE + second, kernel_mld=kernel_mld)
            assert len(ask(machine, message, GATEWAY[Family.IPV4], second)) == 1


# --- G flag


@outer_families
@inner_families
def test_gateway_address_is_told_when_configured(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.1.4.5, §5.1.4.9."""
    machine = relay(gateway_address_in_query=True)
    message = query_of(machine, GATEWAY[outer], mld=inner is Family.IPV6)
    assert message.gateway == (GATEWAY[outer].address, GATEWAY[outer].port)
