"""What FastAPI does not know of the OpenAPI document: problems on every route, what every operation may answer."""

from __future__ import annotations

from typing import Any, Final

from relaymgr.api.codes import CODES
from relaymgr.api.problems import MEDIA_TYPE
from relaymgr.api.schemas.intent_examples import EXAMPLES
from relaymgr.api.schemas.problem import Fault, Problem

DESCRIPTION: Final = """\
Configure and monitor AMT relays. Every resource needs `Authorization: Bearer …`; roles are viewer, operator and admin,
and a token may be scoped to ADs. Times are UTC, durations seconds unless a name says otherwise, null is unknown and
never zero. Listings are paged by cursor. Editable resources carry an ETag; a write needs it in `If-Match`. Errors are
problem+json (RFC 9457) with a stable `code`, explained in docs/manager-api.md. `X-Request-Id` is taken over or made,
and answered.
"""
TAGS: Final = {
    "system": "Health, readiness, metrics.",
    "access": "Logins, tokens, users.",
    "ads": "Administrative domains.",
    "sites": "Places with relays.",
    "credentials": "How to log in to devices; secrets are never answered.",
    "relays": "Relays: enrolment, settings, host keys.",
    "intents": "What a relay shall be.",
    "changes": "Plans and the changes they become.",
    "jobs": "Work under way and done.",
    "rollouts": "One change of many relays in waves.",
    "observed": "What relays were last seen doing.",
    "history": "Statistics, drift, audit.",
    "backups": "Configurations as they were.",
    "events": "What a NOC wants to know.",
}
_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
_REQUEST_ID: Final = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "The caller's own id of the request; one is made when absent.",
    "schema": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9._:-]+$"},
    "example": "5f2b7c1e0d9a",
}


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """The document completed in place."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (Fault, Problem):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for item in document["paths"].values():
        for operation in item.values():
            _complete(operation)
    for name, schema in schemas.items():
        if name.endswith("Patch"):
            for member in schema.get("properties", {}).values():
                member.pop("default", None)
    for name, examples in EXAMPLES.items():
        for member, example in examples.items():
            schemas[name]["properties"][member]["examples"] = [example]
    document["components"]["parameters"] = {"RequestId": _REQUEST_ID}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _complete(operation: dict[str, Any]) -> None:
    """Add what every operation may answer, and give errors the media type they are sent with."""
    answers = operation["responses"]
    codes = ["internal", "malformed_request"]
    if operation.get("security"):
        codes += ["unauthorized", "forbidden"]
    if "requestBody" in operation:
        codes += ["too_large", "unsupported_media_type"]
    if "422" in answers and "HTTPValidationError" in str(answers["422"]):
        del answers["422"]
    if operation.get("parameters") or "requestBody" in operation:
        codes.append("invalid_request")
    if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", [])):
        codes += ["cursor_invalid", "sort_unknown"]
    for code in codes:
        answer = answers.setdefault(str(CODES[code].status), {"description": "", "content": {}})
        listed = [part for part in answer["description"].split(", ") if part.startswith("`")]
        if f"`{code}`" not in listed:
            answer["description"] = ", ".join([*listed, f"`{code}`"])
        answer.setdefault("content", {})[MEDIA_TYPE] = {"schema": _SCHEMA}
    operation["responses"] = dict(sorted(answers.items()))
    operation.setdefault("security", [])
    operation["parameters"] = [*operation.get("parameters", []), {"$ref": "#/components/parameters/RequestId"}]
