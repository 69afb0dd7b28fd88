"""How fast the API lists tunnels: a page of a thousand with two filters for a token of one AD, and all of it as CSV."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from lab.bench.manager_fleet import percentile
from lab.manager import Manager

JSON: Final = "JSON, a page of 1,000"
CSV: Final = "CSV, everything"
_FILTERS: Final = {"state": "active", "min_channels": "1"}
_PAGE: Final = 1000
_PAUSE_SECONDS: Final = 0.2
_CSV_EVERY: Final = 12


@dataclass(slots=True)
class Requests:
    """Requests of one kind.

    Attributes:
        kind: JSON or CSV.
        load: what the manager did besides.
        tunnels: how many it knew.
        rows: most rows of one answer.
        seconds: what each took, from the request to the last byte.
    """

    kind: str
    load: str
    tunnels: int = 0
    rows: int = 0
    seconds: list[float] = field(default_factory=list)

    def milliseconds(self, share: float) -> float:
        """A percentile."""
        return 1000 * percentile(self.seconds, share)


class Reader:
    """A program of an AD's operators that lists what they may see.

    Attributes:
        pages: requests for pages, which begin anew after the last page.
        whole: requests for the whole as CSV.
    """

    def __init__(self, manager: Manager, load: str) -> None:
        ad = manager.items("/ads")[0]["id"]
        token = {"name": f"bench {load}", "role": "viewer", "ad_ids": [ad]}
        secret = manager.call("POST", "/tokens", json=token)["token"]
        self._client = httpx.Client(
            base_url=f"{manager.url}/api/v1", headers={"Authorization": f"Bearer {secret}"}, timeout=60.0
        )
        self._cursor: str | None = None
        self.pages = Requests(JSON, load)
        self.whole = Requests(CSV, load)

    def read(self, seconds: float) -> None:
        """Ask again and again for `seconds`, with pauses as a program has that uses what it reads."""
        deadline, count = time.monotonic() + seconds, 0
        with self._client:
            while time.monotonic() < deadline:
                self._csv() if count % _CSV_EVERY == _CSV_EVERY - 1 else self._page()
                count += 1
                time.sleep(max(0.0, min(_PAUSE_SECONDS, deadline - time.monotonic())))

    def _page(self) -> None:
        body: dict[str, Any] = self._get(self.pages, {"limit": str(_PAGE)}, self._cursor).json()
        self.pages.rows = max(self.pages.rows, len(body["items"]))
        self._cursor = body["next_cursor"]

    def _csv(self) -> None:
        self.whole.rows = max(self.whole.rows, self._get(self.whole, {"format": "csv"}, None).text.count("\n") - 1)

    def _get(self, noted: Requests, given: dict[str, str], cursor: str | None) -> httpx.Response:
        started = time.monotonic()
        answer = self._client.get("/tunnels", params=_FILTERS | given | ({"cursor": cursor} if cursor else {}))
        noted.seconds.append(time.monotonic() - started)
        return answer.raise_for_status()
