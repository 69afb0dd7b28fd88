"""The border as the systemd unit runs it: no root, the unit's capabilities and no others, kernel settings read-only.

What else the unit keeps from it (system calls, files) is systemd's to enforce and not seen here.
"""

from __future__ import annotations

import configparser
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.agents import PROGRAM, Agent
from lab.frr import FrrRouter, border_router, domain_router, missing_for_frr
from lab.namespaces import Lab, wait_until
from lab.planes import wait_for_planes
from lab.scenario import Scenario
from lab.topology import SSM_GROUP_IPV4

UNIT = Path(__file__).parents[2] / "packaging" / "isthmus-agent.service"
USER, GROUP = "nobody", "nogroup"
QUICK_PIM = "[pim]\nhello_interval = 1.0\n"
MOUNTS = (
    "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && "  # ProtectKernelTunables=yes
    "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "  # anybody's, as udev makes it
)
"""In a mount namespace of its own."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_frr()), reason=f"FRR needs {', '.join(missing)}"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the program setpriv (util-linux)"),
]


def unprivileged() -> list[str]:
    """A command that starts another one with what the unit leaves it."""
    unit = configparser.RawConfigParser(strict=False)
    unit.read(UNIT)
    names = unit["Service"]["AmbientCapabilities"].lower().replace("cap_", "+").split()
    capabilities = ",".join(["-all", *names])
    command = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "--no-new-privs"]
    command += [f"--{kind}-caps={capabilities}" for kind in ("inh", "ambient")]
    command.append(f"--bounding-set={capabilities}")
    return ["unshare", "--mount", "sh", "-c", f'{MOUNTS}{" ".join(command)} "$@"', "sh"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the user reaches, unlike those of tests."""
    path = Path(tempfile.mkdtemp(prefix="islt-unit-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def make_border(make_lab: Callable[..., Lab], directory: Path) -> Iterator[Callable[[str], Scenario]]:
    """Makes a scenario whose border is run as the unit does it."""
    with ExitStack() as stack:

        def make(mode: str) -> Scenario:
            lab = make_lab(routed=1)
            tried = lab.run(lab.topology.border, *unprivileged(), *PROGRAM, "--version", check=False)
            if tried.returncode != 0:
                pytest.skip(f"{USER} cannot run the program here: {tried.stderr}")
            relay = {"query_interval": 1.0, "query_response_interval": 0.5}
            scenario = Scenario(lab, directory, relay=relay, gateway={"mode": mode}, sections=QUICK_PIM)
            place = scenario.border.place
            configuration = place.configuration.read_text()
            scenario.border = Agent(lab, place, "", wrapper=unprivileged())
            place.configuration.write_text(configuration)
            shutil.chown(place.state, USER, GROUP)
            directory.chmod(0o777)  # the API's socket is made there
            lab.run(lab.topology.border, *PROGRAM, "prepare", "--config", str(place.configuration))
            return stack.enter_context(scenario)

        yield make


def privileges(process: int) -> dict[str, str]:
    """Users and capabilities of a process, as its status tells them."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("mode", ["router", "frr"])
def test_the_unit_s_capabilities_are_enough_for_a_border(make_border, tmp_path, mode):
    scenario = make_border(mode)
    lab, names = scenario.lab, scenario.lab.topology
    had = privileges(scenario.border.process_id)
    assert "0" not in had["Uid"].split()
    assert had["CapEff"] == had["CapBnd"] == had["CapAmb"] != "0" * 16

    with ExitStack() as stack:
        if mode == "frr":
            codes = {problem["code"] for problem in scenario.border.get("status")["problems"]}
            assert "no_pim_neighbor" in codes, "FRR was told nothing yet"
            place = scenario.border.place
            lines = lab.run(names.border, *PROGRAM, "frr-config", "--config", str(place.configuration)).stdout
            frr = stack.enter_context(FrrRouter(lab, names.border, tmp_path, border_router(names, lines)))
            wait_until(lambda: frr.json("show ip pim neighbor").get("amt0"), 20, "FRR has the agent as its neighbour")
        stack.enter_context(FrrRouter(lab, names.routers()[0], tmp_path, domain_router(names, 1)))
        receiver = scenario.receive(SSM_GROUP_IPV4)
        scenario.send(SSM_GROUP_IPV4, "--rate", "200")
        receiver.wait_for_more(30, 100)
        (channel,) = scenario.border.channels()
        assert [item["kind"] for item in channel["interests"]] == ["pim"]
        wait_for_planes(scenario.border, xdp=1)
        status = scenario.border.get("status")
        assert status["ready"]
        assert status["problems"] == []
        if mode == "frr":
            assert scenario.border.get("statistics")["control"]["frr"]["route_errors"] == 0
            assert "suppress_prefixlength" in lab.run(names.border, "ip", "rule").stdout
