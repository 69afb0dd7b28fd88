"""Bulk requests: every item succeeds or fails by itself, in a savepoint of its own."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api import enrolment
from relaymgr.api.problems import Refused, members_of, problem_body
from relaymgr.api.schemas.bulk import BulkItem, BulkResult
from relaymgr.api.schemas.relays import RelayCreate
from relaymgr.api.services import Services
from relaymgr.store.principals import Principal


def result(items: list[BulkItem]) -> BulkResult:
    """The answer for these items."""
    failed = sum(item.outcome == "failed" for item in items)
    changed = sum(item.outcome in {"created", "updated"} for item in items)
    return BulkResult(items=items, failed=failed, changed=changed)


def failure(name: str, error: Exception) -> BulkItem:
    """The outcome of an item that failed; an error nobody documented is not hidden here."""
    members = members_of(error)
    if members["code"] == "internal":
        raise error
    body = problem_body(members.pop("code"), members.pop("detail"), **members)
    return BulkItem(name=name, id=None, outcome="failed", version=None, problem=body)


async def relay(
    session: AsyncSession, services: Services, caller: Principal, body: RelayCreate
) -> tuple[BulkItem, str | None]:
    """Create or update one relay of a bulk; its outcome and its id."""
    try:
        async with session.begin_nested():
            row, outcome = await enrolment.create_or_update(session, services, caller, body)
    except IntegrityError:
        return failure(body.name, Refused("conflict", "somebody wrote the same at the same time")), None
    except Refused as error:
        return failure(body.name, error), None
    item = BulkItem.model_validate(
        {"name": row.name, "id": row.id, "outcome": outcome, "version": row.version, "problem": None}
    )
    return item, row.id
