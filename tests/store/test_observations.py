"""What a poll saw becomes rows: ids stay, rates appear, what vanished goes, and nothing unknown becomes zero."""

from __future__ import annotations

from sqlalchemy import event, func, select
from store_seeds import NOW, add_ad, add_relay, channel, later, neighbor, observed, tunnel

from relaymgr.domain.observed import Statistics
from relaymgr.store import observations
from relaymgr.store.observations import AdCache, Poll
from relaymgr.store.tables import Ad, ChannelRow, Event, PimNeighborRow, Relay, StatisticsSample, TunnelRow


async def replace(database, relay_id, observation, seconds=0):
    async with database.begin() as session:
        await observations.replace(session, relay_id, observation, later(seconds))


async def fail(database, relay_id, reason, seconds, *, unreachable=True):
    poll = Poll(relay_id, later(seconds), later(seconds + 1), None, reason, unreachable)
    async with database.begin() as session:
        await observations.write(session, [poll], AdCache())


async def rows(database, table, order=None):
    async with database.session() as session:
        return (await session.scalars(select(table).order_by(order if order is not None else table.id))).all()


async def test_tunnels_keep_their_ids_and_the_vanished_go(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(tunnel("203.0.113.1"), tunnel("203.0.113.2"), tunnel("203.0.113.3")))
    first = {row.gateway_address: row.id for row in await rows(database, TunnelRow)}
    await replace(database, relay, observed(tunnel("203.0.113.3"), tunnel("203.0.113.1"), tunnel("203.0.113.4")), 30)
    second = {row.gateway_address: row for row in await rows(database, TunnelRow)}
    assert set(second) == {"203.0.113.1", "203.0.113.3", "203.0.113.4"}
    assert {name: second[name].id for name in ("203.0.113.1", "203.0.113.3")} == {
        name: first[name] for name in ("203.0.113.1", "203.0.113.3")
    }
    assert {row.seen_at for row in second.values()} == {later(30)}
    assert second["203.0.113.1"].first_seen_at == NOW
    assert second["203.0.113.4"].first_seen_at == later(30)


async def test_one_gateway_with_two_ports_is_two_tunnels(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(tunnel("203.0.113.1", 1), tunnel("203.0.113.1", 2)))
    assert [row.gateway_port for row in await rows(database, TunnelRow)] == [1, 2]


async def test_a_gateway_told_twice_is_one_tunnel(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(tunnel("203.0.113.1", packets=1), tunnel("203.0.113.1", packets=2)))
    assert [row.packets for row in await rows(database, TunnelRow)] == [2]


async def test_rates_come_from_two_polls(database):
    relay = await add_relay(database, "r1")
    rates = []
    for seconds, packets in ((0, 1000), (30, 4000), (60, 4000), (90, 10), (120, 310), (150, None)):
        await replace(database, relay, observed(tunnel("203.0.113.1", packets=packets)), seconds)
        rates.append((await rows(database, TunnelRow))[0].packets_per_second)
    assert rates == [None, 100.0, 0.0, None, 10.0, None]


async def test_no_rate_over_a_tunnel_that_began_anew(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(tunnel("203.0.113.1", packets=10, uptime_seconds=500)))
    await replace(database, relay, observed(tunnel("203.0.113.1", packets=900, uptime_seconds=5)), 30)
    assert (await rows(database, TunnelRow))[0].packets_per_second is None


async def test_rates_of_channels_are_the_devices_own_where_it_tells(database):
    relay = await add_relay(database, "r1")
    for seconds, packets, octets in ((0, 0, 0), (10, 100, 125_000)):
        told = channel("232.1.1.1", "198.51.100.1", packets=packets, bytes=octets, packets_per_second=7.5)
        ours = channel("232.1.1.2", "198.51.100.1", packets=packets, bytes=octets)
        await replace(database, relay, observed(channels=[told, ours]), seconds)
    found = {row.group_address: row for row in await rows(database, ChannelRow)}
    assert found["232.1.1.1"].packets_per_second == 7.5
    assert found["232.1.1.2"].packets_per_second == 10.0
    assert found["232.1.1.2"].kilobits_per_second == 100.0


