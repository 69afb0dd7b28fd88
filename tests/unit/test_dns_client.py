"""The DNS as discovery asks it: a scripted server on loopback."""

import asyncio
import contextlib
from collections import Counter
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rrset
import pytest
from scripted.dns_peer import dns_peer, raw_reply, reply, zone

from agent.net.dns import DnsClient, absolute_name, host_domain
from agent.protocol.discovery_reply import Alias, Question, QuestionType, ReplyStatus, Service
from agent.protocol.driad import RelayRecord

NAME = "7.100.51.198.in-addr.arpa."
QUESTION = Question(NAME, QuestionType.AMTRELAY)
RELAY = RelayRecord(10, False, ip_address("192.0.2.1"))
GOOD = bytes.fromhex("0a01c0000201")


@contextlib.asynccontextmanager
async def client_of(script, **settings):
    async with dns_peer(script) as peer:
        client = DnsClient(asyncio.get_running_loop(), peer.settings(**settings), Counter())
        try:
            yield client, peer
        finally:
            await client.close()


async def ask(script, question=QUESTION, **settings):
    async with client_of(script, **settings) as (client, _):
        return await client.ask(question)


def relay_reply(query, *_):
    return reply(query, f"{NAME} 300 AMTRELAY 10 0 1 192.0.2.1").to_wire()


async def test_an_answer_tells_records_lifetime_server_and_transport():
    async with client_of(relay_reply) as (client, peer):
        found = await client.ask(QUESTION)
        assert (found.status, found.records, found.lifetime) == (ReplyStatus.ANSWERED, (RELAY,), 300.0)
        assert (str(found.server), found.transport) == (f"127.0.0.1:{peer.port}", "udp")


@pytest.mark.parametrize("says", [True, False])
async def test_whether_the_server_says_that_dnssec_proves_it_is_told(says):
    def script(query, _):
        assert query.flags & dns.flags.AD
        record = f"{NAME} 300 AMTRELAY 10 0 1 192.0.2.1"
        return reply(query, record, flags=dns.flags.AD if says else 0).to_wire()

    assert (await ask(script)).is_validated is says


async def test_an_answer_is_asked_for_once_while_it_counts():
    async with client_of(relay_reply) as (client, peer):
        first = await client.ask(QUESTION)
        second = await client.ask(QUESTION)
        assert second.is_remembered
        assert not first.is_remembered
        assert second.records == first.records
        assert second.lifetime <= first.lifetime
        assert peer.asked == {f"{NAME} AMTRELAY udp": 1}


async def test_who_asks_at_once_shares_one_question():
    async with client_of(relay_reply) as (client, peer):
        replies = await asyncio.gather(*(client.ask(QUESTION) for _ in range(50)))
        assert len(set(replies)) == 1
        assert sum(peer.asked.values()) == 1


async def test_who_gives_up_does_not_take_the_answer_from_others():
    async with client_of(relay_reply) as (client, _):
        impatient = asyncio.create_task(client.ask(QUESTION))
        patient = asyncio.create_task(client.ask(QUESTION))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).records == (RELAY,)


async def test_a_truncated_reply_is_asked_for_over_tcp():
    def script(query, transport):
        if transport == "udp":
            return reply(query, flags=dns.flags.TC).to_wire()
        return relay_reply(query)

    async with client_of(script) as (client, peer):
        found = await client.ask(QUESTION)
        assert (found.records, found.transport) == ((RELAY,), "tcp")
        assert peer.asked == {f"{NAME} AMTRELAY udp": 1, f"{NAME} AMTRELAY tcp": 1}


async def test_a_reply_of_hundreds_of_records_is_cut_to_what_is_sensible():
    def script(query, transport):
        if transport == "udp":
            return reply(query, flags=dns.flags.TC).to_wire()
        return raw_reply(query, *(b"\x0a\x01\xc0\x00" + number.to_bytes(2) for number in range(300)))

    found = await ask(script)
    assert len(found.records) == 64
    assert "too_many_records" in found.refused


