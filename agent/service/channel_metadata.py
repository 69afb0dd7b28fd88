"""What a source publishes about its channels: the bandwidth (CBACC) on its metadata server (DORMS).

The server of a source is named by SRV records under its reverse name, and speaks RESTCONF over TLS
(draft-ietf-mboned-dorms §2, draft-ietf-mboned-cbacc §3; both spellings of the bandwidth and of the path that drafts of
different age have are understood). Whatever goes wrong means that nothing is published.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

import httpx

from agent.protocol.channels import Address, Channel

_log = logging.getLogger(__name__)

LIFETIME: Final = 1800.0
"""Seconds a published bandwidth is believed."""

NEGATIVE_LIFETIME: Final = 60.0
"""Seconds until a source that published nothing is asked again."""

_LOOKUP_SECONDS: Final = 10.0
_AT_ONCE: Final = 8
_WAITING: Final = 1000
_REMEMBERED: Final = 20_000
_LARGEST_ANSWER: Final = 65_536
_SERVERS: Final = 3
_RESTCONF_LINK: Final = "{http://docs.oasis-open.org/ns/xri/xrd-1.0}Link"  # RFC 8040 §3.1
_PATHS: Final = (
    "data/ietf-dorms:dorms/metadata/sender={source}/group={group}/ietf-cbacc:cbacc",
    "data/ietf-dorms:metadata/sender={source}/group={group}/ietf-cbacc:cbacc",
)

FindServers = Callable[[str], Awaitable[Sequence[tuple[str, int]]]]
"""(host, port) of the servers an SRV name stands for, best first; empty when there are none. Never raises OSError."""


class MetadataError(Exception):
    """A server's answer is not what the drafts say."""


class ChannelMetadata:
    """Bandwidth of channels as their sources publish it.

    Attributes:
        counts: lookups by outcome.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        find_servers: FindServers,
        on_answer: Callable[[Channel], None],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`on_answer` is called once something about a channel is known; `transport` is for tests."""
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._find_servers = find_servers
        self._on_answer = on_answer
        self._transport = transport
        self._trust = ssl.create_default_context()
        self._known: OrderedDict[Channel, tuple[float, float]] = OrderedDict()
        self._tasks: dict[Channel, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(_AT_ONCE)

    def expected(self, channel: Channel) -> float | None:
        """Bits per second, 0 when nothing is published; None while the source's server is being asked."""
        if channel.source is None:
            return 0.0
        known = self._known.get(channel)
        if known is not None and self._loop.time() < known[1]:
            self._known.move_to_end(channel)
            return known[0]
        if channel not in self._tasks and len(self._tasks) < _WAITING:
            task = self._loop.create_task(self._look_up(channel, channel.source))
            self._tasks[channel] = task
            task.add_done_callback(lambda _: self._tasks.pop(channel, None))
        return None

    def close(self) -> None:
        """Stop asking; the tasks end in the loop's next turn."""
        for task in self._tasks.values():
            task.cancel()

    async def _look_up(self, channel: Channel, source: Address) -> None:
        bandwidth, outcome = 0.0, "nothing_published"
        try:
            # The wait for a turn counts too: servers that never answer keep nobody else waiting for long.
            async with asyncio.timeout(_LOOKUP_SECONDS), self._free:
                found = await self._ask_servers(source, channel.group)
            if found is not None:
                bandwidth, outcome = found, "published"
        except TimeoutError:
            outcome = "timeout"
        except Exception as error:  # noqa: BLE001 - what strangers publish must not keep a channel waiting for ever
            outcome = "error"
            _log.warning("metadata not read channel=%s: %s", channel, error, extra={"reason": "metadata_error"})
        self.counts[outcome] += 1
        lifetime = LIFETIME if outcome == "published" else NEGATIVE_LIFETIME
        self._known[channel] = (bandwidth, self._loop.time() + lifetime)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        self._on_answer(channel)

    async def _ask_servers(self, source: Address, group: Address) -> float | None:
        """The first server that answers decides."""
        error: Exception | None = None
        servers = await self._find_servers(f"_dorms._tcp.{source.reverse_pointer}")
        async with httpx.AsyncClient(
            timeout=_LOOKUP_SECONDS / 2, follow_redirects=False, verify=self._trust, transport=self._transport
        ) as client:
            for host, port in servers[:_SERVERS]:
                try:
                    return await self._ask(client, f"https://{_in_url(host)}:{port}", source, group)
                except (httpx.HTTPError, httpx.InvalidURL, MetadataError) as failure:
                    error = failure
        if error is not None:
            raise error
        return None

    async def _ask(self, client: httpx.AsyncClient, server: str, source: Address, group: Address) -> float | None:
        status, body = await _get(client, f"{server}/.well-known/host-meta", "application/xrd+xml")
        if status != httpx.codes.OK:
            raise MetadataError(f"{server} has no host-meta: status {status}")
        root = f"{server}/{restconf_root(body).strip('/')}"
        for path in _PATHS:
            url = f"{root}/{path.format(source=_key(source), group=_key(group))}"
            status, body = await _get(client, url, "application/yang-data+json")
            if status == httpx.codes.OK:
                return bandwidth_in(body)
            if status != httpx.codes.NOT_FOUND:
                raise MetadataError(f"{url} answers with status {status}")
        return None


def restconf_root(document: bytes) -> str:
    """The path of RESTCONF in a host-meta document (RFC 8040 §3.1).

    Raises:
        MetadataError: there is none.
    """
    if b"<!" in document or b"\0" in document:  # no DTD: nobody needs entities here
        raise MetadataError("host-meta with a document type")
    try:
        links = ET.fromstring(document).iter(_RESTCONF_LINK)  # noqa: S314 - refused what makes it unsafe
    except ET.ParseError as error:
        raise MetadataError(f"host-meta is no XML: {error}") from error
    for link in links:
        path = link.get("href", "")
        if link.get("rel") == "restconf" and path.startswith("/"):
            return path
    raise MetadataError("host-meta names no RESTCONF root")


def bandwidth_in(document: bytes) -> float:
    """Bits per second in a cbacc container.

    Raises:
        MetadataError: it holds none.
    """
    try:
        container: Any = json.loads(document)["ietf-cbacc:cbacc"]
        bandwidth = int(container["max-speed"]) * 1000 if "max-speed" in container else container["max-bits-per-second"]
        bits = float(int(bandwidth))
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MetadataError("no cbacc container with a bandwidth") from error
    if not 0 <= bits <= 1e15:
        raise MetadataError(f"a bandwidth of {bits:g} bit/s")
    return bits


async def _get(client: httpx.AsyncClient, url: str, media_type: str) -> tuple[int, bytes]:
    """Status and body, which may be so long."""
    async with client.stream("GET", url, headers={"Accept": media_type}) as response:
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _LARGEST_ANSWER:
                raise MetadataError(f"{url} answers with more than {_LARGEST_ANSWER} bytes")
        return response.status_code, body


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host.rstrip(".")


def _key(address: Address) -> str:
    """A list key in a RESTCONF path: colons are percent-encoded (RFC 8040 §3.5.3)."""
    return str(address).replace(":", "%3A")
