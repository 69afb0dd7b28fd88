"""One manager on SQLite and three processes of routers serve every story; each story takes routers nobody touched."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from acceptance.stage import Noc, routers

from lab.manager import Manager

COUNTS = {"mx80": 18, "iosxe": 8, "ios": 2}


@pytest.fixture(scope="session")
def noc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noc]:
    """The desk all stories share."""
    directory = tmp_path_factory.mktemp("noc")
    manager = Manager(directory)
    with ExitStack() as stack:
        stack.callback(manager.stop)
        with ThreadPoolExecutor() as pool:
            ready = pool.submit(manager.start)
            spare = {kind: stack.enter_context(routers(kind, directory, count)) for kind, count in COUNTS.items()}
            ready.result()
        yield Noc(manager, spare)