async def test_a_reply_larger_than_is_read_fails():
    def script(query, transport):
        if transport == "udp":
            return reply(query, flags=dns.flags.TC).to_wire()
        return raw_reply(query, *([GOOD * 200] * 30))

    found = await ask(script)
    assert found.status is ReplyStatus.FAILED
    assert "more than" in found.detail


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda good: (int.from_bytes(good[:2]) ^ 1).to_bytes(2) + good[2:], id="another number"),
        pytest.param(lambda good: good[:2] + bytes([good[2] & 0x7F]) + good[3:], id="a question"),
        pytest.param(lambda good: good[:13] + b"8" + good[14:], id="another name"),
        pytest.param(lambda good: good[:5], id="a beginning"),
        pytest.param(lambda good: b"\xff" * len(good), id="garbage"),
    ],
)
async def test_what_does_not_answer_the_question_is_dropped(forge):
    def script(query, _):
        good = relay_reply(query)
        return [forge(good), good]

    found = await ask(script)
    assert found.records == (RELAY,)
    assert found.refused == ("mismatched_reply",)


async def test_somebody_who_guesses_on_is_not_listened_to_for_ever():
    def script(query, _):
        good = relay_reply(query)
        return [b"\x00" * 12] * 64 + [good]

    found = await ask(script)
    assert found.status is ReplyStatus.FAILED
    assert "too many replies" in found.detail


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
async def test_a_server_that_cannot_say_is_a_failure(rcode):
    found = await ask(lambda query, _: reply(query, rcode=rcode).to_wire())
    assert found.status is ReplyStatus.FAILED
    assert found.detail.endswith(f": {rcode}")
    assert found.lifetime == 5.0


async def test_silence_is_a_failure():
    found = await ask(lambda *_: None, timeout=0.1)
    assert found.status is ReplyStatus.FAILED
    assert found.detail.endswith("no reply in time")


async def test_nobody_listening_is_a_failure_at_once():
    async with client_of(relay_reply) as (client, peer):
        port = peer.port
    client = DnsClient(asyncio.get_running_loop(), peer.settings(port=port, timeout=30.0), Counter())
    async with asyncio.timeout(10):
        found = await client.ask(QUESTION)
    assert found.status is ReplyStatus.FAILED
    assert "refused" in found.detail


async def test_the_second_server_is_asked_when_the_first_fails():
    servers = (ip_address("127.0.0.2"), ip_address("127.0.0.1"))
    found = await ask(relay_reply, servers=servers)
    assert found.records == (RELAY,)
    assert str(found.server).startswith("127.0.0.1:")


@pytest.mark.parametrize("cut", [1, 5, 20])
async def test_a_reply_cut_short_is_a_failure(cut):
    found = await ask(lambda query, _: relay_reply(query)[:-cut])
    assert found.status is ReplyStatus.FAILED
    assert "damaged_reply" in found.refused


async def test_bytes_behind_a_reply_are_a_failure():
    assert (await ask(lambda query, _: relay_reply(query) + b"x")).status is ReplyStatus.FAILED


async def test_a_server_over_tcp_that_hangs_up_is_a_failure():
    def script(query, transport):
        return reply(query, flags=dns.flags.TC).to_wire() if transport == "udp" else None

    found = await ask(script)
    assert found.status is ReplyStatus.FAILED
    assert "connection closed" in found.detail


async def test_failures_in_a_row_are_remembered_longer_each_time():
    async with client_of(lambda query, _: reply(query, rcode="SERVFAIL").to_wire()) as (client, _):
        lifetimes = []
        for _ in range(5):
            lifetimes.append((await client.ask(QUESTION)).lifetime)
            client._known._values[QUESTION] = (client._known.expired(QUESTION), 0.0)  # its time is over
        assert lifetimes == [5.0, 10.0, 20.0, 40.0, 60.0]