async def test_channels_and_neighbors_keep_their_ids(database):
    relay = await add_relay(database, "r1")
    seen = observed(
        channels=[
            channel("232.1.1.1", "198.51.100.1", downstream_interfaces=("ud-0/0/0.1",)),
            channel("239.1.1.1", None),
        ],
        neighbors=[neighbor("192.0.2.1", uptime_seconds=5)],
    )
    await replace(database, relay, seen)
    before = [row.id for row in [*await rows(database, ChannelRow), *await rows(database, PimNeighborRow)]]
    await replace(database, relay, seen, 30)
    assert [row.id for row in [*await rows(database, ChannelRow), *await rows(database, PimNeighborRow)]] == before
    assert (await rows(database, ChannelRow))[0].downstream_interfaces == ["ud-0/0/0.1"]
    assert {row.source_address for row in await rows(database, ChannelRow)} == {"198.51.100.1", None}


async def test_unchanged_rows_are_only_touched(database):
    relay = await add_relay(database, "r1")
    seen = observed(*(tunnel(f"203.0.113.{host}") for host in range(1, 101)))
    await replace(database, relay, seen)
    await replace(database, relay, seen, 30)  # packets_per_second stays None: no counters
    statements = []
    event.listen(
        database._writing.sync_engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, _context, many: statements.append(
            (statement.split()[0:2], len(parameters) if many else 1)
        ),
    )
    await replace(database, relay, seen, 60)
    assert [entry for entry in statements if entry[0] == ["UPDATE", "tunnels"]] == [(["UPDATE", "tunnels"], 1)]
    assert {row.seen_at for row in await rows(database, TunnelRow)} == {later(60)}


async def test_a_missing_part_keeps_what_was_known_and_says_why(database):
    relay = await add_relay(database, "r1")
    known = observed(
        tunnel("203.0.113.1"), channels=[channel("232.1.1.1", None)], statistics=Statistics(active_tunnels=1)
    )
    await replace(database, relay, known)
    missing = {"tunnels": "the reply was cut short", "statistics": "not asked"}
    await replace(database, relay, observed(missing=missing), 30)
    assert len(await rows(database, TunnelRow)) == 1
    assert await rows(database, ChannelRow) == []
    [row] = await rows(database, Relay)
    assert row.stale == missing
    assert (row.reachability, row.active_tunnels, row.active_channels) == ("reachable", 1, 0)
    assert row.polled_at == later(30)


async def test_what_nobody_told_is_unknown_not_zero(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(missing=dict.fromkeys(observations.PARTS, "no")))
    [row] = await rows(database, Relay)
    assert (row.active_tunnels, row.active_channels) == (None, None)
    await replace(database, relay, observed(tunnel("203.0.113.1")), 30)
    [found] = await rows(database, TunnelRow)
    assert (found.packets, found.channels, found.uptime_seconds, found.packets_per_second) == (None,) * 4


async def test_polls_do_not_touch_the_version_of_a_relay(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(tunnel("203.0.113.1")))
    [row] = await rows(database, Relay)
    assert (row.version, row.updated_at) == (1, NOW)


async def test_gateways_are_matched_to_ads_and_again_when_ads_change(database):
    wide = await add_ad(database, "wide", ["203.0.113.0/24"])
    narrow = await add_ad(database, "narrow", ["203.0.113.128/25", "2001:db8::/32"])
    relay = await add_relay(database, "r1")
    seen = observed(tunnel("203.0.113.1"), tunnel("203.0.113.200"), tunnel("2001:db8::1"), tunnel("198.51.100.1"))
    cache = AdCache()
    async with database.begin() as session:
        await observations.write(session, [Poll(relay, NOW, NOW, seen)], cache)
    assert [row.ad_id for row in await rows(database, TunnelRow)] == [wide, narrow, narrow, None]
    async with database.begin() as session:
        ad = await session.get(Ad, narrow)
        ad.prefixes, ad.version = ["198.51.100.0/24"], 2
    async with database.begin() as session:
        await observations.write(session, [Poll(relay, later(30), later(30), seen)], cache)
    assert [row.ad_id for row in await rows(database, TunnelRow)] == [wide, wide, None, narrow]


