"""Token buckets by gateway address."""

from __future__ import annotations

from ipaddress import ip_address

from agent.protocol.relay_limiter import AddressLimiter, Bucket

A, B, C = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))


def test_bucket_gives_its_burst_and_then_its_rate():
    bucket = Bucket(3, 0)
    assert [bucket.take(2, 3, 0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(2, 3, 0.4)
    assert bucket.take(2, 3, 0.5)
    assert [bucket.take(2, 3, 100) for _ in range(4)] == [True, True, True, False]


def test_clock_that_goes_back_gives_nothing():
    bucket = Bucket(0, 10)
    assert not bucket.take(1, 5, 0)
    assert bucket.tokens == 0


def test_addresses_do_not_share():
    limiter = AddressLimiter(1, 1, 10)
    assert [limiter.allow(address, 0) for address in (A, A, B)] == [True, False, True]


def test_hosts_of_one_ipv6_subnet_share():
    limiter = AddressLimiter(1, 1, 10)
    neighbours = [ip_address(text) for text in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
    assert [limiter.allow(address, 0) for address in neighbours] == [True, False, True]


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    limiter = AddressLimiter(1, 1, 2)
    assert [limiter.allow(address, 0) for address in (A, B, A, C)] == [True, True, False, True]
    assert len(limiter) == 2
    assert not limiter.allow(A, 0)
    assert limiter.allow(B, 0)
