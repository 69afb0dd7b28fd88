"""Errors as problem+json (RFC 9457) with stable codes."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from relaymgr.api.codes import CODES, Code
from relaymgr.api.schemas.problem import Fault, Problem
from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.drivers.errors import DeviceBusy, DriverError, HostKeyMismatch

MEDIA_TYPE: Final = "application/problem+json"
_CODE_OF_STATUS: Final = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("REQUEST_ID", default=None)
"""Id of the request being answered, for problems, audit rows and logs."""


class Refused(Exception):
    """The API refuses a request. `extra` are members added to the problem."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        faults: list[Fault] | None = None,
        **extra: str | int | None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.faults = faults or []
        self.extra = extra


def not_found(kind: str, identifier: str) -> Refused:
    """No such resource, or none the caller may know of: the same answer."""
    return Refused("not_found", f"no {kind} {identifier}")


def problem_body(
    code: str,
    detail: str,
    *,
    faults: list[Fault] | None = None,
    status: int | None = None,
    **extra: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """The members of a problem; unknown members of RFC 9457 come last."""
    known = CODES.get(code, Code(409, ""))
    body = Problem(
        type=f"urn:isthmus:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=known.status if status is None else status,
        code=code,
        detail=detail,
        faults=faults or [],
        request_id=REQUEST_ID.get(),
    ).model_dump(mode="json", exclude_none=True)
    return body | {name: value for name, value in extra.items() if value is not None}


def problem(code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> Response:  # noqa: ANN401
    """The response for a code."""
    body = problem_body(code, detail, **members)
    return Response(json.dumps(body), body["status"], headers, MEDIA_TYPE)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these codes."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys(codes):
        status = CODES[code].status
        known = found[status]["description"] + ", " if status in found else ""
        found[status] = {"description": f"{known}`{code}`", "content": {MEDIA_TYPE: {"schema": _REFERENCE}}}
    return found


_REFERENCE: Final = {"$ref": "#/components/schemas/Problem"}
DEVICE_CODES: Final = tuple(code for code in CODES if code.startswith("device_"))
"""What any request that talks to a device may answer."""


def members_of(error: Exception) -> dict[str, Any]:
    """Code, detail and further members of an error of another layer; the same for answers and for items of a bulk."""
    if isinstance(error, Refused):
        return {"code": error.code, "detail": error.detail, "faults": error.faults, **error.extra}
    if isinstance(error, CapabilityMissing):
        return {"code": "capability_missing", "detail": error.reason, "capability": str(error.capability)}
    if isinstance(error, DriverError):
        members: dict[str, Any] = {"code": error.code, "detail": str(error)}
        if isinstance(error, HostKeyMismatch):
            members["presented_fingerprint"] = error.presented
        if isinstance(error, DeviceBusy):
            members["holder"] = error.holder
        return members
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return {"code": "not_ready", "detail": "the database does not answer; try again soon"}
    code = getattr(error, "code", None)
    if isinstance(code, str) and code in CODES:
        return {"code": code, "detail": str(getattr(error, "detail", None) or error)}
    return {"code": "internal", "detail": "the service failed; its log has the request id"}


def _faults(error: RequestValidationError) -> list[Fault]:
    """One fault a place; an address of neither family fails twice in pydantic, under names of its own."""
    faults: dict[str, Fault] = {}
    for details in error.errors():
        parts = [str(part) for part in details["loc"]]
        names = [part for part in parts[1:] if "[" not in part]
        key = ".".join(names)
        message = str(details["msg"]).removeprefix("Value error, ")
        faults.setdefault(key, Fault(key=key, location=parts[0] if parts else "", message=message))
    return list(faults.values())


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem("invalid_request", "the request is not what the specification says", faults=_faults(error))


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "malformed_request")
    headers = dict(error.headers or {})
    return problem(code, str(error.detail), status=error.status_code, headers=headers)


def _of_a_layer(_request: Request, error: Exception) -> Response:
    members = members_of(error)
    headers = dict(error.headers) if isinstance(error, Refused) else {}
    if members["code"] == "device_circuit_open":
        headers["Retry-After"] = "30"
    return problem(members.pop("code"), members.pop("detail"), headers=headers, **members)


def install(app: FastAPI) -> None:
    """Answer the errors `app` knows as problems; the `Boundary` answers the others."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (Refused, CapabilityMissing, DriverError):
        app.add_exception_handler(kind, _of_a_layer)
