"""What is remembered of native sources nobody wanted yet."""

from ipaddress import ip_address

from agent.protocol.channels import Channel
from agent.service.channel_ledger import (
    HEARD_KEPT,
    HEARD_TIME,
    ChannelLedger,
    HeardSources,
)

GROUP = ip_address("239.1.1.1")
ONE, TWO = (Channel(ip_address(f"198.51.100.{number}"), GROUP) for number in (1, 2))


def many(count):
    return [Channel(ip_address(0x0A000000 + number), GROUP) for number in range(count)]


def test_heard_sources_are_given_once_and_only_while_they_are_fresh():
    heard = HeardSources()
    heard.add(ONE, "lan0", 0.0)
    heard.add(TWO, "lan1", HEARD_TIME / 2)
    assert list(heard.take(GROUP, HEARD_TIME + 1)) == [(TWO, "lan1")]
    assert list(heard.take(GROUP, HEARD_TIME + 1)) == []


def test_a_source_heard_again_is_fresh_again_and_where_it_is_now():
    heard = HeardSources()
    heard.add(ONE, "lan0", 0.0)
    heard.add(ONE, "lan1", HEARD_TIME)
    assert list(heard.take(GROUP, HEARD_TIME + 1)) == [(ONE, "lan1")]


def test_heard_sources_are_bounded():
    heard = HeardSources()
    channels = many(HEARD_KEPT + 10)
    for channel in channels:
        heard.add(channel, "lan0", 0.0)
    assert [channel for channel, _ in heard.take(GROUP, 0.0)] == channels[10:]


def test_room_that_was_promised_is_taken_once_by_each_channel():
    ledger = ChannelLedger()
    one, two, three = many(3)
    assert ledger.promise([one, two], 2)
    assert ledger.promise([one], 2)
    assert not ledger.promise([three], 2)
    ledger.open(one, 0.0)
    assert not ledger.promise([three], 2)
    ledger.drop_promises()
    assert ledger.promise([three, one], 2)
    assert not ledger.promise([two], 2)
