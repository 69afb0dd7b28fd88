"""A worker process on procrastinate with a synthetic device kept in a file; started and killed by a test.

Arguments: database URL, state file, relay id, and how long a commit and a confirmation hang here, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from jobs.fake_device import SEALER, FakeDevice, FakeDriver, OpenWindow, World
from jobs.job_world import probe

from relaymgr.jobs.assembly import assemble
from relaymgr.jobs.parts import Parts, Timing, utc_now
from relaymgr.jobs.procrastinate_engine import ProcrastinateEngine
from relaymgr.store.database import Database


class FileAccess:
    """The device's state survives its users in a file."""

    def __init__(self, path: Path, hang: float) -> None:
        self.path, self.hang = path, hang

    def load(self) -> FakeDevice:
        world = World()
        world.now = utc_now()
        device = FakeDevice(world)
        state = json.loads(self.path.read_text())
        device.sections, device.log = state["sections"], [tuple(entry) for entry in state["log"]]
        if state["window"]:
            mark, back_to, until = state["window"]
            device.window = OpenWindow(mark, back_to, utc_now().fromisoformat(until))
        return device

    def save(self, device: FakeDevice) -> None:
        window = device.window
        state = {
            "sections": device.sections,
            "log": device.log,
            "window": [window.mark, window.back_to, window.until.isoformat()] if window else None,
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self.path)

    @asynccontextmanager
    async def configuring(self, relay_id: str, *, urgent: bool = False):
        device = self.load()
        driver = FakeDriver(device, lambda _: self.save(device))
        begin, hang = driver.begin_change, self.hang

        async def begin_and_hang(change):
            await begin(change)
            await asyncio.sleep(hang)

        driver.begin_change = begin_and_hang
        yield driver
        self.save(device)

    monitoring = configuring

    def renew(self, relay_id: str) -> None:
        pass

    def forget(self, relay_id: str) -> None:
        pass


async def main(url: str, state: str, hang: float) -> None:
    database = Database(url)
    parts = Parts(database, FileAccess(Path(state), hang), SEALER, timing=Timing(lease=2.0, read_again=0.3, busy=0.3))
    engine = ProcrastinateEngine(url, workers=4)
    jobs = assemble(parts, engine, probe=probe, reaper_interval=0.5)
    await jobs.start()
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await jobs.stop()
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
