"""Speaks HTTP to a manager for the command line. Every failure ends as a `Failure` with one clear message."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from relaymgr.cli.failure import EXIT_USAGE, Failure, Refused, Unreachable
from relaymgr.cli.target import Target

PREFIX: Final = "/api/v1"
PAGE_ROWS: Final = 1000
"""Rows asked for at a time."""
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 300.0
"""A plan waits for its device, and for whoever is at work there."""
STREAM_SILENCE_SECONDS: Final = 45.0
"""A stream that says nothing for so long is dead: the manager sends a comment every 15 s."""

Document = dict[str, Any]
Parameter = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the manager answered."""

    document: Any
    """JSON; None for an empty answer."""
    etag: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of a listing, and where to read on when there are more."""

    items: list[Document]
    next_cursor: str | None

    def as_document(self) -> Document:
        """As the API answers a page."""
        return {"items": self.items, "next_cursor": self.next_cursor}


class Manager:
    """One manager. Redirects are not followed and proxies of the environment not used: the token stays with it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"User-Agent": f"relaymgr-cli/{version('isthmus')}", "Accept": "application/json"}
        if target.token is not None:
            headers["Authorization"] = f"Bearer {target.token}"
        self._http = httpx.Client(
            base_url=target.url,
            headers=headers,
            verify=_trust(target),
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Parameter) -> Any:  # noqa: ANN401 JSON
        """The document at `path` below /api/v1; parameters that are None are left out."""
        return self.fetch(path, **parameters).document

    def fetch(self, path: str, **parameters: Parameter) -> Answer:
        """Like `get`, with the ETag."""
        return self._answer("GET", path, params=_given(parameters))

    def text(self, path: str, accept: str, **parameters: Parameter) -> str:
        """A document that is no JSON."""
        return self._ask("GET", path, params=_given(parameters), headers={"Accept": accept}).text

    def rows(self, path: str, limit: int | None = PAGE_ROWS, **parameters: Parameter) -> Listing:
        """Up to `limit` rows of a listing (None: all), over as many pages as it takes."""
        items: list[Document] = []
        cursor: str | None = None
        while True:
            wanted = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(items))
            page = self.get(path, limit=wanted, cursor=cursor, **parameters)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or not page["items"] or (limit is not None and len(items) >= limit):
                return Listing(items, cursor)

    def send(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Parameter,
    ) -> Answer:
        """Write, with a JSON document where there is one and `If-Match` where an ETag is given."""
        given = dict(headers or {})
        if etag is not None:
            given["If-Match"] = etag
        options: dict[str, Any] = {} if document is None else {"json": document}
        return self._answer(method, path, headers=given, params=_given(parameters), **options)

    @contextmanager
    def stream(self, path: str, last_event_id: str | None, **parameters: Parameter) -> Iterator[Iterator[str]]:
        """The lines of a stream of server-sent events.

        Raises httpx.TransportError when the stream breaks, so that its reader may go on where it was; a refusal
        raises Refused.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(STREAM_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        with self._http.stream(
            "GET", PREFIX + path, params=_given(parameters), headers=headers, timeout=timeout
        ) as response:
            if not response.is_success:
                response.read()
                raise refusal(response)
            yield response.iter_lines()

    def _answer(self, method: str, path: str, **options: Any) -> Answer:  # noqa: ANN401 httpx takes many
        response = self._ask(method, path, **options)
        if not response.content:
            return Answer(None, response.headers.get("ETag"), response.headers)
        try:
            document = response.json()
        except ValueError:
            raise Failure(f"{self.target.url} answers, but not as a relay manager does") from None
        return Answer(document, response.headers.get("ETag"), response.headers)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 httpx takes many
        try:
            response = self._http.request(method, PREFIX + path, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"no manager answers at {self.target.url}: {error or type(error).__name__}") from None
        except httpx.TransportError as error:
            doubt = "" if method == "GET" else "; what was asked may have been done, look before trying again"
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the manager at {self.target.url} did not answer: {reason}{doubt}") from None
        except (httpx.InvalidURL, httpx.DecodingError) as error:
            raise Failure(f"{self.target.url}: {error}", EXIT_USAGE) from None
        if not response.is_success:
            raise refusal(response)
        return response


def segment(value: str) -> str:
    """A name or identifier as one segment of a path."""
    return quote(value, safe="")


def refusal(response: httpx.Response) -> Refused:
    """What an answer that is no success says: detail, code, every fault, request id."""
    identifier = response.headers.get("X-Request-Id")
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError):
        problem, code = {}, f"http_{response.status_code}"
        detail = f"the manager answered {response.status_code} {response.reason_phrase}".rstrip()
        if response.is_redirect:
            detail += f" (a redirect to {response.headers.get('Location', 'nowhere')}, not followed with a token)"
    identifier = problem.get("request_id") or identifier
    told = code if identifier is None else f"{code}, request {identifier}"
    lines = [f"{detail} ({told})"]
    lines += [_fault(fault) for fault in problem.get("faults") or ()]
    lines += [
        f"  {label}: {problem[key]}"
        for key, label in (
            ("capability", "missing capability"),
            ("job_id", "job"),
            ("required_role", "role needed"),
            ("presented_fingerprint", "presented fingerprint"),
            ("holder", "held by"),
        )
        if problem.get(key)
    ]
    if code == "unauthorized":
        lines.append("  give a token with ISTHMUS_TOKEN, --token-file or a profile (relaymgr profile set)")
    return Refused("\n".join(lines), code, response.status_code, problem)


def _fault(fault: Mapping[str, Any]) -> str:
    key, location = fault.get("key"), fault.get("location", "body")
    where = f"{key}" if location == "body" else f"{location} {key}"
    return f"  {where.strip() or location}: {fault.get('message')}"


def _given(parameters: Mapping[str, Parameter]) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in parameters.items() if value is not None}


def _trust(target: Target) -> ssl.SSLContext | bool:
    if target.url.startswith("http://"):
        return False  # nothing is verified without TLS, redirects are not followed, and reading authorities takes time
    if target.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(target.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"cannot use {target.ca_file} as certificate authority: {error}", EXIT_USAGE) from None
