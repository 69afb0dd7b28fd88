"""What can be asked of the agent: static joins and draining."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from agent.service.api.problems import RequestRefused, responses
from agent.service.model import DrainRequest, DrainStatus, JoinRequest, JoinStatus
from agent.service.port import AgentService


class JoinList(BaseModel):
    """Every static join."""

    items: list[JoinStatus] = Field(description="Static joins, those of the configuration first.")


def router(service: AgentService) -> APIRouter:
    """Routes that steer."""
    routes = APIRouter(tags=["steering"])

    @routes.get("/v1/joins", operation_id="list_joins", summary="Static joins", responses=responses())
    async def list_joins() -> JoinList:
        return JoinList(items=list(service.joins()))

    @routes.post(
        "/v1/joins",
        operation_id="add_join",
        summary="Want a channel until it is removed",
        description="Kept across restarts. Answers 201 for a new join and 200 for one that was there.",
        status_code=201,
        responses={
            **responses("invalid_channel", "unknown_interface", "wrong_role", "limit_reached", "not_stored"),
            200: {"description": "The join was there already.", "model": JoinStatus},
        },
    )
    async def add_join(request: JoinRequest, response: Response) -> JoinStatus:
        join, is_new = service.add_join(request)
        if not is_new:
            response.status_code = 200
        return join

    @routes.delete(
        "/v1/joins",
        operation_id="remove_join",
        summary="Stop wanting a channel",
        status_code=204,
        responses=responses("no_such_join", "join_is_configured", "wrong_role", "not_stored"),
    )
    async def remove_join(request: JoinRequest) -> None:
        if not service.remove_join(request):
            raise RequestRefused("no_such_join", "there is no such join")

    @routes.put(
        "/v1/drain",
        operation_id="set_drain",
        summary="Turn new tunnels away, or take them again",
        responses=responses("wrong_role"),
    )
    async def set_drain(request: DrainRequest) -> DrainStatus:
        return service.set_drain(request.enabled)

    return routes
