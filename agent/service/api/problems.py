"""Errors as problem+json (RFC 9457) with stable codes."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from agent.service.config import ConfigurationError
from agent.service.port import RefusedError

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final = {
    "invalid_request": 422,
    "invalid_configuration": 422,
    "unauthorized": 401,
    "not_found": 404,
    "no_such_join": 404,
    "no_such_version": 404,
    "method_not_allowed": 405,
    "timeout": 503,
    "wrong_role": 409,
    "join_is_configured": 409,
    "invalid_channel": 422,
    "unknown_interface": 422,
    "not_applicable": 409,
    "no_candidate": 409,
    "nothing_to_confirm": 409,
    "needs_restart": 409,
    "configuration_changed": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "etag_required": 428,
    "limit_reached": 409,
    "internal": 500,
    "storage": 507,
    "not_stored": 507,
}
"""HTTP status of each code; a code of the daemon that is not listed is answered with 409."""

_CODE_OF_STATUS: Final = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

_log = logging.getLogger(__name__)


class FaultDetail(BaseModel):
    """One thing wrong in a request or a configuration."""

    key: str = Field(description="Dotted key or name of the parameter; empty for the whole.")
    line: int | None = Field(default=None, description="Line of the configuration, counted from 1.")
    message: str = Field(description="What is wrong.")


class ProblemDetails(BaseModel):
    """What every error answers (RFC 9457)."""

    type: str = Field(description="`urn:isthmus:problem:` and the code.")
    title: str = Field(description="The code in words.")
    status: int = Field(description="HTTP status.")
    code: str = Field(description="Stable code, one of those in docs/api.md.")
    detail: str = Field(description="What happened, in one sentence.")
    faults: list[FaultDetail] = Field(default_factory=list, description="Everything wrong, where it is more than one.")


class RequestRefused(Exception):
    """The API itself refuses a request."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


def problem(
    code: str,
    detail: str,
    faults: list[FaultDetail] | None = None,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The response for a code."""
    status = STATUS.get(code, 409) if status is None else status
    body = ProblemDetails(
        type=f"urn:isthmus:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        code=code,
        detail=detail,
        faults=faults or [],
    )
    return Response(body.model_dump_json(), status, headers, MEDIA_TYPE)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these codes, besides 401 and 422 everywhere."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in ("unauthorized", "invalid_request", *codes):
        status = STATUS[code]
        known = found[status]["description"] + ", " if status in found else ""
        found[status] = {"description": f"{known}`{code}`", "model": ProblemDetails}
    return found


def _request_faults(error: RequestValidationError) -> list[FaultDetail]:
    """One fault a key; an address of neither family fails twice in pydantic, under names of its own."""
    faults: dict[str, FaultDetail] = {}
    for details in error.errors():
        parts = [str(part) for part in details["loc"][1:]]
        names = [part for part in parts if "[" not in part]
        is_address = len(names) < len(parts)
        key = ".".join(names)
        message = "must be an IPv4 or IPv6 address" if is_address else str(details["msg"])
        faults.setdefault(key, FaultDetail(key=key, message=message))
    return list(faults.values())


def problems_as_problems(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document whose errors have the media type they are sent with; FastAPI only knows application/json."""
    for item in document["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if int(status) >= 400 and "application/json" in content:
                    content[MEDIA_TYPE] = content.pop("application/json")
    return document


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""

    def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return problem(error.code, error.message)

    def request_refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestRefused)
        return problem(error.code, error.detail, headers=error.headers)

    def invalid_configuration(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ConfigurationError)
        faults = [FaultDetail(key=fault.key, line=fault.line, message=fault.message) for fault in error.faults]
        return problem("invalid_configuration", "the configuration was refused as a whole", faults)

    def invalid_request(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem("invalid_request", "the request is not what the contract says", _request_faults(error))

    def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODE_OF_STATUS.get(error.status_code, "invalid_request")
        return problem(code, str(error.detail), status=error.status_code, headers=dict(error.headers or {}))

    def storage(_request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        _log.error("storage refused a request", extra={"error": str(error)})
        return problem("storage", f"the state could not be written: {error.strerror or error}")

    def internal(_request: Request, _error: Exception) -> Response:
        return problem("internal", "the agent failed to answer; its log says why")

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(RequestRefused, request_refused)
    app.add_exception_handler(ConfigurationError, invalid_configuration)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OSError, storage)
    app.add_exception_handler(Exception, internal)