async def test_no_such_name_counts_as_the_soa_record_says():
    found = await ask(zone({}, soa="51.198.in-addr.arpa."))
    assert (found.status, found.lifetime) == (ReplyStatus.NO_NAME, 40.0)


async def test_no_such_record_counts_as_the_soa_record_says():
    found = await ask(zone({(NAME, "PTR"): []}, soa="51.198.in-addr.arpa."))
    assert (found.status, found.lifetime) == (ReplyStatus.NO_DATA, 40.0)


@pytest.mark.parametrize("soa", [None, "elsewhere.example."])
async def test_no_such_name_without_a_soa_record_that_fits_counts_as_configured(soa):
    found = await ask(lambda query, _: reply(query, rcode="NXDOMAIN", soa=soa).to_wire())
    assert (found.status, found.lifetime) == (ReplyStatus.NO_NAME, 60.0)


async def test_aliases_within_a_reply_are_followed():
    def script(query, _):
        return reply(
            query,
            "100.51.198.in-addr.arpa. 200 DNAME rev.example.",
            f"{NAME} 0 CNAME 7.rev.example.",  # as old servers make it, RFC 6672 §3.1
            "7.rev.example. 100 CNAME relays.example.",
            "relays.example. 300 AMTRELAY 10 0 1 192.0.2.1",
        ).to_wire()

    found = await ask(script)
    assert found.records == (RELAY,)
    assert found.lifetime == 100.0
    assert found.aliases == (
        Alias("100.51.198.in-addr.arpa.", "DNAME", "rev.example.", 200),
        Alias("7.rev.example.", "CNAME", "relays.example.", 100),
    )


async def test_a_dname_record_alone_is_followed():
    records = {
        (NAME, "AMTRELAY"): ["100.51.198.in-addr.arpa. 200 DNAME rev.example."],
        ("7.rev.example.", "AMTRELAY"): ["7.rev.example. 300 AMTRELAY 10 0 1 192.0.2.1"],
    }
    found = await ask(zone(records))
    assert (found.records, found.lifetime) == ((RELAY,), 200.0)


async def test_aliases_out_of_a_reply_are_asked_for():
    records = {
        (NAME, "AMTRELAY"): [f"{NAME} 300 CNAME a.example."],
        ("a.example.", "AMTRELAY"): ["a.example. 50 CNAME b.example."],
        ("b.example.", "AMTRELAY"): ["b.example. 300 AMTRELAY 10 0 1 192.0.2.1"],
    }
    async with client_of(zone(records)) as (client, peer):
        found = await client.ask(QUESTION)
        assert found.records == (RELAY,)
        assert found.lifetime == 50.0
        assert [alias.target for alias in found.aliases] == ["a.example.", "b.example."]
        assert sum(peer.asked.values()) == 3


async def test_an_alias_into_nothing_is_no_such_name():
    found = await ask(zone({(NAME, "AMTRELAY"): [f"{NAME} 30 CNAME a.example."]}))
    assert (found.status, found.lifetime) == (ReplyStatus.NO_NAME, 30.0)
    assert len(found.aliases) == 1


@pytest.mark.parametrize("within", [True, False])
async def test_aliases_in_a_circle_are_a_failure(within):
    here, there = f"{NAME} 300 CNAME a.example.", f"a.example. 300 CNAME {NAME}"

    def script(query, _):
        if within:
            return reply(query, here, there).to_wire()
        return reply(query, here if query.question[0].name.to_text() == NAME else there).to_wire()

    found = await ask(script)
    assert found.status is ReplyStatus.FAILED
    assert "circle" in found.detail


async def test_a_dname_record_that_makes_too_long_a_name_is_a_failure():
    long = ".".join(["x" * 63] * 3) + ".example."
    name = "y" * 60 + ".a.example."
    script = zone({(name, "AMTRELAY"): [f"a.example. 300 DNAME {long}"]})
    assert (await ask(script, Question(name, QuestionType.AMTRELAY))).status is ReplyStatus.FAILED


