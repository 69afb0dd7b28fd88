"""Jobs: what was asked for, how far it is, its log as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.event_streams import STREAM_ANSWER, LastEventId, Sent, resume_after, stream
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import not_found, responses
from relaymgr.api.recording import reason_of
from relaymgr.api.schemas.changes import Job, JobLogEntry, JobLogPage, JobPage, Reason
from relaymgr.api.security import OPERATOR, VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Principal, visible_of_relays

_ROW = tables.Job
_EVENT = tables.JobEvent
JOBS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "created_at": _ROW.created_at, "finished_at": _ROW.finished_at},
        "-id",
        {
            "relay_id": equal(_ROW.relay_id),
            "rollout_id": equal(_ROW.rollout_id),
            "kind": equal(_ROW.kind),
            "state": equal(_ROW.state),
            "actor": equal(_ROW.actor),
        },
    ),
    Job,
    columns_view(Job),
)
LOG = Resource(Listing(_EVENT, _EVENT.id, {"id": _EVENT.id}, "id"), JobLogEntry, columns_view(JobLogEntry))
router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])


class JobQuery(PageQuery):
    """Page and filters of jobs."""

    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this relay."""
    rollout_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293d"])
    """Only those of this rollout."""
    kind: str | None = Field(default=None, max_length=16, examples=["apply"])
    """Only those of this kind."""
    state: str | None = Field(default=None, max_length=16, examples=["running"])
    """Only those in this state."""
    actor: str | None = Field(default=None, max_length=200, examples=["token:noc-automation"])
    """Only what this one asked for."""


def _visible(caller: Principal) -> ColumnElement[bool]:
    """Jobs of relays the caller sees; those of deleted relays, to whoever asked for them."""
    if not caller.scoped:
        return true()
    return or_(visible_of_relays(caller, _ROW.relay_id), _ROW.relay_id.is_(None) & (_ROW.actor == caller.actor))


async def fetch_job(session: AsyncSession, caller: Principal, job_id: str) -> tables.Job:
    """The job; 404 where there is none the caller may see."""
    row = await session.scalar(select(_ROW).where(_ROW.id == job_id, _visible(caller)))
    if row is None:
        raise not_found("job", job_id)
    return row


@router.get("", operation_id="list_jobs", dependencies=[VIEWER], responses={200: {"model": JobPage}})
async def list_jobs(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[JobQuery, Query()]
) -> Response:
    """Jobs of the relays the token sees, newest first."""
    return await JOBS.answer(request, services, query, _visible(caller))


async def _answer(services: Services, caller: Principal, job_id: str) -> Response:
    async with services.database.session() as session:
        row = await fetch_job(session, caller, job_id)
    return json_response({name: getattr(row, name) for name in Job.model_fields})


@router.get(
    "/{job_id}",
    operation_id="get_job",
    dependencies=[VIEWER],
    response_model=Job,
    responses=responses("not_found"),
)
async def get_job(services: ServicesOf, caller: Caller, job_id: PathId) -> Response:
    """One job."""
    return await _answer(services, caller, job_id)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    dependencies=[OPERATOR],
    response_model=Job,
    responses=responses("not_found", "job_finished"),
)
async def cancel_job(
    services: ServicesOf, caller: Caller, job_id: PathId, body: Annotated[Reason | None, Body()] = None
) -> Response:
    """Ask a job to end as soon as that leaves nothing half done: what waits for its confirmation goes back."""
    reason = body or Reason()
    async with services.database.session() as session:
        await fetch_job(session, caller, job_id)
    await services.jobs.cancel(job_id, caller.actor, reason_of(reason.comment, reason.ticket))
    return await _answer(services, caller, job_id)


@router.get(
    "/{job_id}/log",
    operation_id="get_job_log",
    dependencies=[VIEWER],
    responses=responses("not_found") | {200: {"model": JobLogPage}},
)
async def get_job_log(
    request: Request, services: ServicesOf, caller: Caller, job_id: PathId, query: Annotated[PageQuery, Query()]
) -> Response:
    """What a job did, oldest first."""
    async with services.database.session() as session:
        await fetch_job(session, caller, job_id)
    return await LOG.answer(request, services, query, _EVENT.job_id == job_id)


@router.get(
    "/{job_id}/events",
    operation_id="follow_job",
    dependencies=[VIEWER],
    responses=responses("not_found") | STREAM_ANSWER,
    response_class=Response,
)
async def follow_job(
    services: ServicesOf, caller: Caller, job_id: PathId, last_event_id: LastEventId = None
) -> Response:
    """The log of a job as it grows: events `log`, at last one `job` with the job as it ended, and the stream ends."""
    after = resume_after(last_event_id) or 0
    async with services.database.session() as session:
        await fetch_job(session, caller, job_id)

    async def source() -> AsyncIterator[Sent]:
        async for row in services.jobs.follow(job_id, after):
            yield Sent(row.id, "log", {name: getattr(row, name) for name in JobLogEntry.model_fields})
        async with services.database.session() as session:
            ended = await session.get(tables.Job, job_id)
        if ended is not None:
            yield Sent(None, "job", {name: getattr(ended, name) for name in Job.model_fields})

    return stream(source())
