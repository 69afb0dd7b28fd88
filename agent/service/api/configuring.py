"""The configuration: read, candidate, commit with a confirm timer, confirm, rollback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agent.service.api.problems import RequestRefused, responses
from agent.service.configuration_store import CONFIRM_LIMIT, ConfigurationStore

Result = TypeVar("Result")

_TOML: Final = {"application/toml", "text/plain", "application/x-toml"}
_IF_MATCH: Final = "ETag of the configuration the request was made for, or `*` for any."

_CANDIDATE_BODY: Final = {
    "required": True,
    "content": {
        "application/toml": {"schema": {"type": "string", "description": "The configuration file."}},
        "application/json": {
            "schema": {
                "type": "object",
                "description": "The same keys as the file; sections are objects, null means left out.",
                "additionalProperties": True,
            }
        },
    },
}


class Version(BaseModel):
    """One previous configuration."""

    number: int = Field(description="What to give to rollback; 1 is the latest.")
    etag: str = Field(description="Its ETag.")
    replaced_at: datetime = Field(description="When it was replaced (UTC).")


class ConfigurationDocument(BaseModel):
    """GET /v1/config."""

    etag: str = Field(description="ETag of the running configuration, as in the header.")
    text: str = Field(description="The running configuration in TOML.")
    candidate: str | None = Field(default=None, description="The candidate in TOML; null when there is none.")
    candidate_diff: str | None = Field(default=None, description="Unified diff from running to candidate.")
    confirm_deadline: datetime | None = Field(
        default=None, description="When the unconfirmed commit is rolled back (UTC); null when there is none."
    )
    versions: list[Version] = Field(default_factory=list, description="Previous configurations, latest first.")


class Change(BaseModel):
    """Answer to a candidate, a commit or a rollback."""

    etag: str = Field(description="ETag of the running configuration now.")
    changed: bool = Field(description="Whether the diff is not empty.")
    diff: str = Field(description="Unified diff, from what ran before to the new text.")
    confirm_deadline: datetime | None = Field(
        default=None, description="When the commit is rolled back unless confirmed (UTC); null when it need not be."
    )


class CommitRequest(BaseModel):
    """POST /v1/config/commit."""

    model_config = ConfigDict(extra="forbid")

    confirm_seconds: float | None = Field(
        default=None,
        gt=0,
        le=CONFIRM_LIMIT,
        description="Seconds until the commit is rolled back unless it is confirmed; left out: it stays.",
    )


class RollbackRequest(CommitRequest):
    """POST /v1/config/rollback."""

    number: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Previous configuration to return to; 0 forgets the candidate; left out: what ran before an "
        "unconfirmed commit, else 1.",
    )


IfMatch = Annotated[str | None, Header(description=_IF_MATCH)]


def router(store: ConfigurationStore) -> APIRouter:
    """Routes of the configuration."""
    routes = APIRouter(tags=["configuration"])
    refusals = ("configuration_changed", "etag_required", "needs_restart", "storage")

    @routes.get("/v1/config", operation_id="get_config", summary="Running configuration", responses=responses())
    async def get_config(response: Response) -> ConfigurationDocument:
        candidate = store.candidate()
        response.headers["ETag"] = store.etag
        return ConfigurationDocument(
            etag=store.etag,
            text=store.text,
            candidate=candidate,
            candidate_diff=None if candidate is None else store.diff(candidate),
            confirm_deadline=store.confirm_deadline,
            versions=[Version(number=number, etag=tag, replaced_at=at) for number, tag, at in store.versions()],
        )

    @routes.post(
        "/v1/config/candidate",
        operation_id="set_candidate",
        summary="Check a configuration and keep it as candidate",
        description="The body is the whole configuration, in TOML or as JSON. Nothing is applied.",
        responses=responses("invalid_configuration", "unsupported_media_type", "too_large", *refusals),
        openapi_extra={"requestBody": _CANDIDATE_BODY},
    )
    async def set_candidate(request: Request, response: Response, if_match: IfMatch = None) -> Change:
        base = _required(if_match)
        body = await request.body()
        diff = await _finish(store.set_candidate(_candidate(request, body), base))
        return _change(response, store, diff)

    @routes.post(
        "/v1/config/commit",
        operation_id="commit",
        summary="Run with the candidate",
        responses=responses("invalid_configuration", "no_candidate", *refusals),
    )
    async def commit(response: Response, request: CommitRequest | None = None, if_match: IfMatch = None) -> Change:
        base = _required(if_match)
        seconds = None if request is None else request.confirm_seconds
        return _change(response, store, await _finish(store.commit(seconds, base)))

    @routes.post(
        "/v1/config/confirm",
        operation_id="confirm",
        summary="Keep an unconfirmed commit",
        status_code=204,
        responses=responses("nothing_to_confirm", "storage"),
    )
    async def confirm() -> None:
        await _finish(store.confirm())

    @routes.post(
        "/v1/config/rollback",
        operation_id="rollback",
        summary="Return to a previous configuration",
        description="If-Match is optional here: in an emergency the way back must be short.",
        responses=responses("no_such_version", *refusals),
    )
    async def rollback(response: Response, request: RollbackRequest | None = None, if_match: IfMatch = None) -> Change:
        wanted = request or RollbackRequest()
        diff = await _finish(store.rollback(wanted.number, wanted.confirm_seconds, _base(if_match)))
        return _change(response, store, diff)

    return routes


async def _finish(change: Coroutine[Any, Any, Result]) -> Result:
    """A change that has begun ends, even when the client goes away meanwhile."""
    return await asyncio.shield(asyncio.ensure_future(change))


def _change(response: Response, store: ConfigurationStore, diff: str) -> Change:
    response.headers["ETag"] = store.etag
    return Change(etag=store.etag, changed=bool(diff), diff=diff, confirm_deadline=store.confirm_deadline)


def _required(if_match: str | None) -> str | None:
    if if_match is None:
        raise RequestRefused("etag_required", "If-Match is required: the ETag of GET /v1/config")
    return _base(if_match)


def _base(if_match: str | None) -> str | None:
    return None if if_match is None or if_match.strip() == "*" else if_match.strip()


def _candidate(request: Request, body: bytes) -> str | dict[str, Any]:
    kind = request.headers.get("content-type", "application/toml").partition(";")[0].strip().lower()
    try:
        if kind in _TOML:
            return body.decode()
        if kind != "application/json":
            raise RequestRefused("unsupported_media_type", "send application/toml or application/json")
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused("invalid_request", f"the body cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise RequestRefused("invalid_request", "a configuration is a JSON object")
    return values
