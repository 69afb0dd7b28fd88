"""Bandwidth of channels as their sources publish it; the answers are synthetic."""

import asyncio
from ipaddress import ip_address

import httpx
import pytest

from agent.protocol.channels import Channel
from agent.service.channel_metadata import ChannelMetadata, MetadataError, bandwidth_in, restconf_root

CHANNEL = Channel(ip_address("198.51.100.7"), ip_address("232.1.1.1"))
CHANNEL_IPV6 = Channel(ip_address("2001:db8::7"), ip_address("ff3e::1"))
XRD = b'<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0"><Link rel="restconf" href="/top/restconf"/></XRD>'
SPEED = b'{"ietf-cbacc:cbacc": {"max-speed": 5000}}'


class Server:
    def __init__(self, **answers):
        self.answers = {"/.well-known/host-meta": (200, XRD)} | answers
        self.asked = []

    def __call__(self, request):
        path = request.url.raw_path.decode()
        self.asked.append(f"{request.url.host}:{request.url.port}{path}")
        status, body = self.answers.get(path, (404, b""))
        return httpx.Response(status, content=body)


class Answers:
    def __init__(self, server, servers=(("meta.example.net.", 8443),)):
        self.names = []
        self.known = asyncio.Event()
        self.servers = servers
        loop, transport = asyncio.get_running_loop(), httpx.MockTransport(server)
        self.metadata = ChannelMetadata(loop, self.find, lambda _: self.known.set(), transport)

    async def find(self, name):
        self.names.append(name)
        return self.servers

    async def expected(self, channel=CHANNEL):
        assert self.metadata.expected(channel) is None
        await asyncio.wait_for(self.known.wait(), 5)
        return self.metadata.expected(channel)


PATH = "/top/restconf/data/ietf-dorms:dorms/metadata/sender={}/group={}/ietf-cbacc:cbacc"
OLD_PATH = "/top/restconf/data/ietf-dorms:metadata/sender={}/group={}/ietf-cbacc:cbacc"


async def test_the_bandwidth_is_found_through_srv_host_meta_and_restconf():
    server = Server(**{PATH.format("198.51.100.7", "232.1.1.1"): (200, SPEED)})
    answers = Answers(server)
    assert await answers.expected() == 5_000_000
    assert answers.names == ["_dorms._tcp.7.100.51.198.in-addr.arpa"]
    assert server.asked[0] == "meta.example.net:8443/.well-known/host-meta"
    assert answers.metadata.counts == {"published": 1}
    assert answers.metadata.expected(CHANNEL) == 5_000_000
    assert len(answers.names) == 1


async def test_older_servers_are_understood():
    old = (200, b'{"ietf-cbacc:cbacc": {"max-bits-per-second": "1500000"}}')
    server = Server(**{OLD_PATH.format("2001%3Adb8%3A%3A7", "ff3e%3A%3A1"): old})
    answers = Answers(server)
    assert await answers.expected(CHANNEL_IPV6) == 1_500_000


@pytest.mark.parametrize(
    ("server", "outcome"),
    [
        (Server(), "nothing_published"),
        (Server(**{"/.well-known/host-meta": (500, b"")}), "error"),
        (Server(**{"/.well-known/host-meta": (200, b"<XRD")}), "error"),
        (Server(**{PATH.format("198.51.100.7", "232.1.1.1"): (200, b"[1, 2]")}), "error"),
        (Server(**{PATH.format("198.51.100.7", "232.1.1.1"): (302, b"")}), "error"),
        (Server(**{PATH.format("198.51.100.7", "232.1.1.1"): (200, b"x" * 70_000)}), "error"),
    ],
)
async def test_whatever_goes_wrong_means_that_nothing_is_published(server, outcome):
    answers = Answers(server)
    assert await answers.expected() == 0
    assert answers.metadata.counts == {outcome: 1}


async def test_without_a_server_nothing_is_published():
    answers = Answers(Server(), servers=())
    assert await answers.expected() == 0


async def test_the_next_server_is_asked_when_one_fails():
    class Flaky(Server):
        def __call__(self, request):
            if request.url.host == "192.0.2.9":
                raise httpx.ConnectError("refused")
            return super().__call__(request)

    server = Flaky(**{PATH.format("198.51.100.7", "232.1.1.1"): (200, SPEED)})
    answers = Answers(server, servers=(("192.0.2.9", 443), ("2001:db8::9", 443)))
    assert await answers.expected() == 5_000_000


async def test_any_source_channels_have_no_publisher():
    answers = Answers(Server())
    assert answers.metadata.expected(Channel(None, ip_address("239.1.1.1"))) == 0
    assert answers.names == []


async def test_questions_waiting_are_bounded_and_closing_ends_them():
    answers = Answers(Server())

    async def never(_):
        await asyncio.Event().wait()

    answers.metadata._find_servers = never
    for number in range(1500):
        assert answers.metadata.expected(Channel(CHANNEL.source, ip_address("232.2.0.0") + number)) is None
    assert len(answers.metadata._tasks) == 1000
    answers.metadata.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert answers.metadata._tasks == {}


@pytest.mark.parametrize("document", [b"", b"<a/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "<a/>".encode("utf-16")])
def test_host_meta_without_a_restconf_root_is_refused(document):
    with pytest.raises(MetadataError):
        restconf_root(document)


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"null", b'{"ietf-cbacc:cbacc": {"max-speed": -1}}', b'{"ietf-cbacc:cbacc": {"max-speed": 1e400}}',
     b'{"ietf-cbacc:cbacc": {"max-speed": "fast"}}', b"[" * 60_000],
)  # fmt: skip
def test_a_container_without_a_bandwidth_is_refused(document):
    with pytest.raises(MetadataError):
        bandwidth_in(document)


async def test_servers_that_never_answer_keep_the_others_waiting_no_longer_than_one_lookup(monkeypatch):
    monkeypatch.setattr("agent.service.channel_metadata._LOOKUP_SECONDS", 0.05)
    answers = Answers(Server())
    asked, silence = [], asyncio.Event()

    async def find(name):
        asked.append(name)
        await silence.wait()

    answers.metadata._find_servers = find
    channels = [Channel(CHANNEL.source, CHANNEL.group + number) for number in range(100)]
    assert [answers.metadata.expected(channel) for channel in channels] == [None] * 100
    await asyncio.wait(answers.metadata._tasks.values(), timeout=5)
    assert [answers.metadata.expected(channel) for channel in channels] == [0.0] * 100
    assert len(asked) < 100
    assert answers.metadata.counts == {"timeout": 100}


async def test_a_mistake_on_the_way_is_an_answer_too(caplog):
    answers = Answers(Server())

    async def find(_):
        raise UnicodeError("a label nobody can read")

    answers.metadata._find_servers = find
    assert await answers.expected() == 0.0
    assert answers.metadata.counts == {"error": 1}
