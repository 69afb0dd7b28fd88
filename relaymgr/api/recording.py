"""Writes that leave a trace: audit rows, and names that are taken or in use told apart from failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.problems import REQUEST_ID, Refused
from relaymgr.api.services import Services
from relaymgr.store import audit
from relaymgr.store.audit import Reason
from relaymgr.store.principals import Principal


@asynccontextmanager
async def writing(
    services: Services, taken: str | None = None, *, deleting: bool = False
) -> AsyncIterator[AsyncSession]:
    """A transaction. With `taken`, a unique name that exists already is answered with that sentence."""
    referred = ("unknown_reference", "it refers to something that does not exist")
    if deleting:
        referred = ("in_use", "another resource refers to it")
    try:
        async with services.database.begin() as session:
            yield session
    except IntegrityError as error:
        reason = str(error.orig).lower()
        if "unique" in reason and taken is not None:
            raise Refused("name_taken", taken) from None
        if "foreign key" in reason:
            code, detail = referred
            raise Refused(code, detail) from None
        raise


def reason_of(comment: str, ticket: str | None) -> Reason:
    """What is handed down with a write that is audited where it is done."""
    return Reason(comment, ticket, REQUEST_ID.get())


async def record(
    session: AsyncSession,
    services: Services,
    caller: Principal | str,
    action: str,
    resource: tuple[str, str | None],
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    comment: str | None = None,
    ticket: str | None = None,
    ad_id: str | None = None,
    outcome: str = "ok",
) -> None:
    """An audit row of this request. `resource` is its type and id."""
    await audit.record(
        session,
        caller,
        action,
        resource[0],
        resource[1],
        before=before,
        after=after,
        comment=comment or None,
        ticket=ticket,
        request_id=REQUEST_ID.get(),
        ad_id=ad_id,
        outcome=outcome,
        now=services.clock(),
    )
