"""Health, readiness, metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from relaymgr.api import metrics
from relaymgr.api.listings import json_response
from relaymgr.api.schemas.common import Output
from relaymgr.api.security import PUBLIC, VIEWER_EVERYWHERE, ServicesOf

router = APIRouter(tags=["system"])


class Health(Output):
    """Whether the process answers."""

    status: str = Field(examples=["ok"])
    """ok."""


class Readiness(Output):
    """Whether the service can do its work."""

    status: str = Field(examples=["ready"])
    """ready, or not_ready."""
    parts: dict[str, str] = Field(examples=[{"database": "ok"}])
    """Part and `ok`, or what is wrong with it."""


@router.get("/healthz", operation_id="get_health", dependencies=[PUBLIC], response_model=Health)
async def get_health() -> Health:
    """The process runs and answers; nothing else is looked at."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    dependencies=[PUBLIC],
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Something is not ready; `parts` says what."}},
)
async def get_readiness(services: ServicesOf) -> Response:
    """The database answers, and so do the other parts."""
    wrong = dict(services.ready())
    try:
        async with asyncio.timeout(5), services.database.session() as session:
            await session.execute(text("SELECT version FROM ads LIMIT 1"))
        parts = {"database": "ok"}
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        parts = {"database": type(error).__name__}
        wrong["database"] = parts["database"]
    body = {"status": "not_ready" if wrong else "ready", "parts": parts | wrong}
    return json_response(body, 503 if wrong else 200)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    dependencies=[VIEWER_EVERYWHERE],
    response_class=PlainTextResponse,
)
async def get_metrics(request: Request, services: ServicesOf) -> Response:
    """Metrics for Prometheus, which brings a viewer's token that is not scoped to ADs: they add up all of them."""
    await request.app.state.state_metrics.read(services)
    content = await asyncio.to_thread(metrics.text, services.metrics)
    return Response(content, media_type=metrics.CONTENT_TYPE)
