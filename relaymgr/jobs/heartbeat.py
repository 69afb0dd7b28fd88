"""Keeps a lease while something is done under it, and ends that as soon as the lease cannot be counted on any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

Renew = Callable[[], Awaitable[bool]]
"""Holds the lease longer; False when it is somebody else's."""


@asynccontextmanager
async def kept(renew: Renew, lease: float, what: str, lost: Callable[[], Exception]) -> AsyncIterator[None]:
    """Renew while the block runs; end it with the exception `lost` makes once the lease may be somebody else's.

    Args:
        renew: renews the lease just taken.
        lease: how long it holds without renewal, seconds.
        what: is held; for the log.
        lost: makes what the block ends with.
    """
    owner = asyncio.current_task()
    assert owner is not None
    gone = False

    async def beat() -> None:
        nonlocal gone
        await _until_lost(renew, lease, what)
        gone = True
        owner.cancel()

    beating = asyncio.create_task(beat(), name=f"lease of {what}")
    try:
        yield
    except BaseException as error:
        # Tidying up after the cancellation may have failed with something else: the database may be away.
        if gone and owner.uncancel() == 0 and isinstance(error, Exception | asyncio.CancelledError):
            raise lost() from None
        raise
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


async def _until_lost(renew: Renew, lease: float, what: str) -> None:
    """Return when the lease is somebody else's, or ran out while the database did not answer."""
    loop = asyncio.get_running_loop()
    valid_until = loop.time() + lease
    while True:
        await asyncio.sleep(lease / 3)
        asked = loop.time()
        # A process that stood still past the end of its lease asks once: maybe nobody took over.
        answered = await _answer(renew, max(valid_until - asked, lease / 3), what)
        if answered:
            valid_until = asked + lease
        elif answered is False or loop.time() >= valid_until:
            return


async def _answer(renew: Renew, seconds: float, what: str) -> bool | None:
    """What renewing came to within `seconds`; None when there was no answer."""
    renewing = asyncio.ensure_future(renew())
    try:
        done, _ = await asyncio.wait({renewing}, timeout=seconds)
    except asyncio.CancelledError:
        renewing.cancel()
        raise
    if not done:
        # Not waited for: a database that hangs must not keep a worker at a device that is not its any more.
        renewing.add_done_callback(_ended)
        log.warning("lease of %s not renewed: no answer of the database", what)
        return None
    try:
        return renewing.result()
    except (SQLAlchemyError, OSError) as error:
        log.warning("lease of %s not renewed: %s", what, type(error).__name__)
        return None


def _ended(renewing: asyncio.Future[bool]) -> None:
    if not renewing.cancelled():
        renewing.exception()  # nobody waits for it any more
