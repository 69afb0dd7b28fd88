"""ETags of editable resources: the row's version in quotes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header
from fastapi.responses import Response

from relaymgr.api.problems import Refused
from relaymgr.api.schemas.common import Output

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description='ETag last read, such as `"3"`; required.', examples=['"3"'], max_length=256),
]


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


def require_match(given: str | None, version: int) -> None:
    """Refuse a write without `If-Match` (428) or with one that is not of `version` (412)."""
    if given is None:
        raise Refused("etag_required", "send If-Match with the ETag last read", headers={"ETag": etag(version)})
    tags = [tag.strip() for tag in given.split(",")]
    if etag(version) not in tags:
        raise Refused("etag_mismatch", f"the resource is at version {version} now", headers={"ETag": etag(version)})


def tagged(body: Output, version: int, status: int = 200, location: str | None = None) -> Response:
    """An answer that carries the ETag of what it shows, and after a creation where that is."""
    headers = {"ETag": etag(version)} | ({"Location": location} if location else {})
    return Response(body.model_dump_json(), status, headers, "application/json")
