"""The domain of the demonstration: FRR routers between the border and the video's receiver, and what they say of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab import topology
from lab.frr import FrrRouter, domain_router
from lab.namespaces import Lab, wait_until

_NEIGHBOR_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class RouterChannel:
    """One channel as a router of the domain has it.

    Attributes:
        router: host name.
        source: of the channel, `*` for any.
        group: of the channel.
        state: of its Join towards the source, `Joined` when it was sent.
        incoming: interface its packets come in on.
        outgoing: interfaces they leave by.
    """

    router: str
    source: str
    group: str
    state: str
    incoming: str
    outgoing: tuple[str, ...]


class RoutedDomain:
    """FRR's routers of a lab with `routed` above 0."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Prepare them; their logs go to `directory`."""
        self._stack = ExitStack()
        names = lab.topology.routers()
        self._routers = {
            name: FrrRouter(lab, name, directory, domain_router(lab.topology, index))
            for index, name in enumerate(names, start=1)
        }

    def __enter__(self) -> Self:
        """Start them.

        Raises:
            LabError: one did not start.
        """
        try:
            for router in self._routers.values():
                self._stack.enter_context(router)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End them."""
        self._stack.close()

    def wait_for_neighbors(self) -> None:
        """Wait until each router has a PIM neighbour towards the border, so that a Join is sent at once.

        Raises:
            LabError: one has none.
        """
        for name, router in self._routers.items():

            def is_met(router: FrrRouter = router) -> bool:
                return bool(router.json("show ip pim neighbor").get(topology.ROUTER_UPSTREAM))

            wait_until(is_met, _NEIGHBOR_SECONDS, f"{name} has a PIM neighbour")

    def channels(self) -> list[RouterChannel]:
        """What each router joined and forwards, from the border to the receivers."""
        found = []
        for name, router in self._routers.items():
            upstream, routes = router.json("show ip pim upstream"), router.json("show ip mroute")
            for group, sources in upstream.items():
                for source, state in sources.items():
                    route = routes.get(group, {}).get(source, {})
                    found.append(
                        RouterChannel(
                            router=name,
                            source=source,
                            group=group,
                            state=state.get("joinState", "?"),
                            incoming=route.get("iif", "-"),
                            outgoing=tuple(sorted(set(route.get("oil", {})) - {"pimreg"})),
                        )
                    )
        return found