async def test_damaged_records_are_passed_over_and_counted():
    damaged = [b"", b"\x0a", b"\x0a\x01\xc0\x00", GOOD + b"x", b"\x0a\x04zzzz", b"\x0a\x03\xc0\x0c"]
    async with client_of(lambda query, _: raw_reply(query, *damaged, GOOD)) as (client, _):
        found = await client.ask(QUESTION)
        assert found.records == (RELAY,)
        assert Counter(found.refused) == {"record_truncated": 3, "record_malformed": 2, "record_unknown_type": 1}
        assert client.counters["record_truncated"] == 3


async def test_damaged_addresses_are_passed_over():
    def script(query, _):
        return raw_reply(query, b"\xc0\x00\x02\x01", b"\xc0\x00", b"\xc0" * 16, kind=1)

    found = await ask(script, Question("relay.example.", QuestionType.A))
    assert found.records == (ip_address("192.0.2.1"),)
    assert len(found.refused) == 2


async def test_services_and_names_are_read():
    records = {
        ("_amt._udp.example.", "PTR"): ["_amt._udp.example. 300 PTR first._amt._udp.example."],
        ("first._amt._udp.example.", "SRV"): ["first._amt._udp.example. 300 SRV 1 2 2268 relay.example."],
    }
    async with client_of(zone(records)) as (client, _):
        browsed = await client.ask(Question("_amt._udp.example.", QuestionType.PTR))
        assert browsed.records == ("first._amt._udp.example.",)
        service = await client.ask(Question("first._amt._udp.example.", QuestionType.SRV))
        assert service.records == (Service(1, 2, 2268, "relay.example."),)


async def test_a_name_that_is_none_is_a_failure():
    found = await ask(relay_reply, Question("a" * 64 + ".example.", QuestionType.A))
    assert found.status is ReplyStatus.FAILED


async def test_a_tenth_of_the_rate_is_sent_in_a_tenth_of_a_second():
    """RFC 8777 §2.4.2: no more than 10 queries in any 100 ms, unless configured otherwise."""
    sent = []

    def script(query, _):
        sent.append(asyncio.get_running_loop().time())
        return reply(query, rcode="NXDOMAIN").to_wire()

    async with client_of(script, queries_per_second=100, timeout=5.0) as (client, _):
        await asyncio.gather(*(client.ask(Question(f"{number}.example.", QuestionType.A)) for number in range(25)))
        assert len(client._sent) <= 10
    assert len(sent) == 25
    assert sent[-1] - sent[0] >= 0.15


async def test_without_a_server_every_question_fails(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("search example.net\n")
    async with dns_peer(relay_reply) as peer:
        loop = asyncio.get_running_loop()
        client = DnsClient(loop, peer.settings(servers=()), Counter(), resolv_conf=str(path))
        assert (await client.ask(QUESTION)).detail == "no DNS server is configured"


async def test_the_system_s_servers_are_asked_by_default(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.5\nnameserver ::1\n")
    async with dns_peer(relay_reply) as peer:
        loop = asyncio.get_running_loop()
        client = DnsClient(loop, peer.settings(servers=()), Counter(), resolv_conf=str(path))
        assert [(server.address, server.port) for server in client._servers([])] == [("127.0.0.5", 53), ("::1", 53)]


def test_the_host_s_domain_is_the_first_it_searches(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\nsearch example.net example.org\n")
    assert host_domain(str(path)) == "example.net."
    path.write_text("nameserver 127.0.0.1\ndomain example.org\n")
    assert host_domain(str(path)) == "example.org."
    assert host_domain(str(tmp_path / "none")) is None


def test_names_become_absolute():
    assert absolute_name("example.net") == absolute_name("example.net.") == "example.net."
    assert absolute_name("a..b") is None


async def test_closing_ends_what_is_being_asked():
    async with client_of(lambda *_: None, timeout=30.0) as (client, peer):
        waiting = asyncio.create_task(client.ask(QUESTION))
        while not peer.asked:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