async def test_reachability_is_told_once_a_transition(database):
    ad = await add_ad(database, "a")
    relay = await add_relay(database, "r1", ad_id=ad)
    await replace(database, relay, observed())
    await fail(database, relay, "no route to host", 30)
    await fail(database, relay, "no route to host", 60)
    [row] = await rows(database, Relay)
    assert (row.reachability, row.reachability_reason) == ("unreachable", "no route to host")
    assert row.stale == dict.fromkeys(observations.PARTS, "no route to host")
    assert row.polled_at == NOW
    await replace(database, relay, observed(), 90)
    await replace(database, relay, observed(), 120)
    [row] = await rows(database, Relay)
    assert (row.reachability, row.reachability_reason, row.stale) == ("reachable", None, {})
    assert [(told.kind, told.severity, told.ad_id, told.at) for told in await rows(database, Event)] == [
        ("relay.unreachable", "critical", ad, later(31)),
        ("relay.reachable", "info", ad, later(90)),
    ]


async def test_a_busy_device_gets_stale_not_unreachable(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed())
    await fail(database, relay, "a change is under way", 30, unreachable=False)
    [row] = await rows(database, Relay)
    assert row.reachability == "reachable"
    assert row.stale["tunnels"] == "a change is under way"
    assert await rows(database, Event) == []


async def test_nearing_the_tunnel_limit_is_told_once(database):
    relay = await add_relay(database, "r1")
    for seconds, active in enumerate((10, 89, 90, 95, 50, 100)):
        await replace(
            database, relay, observed(statistics=Statistics(active_tunnels=active, tunnel_limit=100)), seconds * 30
        )
    assert [(told.kind, told.at) for told in await rows(database, Event)] == [
        ("relay.tunnel_limit_near", later(60)),
        ("relay.tunnel_limit_near", later(150)),
    ]


async def test_a_lost_neighbor_is_told(database):
    relay = await add_relay(database, "r1")
    await replace(database, relay, observed(neighbors=[neighbor("192.0.2.1"), neighbor("192.0.2.2")]))
    await replace(database, relay, observed(neighbors=[neighbor("192.0.2.2")]), 30)
    [told] = await rows(database, Event)
    assert (told.kind, told.data) == ("pim.neighbor_lost", {"address": "192.0.2.1", "interface": "ge-0/0/0.0"})


async def test_statistics_become_samples(database):
    relay = await add_relay(database, "r1")
    told = Statistics(active_tunnels=3, counters={"requests_received": 2**40}, errors={"invalid_mac": 0})
    await replace(database, relay, observed(statistics=told))
    await replace(database, relay, observed(statistics=told), 60)
    samples = await rows(database, StatisticsSample)
    assert [sample.at for sample in samples] == [NOW, later(60)]
    assert samples[0].counters == {"requests_received": 2**40}
    assert (samples[0].active_tunnels, samples[0].tunnel_limit) == (3, None)


async def test_numbers_and_texts_a_device_may_send(database):
    relay = await add_relay(database, "r1")
    seen = observed(
        tunnel("203.0.113.1", packets=2**63 - 1, bytes=2**64 - 1, vendor_state="up\0date", interface="ü" * 300)
    )
    await replace(database, relay, seen)
    [row] = await rows(database, TunnelRow)
    assert (row.packets, row.bytes, row.vendor_state) == (2**63 - 1, None, "up\N{REPLACEMENT CHARACTER}date")


async def test_polls_of_many_relays_in_one_transaction_and_of_a_deleted_one(database):
    relays = [await add_relay(database, f"r{number}") for number in range(5)]
    polls = [
        Poll(relay, NOW, later(1), observed(*(tunnel(f"203.0.113.{host}") for host in range(1, 21))))
        for relay in [*relays, "0" * 32]
    ]
    async with database.begin() as session:
        await observations.write(session, polls, AdCache())
    async with database.session() as session:
        counted = await session.execute(
            select(TunnelRow.relay_id, func.count()).group_by(TunnelRow.relay_id).order_by(TunnelRow.relay_id)
        )
        assert [tuple(row) for row in counted] == [(relay, 20) for relay in relays]
    assert {row.poll_seconds for row in await rows(database, Relay)} == {1.0}
