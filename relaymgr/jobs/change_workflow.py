"""One change of one device, by a worker that may die at any moment.

Before the first byte that changes anything is sent, the attempt is in the job's row and the relay's row names the job
as the owner of its confirm window. From then on there is one path for the worker that began and for those that come
after it: read the device, judge, act on the verdict, read again. The device is asked to commit once and never again.
"""

from __future__ import annotations

from datetime import datetime

from relaymgr.jobs.attempt import attempt_of
from relaymgr.jobs.errors import RelayBusy
from relaymgr.jobs.held import Held
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.settling import Settler
from relaymgr.jobs.starting import Starter


class ChangeWorkflow:
    """Runs jobs of the kinds that change a device."""

    def __init__(self, parts: Parts, starter: Starter, settler: Settler) -> None:
        self._parts = parts
        self._starter = starter
        self._settler = settler

    async def run(self, held: Held) -> datetime | None:
        """Carry a job as far as it goes now. Returns when it is to be woken again; None when it ended.

        Raises:
            LeaseLost: another worker has it.
        """
        try:
            async with held.relay():
                attempt = attempt_of(held.job) or await self._starter.start(held)
                return None if attempt is None else await self._settler.settle(held, attempt)
        except RelayBusy as busy:
            if attempt_of(held.job) is not None:
                return await held.park(self._parts.timing.busy)
            return await held.requeue(self._parts.timing.busy, str(busy))
