"""The longest prefix wins, against a naive reading of that sentence."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.domain.ad_matching import AdMatcher


def naive(prefixes, address):
    """Every prefix looked at."""
    holding = [(ip_network(prefix, strict=False), ad) for prefix, ad in prefixes]
    holding = [(network, ad) for network, ad in holding if network.version == address.version and address in network]
    if not holding:
        return None
    longest = max(network.prefixlen for network, _ in holding)
    return min(ad for network, ad in holding if network.prefixlen == longest)


@st.composite
def prefixes_v4(draw):
    # A few high bits only, so that prefixes nest, touch and repeat.
    length = draw(st.sampled_from([0, 1, 2, 3, 8, 24, 30, 31, 32]))
    address = draw(st.integers(0, 7)) << 29 | draw(st.sampled_from([0, 1, 2, 255, 2**29 - 1]))
    return str(ip_network((address, length), strict=False))


@st.composite
def prefixes_v6(draw):
    length = draw(st.sampled_from([0, 1, 3, 32, 64, 127, 128]))
    address = draw(st.integers(0, 7)) << 125 | draw(st.sampled_from([0, 1, 2**125 - 1]))
    return str(ip_network((address, length), strict=False))


claims = st.lists(st.tuples(st.one_of(prefixes_v4(), prefixes_v6()), st.sampled_from("abcd")), max_size=20)


@given(claims, st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1))
def test_agrees_with_looking_at_every_prefix(prefixes, v4, v6):
    matcher = AdMatcher(prefixes)
    places = [IPv4Address(v4), *([] if v6 >> 32 == 0xFFFF else [IPv6Address(v6)])]
    for prefix, _ in prefixes:
        network = ip_network(prefix)
        for edge in (int(network.network_address), int(network.broadcast_address)):
            kind = IPv4Address if network.version == 4 else IPv6Address
            places += [kind(place) for place in (edge - 1, edge, edge + 1) if 0 <= place < 2**network.max_prefixlen]
    for place in places:
        if isinstance(place, IPv6Address) and place.ipv4_mapped is not None:
            continue
        assert matcher.match(place) == naive(prefixes, place), place


@given(claims, st.randoms(use_true_random=False))
def test_the_order_of_prefixes_does_not_matter(prefixes, generator):
    shuffled = list(prefixes)
    generator.shuffle(shuffled)
    one, other = AdMatcher(prefixes), AdMatcher(shuffled)
    assert one.duplicates == other.duplicates
    for prefix, _ in prefixes:
        place = ip_network(prefix).network_address
        assert one.match(place) == other.match(place)


def test_duplicates_are_named_and_the_smallest_id_wins():
    matcher = AdMatcher([("192.0.2.0/24", "b"), ("192.0.2.0/24", "a"), ("192.0.2.7/24", "c"), ("2001:db8::/32", "b")])
    [duplicate] = matcher.duplicates
    assert (str(duplicate.network), duplicate.winner, duplicate.losers) == ("192.0.2.0/24", "a", ("b", "c"))
    assert matcher.match(ip_address("192.0.2.1")) == "a"


def test_an_ad_that_repeats_itself_is_no_duplicate():
    assert AdMatcher([("192.0.2.0/24", "a"), ("192.0.2.0/24", "a")]).duplicates == ()


def test_ipv4_written_as_ipv6():
    matcher = AdMatcher([("192.0.2.0/24", "a"), ("::/0", "b")])
    assert matcher.match(ip_address("::ffff:192.0.2.1")) == "a"
    assert matcher.match(ip_address("::ffff:198.51.100.1")) is None


def test_nothing_and_nonsense():
    assert AdMatcher([]).match(ip_address("192.0.2.1")) is None
    assert AdMatcher([]).match(ip_address("ffff::")) is None
    with pytest.raises(ValueError, match="planted"):
        AdMatcher([("planted", "a")])


def test_ten_thousand_prefixes():
    generator = random.Random(1)
    prefixes = [
        (str(ip_network((generator.getrandbits(32), generator.randint(8, 32)), strict=False)), f"ad{number % 97:02d}")
        for number in range(10_000)
    ]
    matcher = AdMatcher(prefixes)
    by_place = [IPv4Address(generator.getrandbits(32)) for _ in range(20)]
    assert [matcher.match(place) for place in by_place] == [naive(prefixes, place) for place in by_place]
    assert sum(matcher.match(IPv4Address(generator.getrandbits(32))) is not None for _ in range(100_000)) > 0
