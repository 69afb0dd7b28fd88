"""A manager for tests: API, planner and jobs are real, devices are synthetic and time is the world's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
from jobs.fake_device import SEALER
from jobs.job_world import INTENT, Setting

from relaymgr.api.app import create_app
from relaymgr.api.services import PresentedHostKey, Services
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.drivers.errors import Unreachable
from relaymgr.drivers.protocol import DeviceTarget
from relaymgr.settings import Settings
from relaymgr.store import tokens
from relaymgr.store.principals import Role

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
__all__ = ["HOST_KEY", "INTENT", "Manager"]


class Access:
    """Notes which sessions were given up."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, relay_id: str) -> None:
        self.forgotten.append(relay_id)


async def scan(host: str, port: int, *, legacy: bool, timeout: float) -> PresentedHostKey:  # noqa: ASYNC109
    if host == "dead.example.net":
        raise Unreachable(host, "connection refused")
    return PresentedHostKey(HOST_KEY, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU")


def check_intent(target: DeviceTarget, intent: RelayIntent) -> None:
    if intent.inet6 is not None:
        raise CapabilityMissing(Capability.AMT_IPV6, "Junos has AMT for IPv4 only")


class Manager:
    """Everything around one application, and clients of it."""

    def __init__(self, database: Any, **settings: Any) -> None:
        self.setting = Setting(database)
        self.world = self.setting.world
        self.database = database
        self.process, self.jobs = self.setting.process()
        self.access = Access()
        self.services = Services(
            database=database,
            settings=Settings(**settings),
            sealer=SEALER,
            planner=self.jobs.planner,
            jobs=self.jobs.service,
            rollouts=self.jobs.rollouts,
            drift=self.jobs.drift,
            access=self.access,
            scan_host_key=scan,
            check_intent=check_intent,
            clock=self.world.clock,
        )
        self.app = create_app(self.services)
        self._clients: list[httpx.AsyncClient] = []

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, client=("192.0.2.200", 40000))
        made = httpx.AsyncClient(transport=transport, base_url="http://manager.example", headers=headers)
        self._clients.append(made)
        return made

    async def token(self, role: str, ad_ids: Sequence[str] = (), name: str | None = None) -> str:
        async with self.database.begin() as session:
            made = await tokens.create(
                session,
                name=name or f"{role}{'-scoped' if ad_ids else ''}",
                role=Role(role),
                created_by="test",
                now=self.world.now,
                ad_ids=ad_ids,
            )
        return made.text

    async def as_role(self, role: str, ad_ids: Sequence[str] = ()) -> httpx.AsyncClient:
        return self.client(await self.token(role, ad_ids))

    async def add_relay(self, name: str = "mx1", **values: Any) -> str:
        """A relay that plans and jobs may touch."""
        async with self.database.begin() as session:
            from relaymgr.store.tables import CredentialRecord

            credential = CredentialRecord(
                name=f"credential of {name}",
                username="isthmus",
                kind="password",
                source="env",
                reference="ISTHMUS_CREDENTIAL_X",
                created_at=self.world.now,
                updated_at=self.world.now,
            )
            session.add(credential)
            await session.flush()
        return await self.setting.add_relay(name, **{"host_key": HOST_KEY, "credential_id": credential.id, **values})

    async def finish(self, *job_ids: str) -> None:
        await self.setting.finish(self.process, self.jobs, *job_ids)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(answer.text)
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:isthmus:problem:{code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    return body
