"""The manager's part of the demonstration: three relays enrolled, planned, changed, taken back, drained and watched.

Everything goes through the REST API, the way a script of an operator's would. The simulated MX80 shows the tunnels of
the software relay next to it, so what it reports is the live stream.
"""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from lab import topology
from lab.manager import USERNAME, Manager, Simulated, simulated
from lab.namespaces import LabError, wait_until

_MINUTE_SECONDS: Final = "6"
"""What a minute of a confirmed commit lasts on the simulated routers; the manager sends real minutes."""

_CONFIRMED_COMMIT: Final = "confirm-timeout"
"""What the wire log of the simulated MX80 says of one."""

_FAMILY: Final = {"anycast_prefix": "192.0.2.0/25", "anycast_address": "192.0.2.1", "local_address": "198.51.100.7"}
_INTENTS: Final[dict[str, dict[str, Any]]] = {
    "mx80": {
        "inet": _FAMILY,
        "tunnel_limit": 5000,
        "accounting": True,
        "igmp": {"version": 3, "query_interval_seconds": 60},
        "tunnel_services": {"fpc": 1, "pic": 0, "bandwidth_gbps": 1},
        "pim_interfaces": [{"name": "ge-1/0/0.0"}],
        "junos": {"tunnel_devices": ["ud-1/0/0"]},
    },
    "iosxe": {
        "inet": _FAMILY,
        "pim_interfaces": [{"name": "GigabitEthernet1"}],
        "iosxe": {"tunnel_address": "10.226.8.1", "tunnel_prefix_length": 24},
    },
    "isthmus": {
        "inet": {
            "anycast_prefix": f"{topology.DISCOVERY.ipv4}/32",
            "anycast_address": str(topology.DISCOVERY.ipv4),
            "local_address": str(topology.RELAY.ipv4),
        },
        "inet6": {
            "anycast_prefix": f"{topology.DISCOVERY.ipv6}/128",
            "anycast_address": str(topology.DISCOVERY.ipv6),
            "local_address": str(topology.RELAY.ipv6),
        },
        "tunnel_limit": 500,
    },
}


class ManagedRelays:
    """The manager, a simulated MX80 and IOS-XE, and our relay, in a directory of their own."""

    def __init__(self, directory: Path, relay_socket: Path, console: Console) -> None:
        """`relay_socket` is where the software relay's REST interface listens."""
        self._directory = directory
        self._relay_socket = relay_socket
        self._console = console
        self._stack = ExitStack()
        self._ids: dict[str, str] = {}
        self.manager = Manager(directory)

    def start(self) -> None:
        """Start simulators and manager, and enrol the relays.

        Raises:
            LabError: one of them did not start, or the manager refused something.
        """
        password = secrets.token_urlsafe(16)
        live = ("--live", f"unix://{self._relay_socket}", "--minute-seconds", _MINUTE_SECONDS)
        self._mx80 = self._simulate("mx80", password, *live)
        self._iosxe = self._simulate("iosxe", password, "--tunnels", "3", *live[2:])
        self._stack.callback(self.manager.stop)
        self.manager.start()
        self._say(f"relay manager at {self.manager.url}, API description at {self.manager.url}/openapi.json")
        self._enrol(password)

    def close(self) -> None:
        """End everything started here."""
        self._stack.close()

    def _simulate(self, kind: str, password: str, *options: str) -> Simulated:
        return self._stack.enter_context(simulated(kind, self._directory, password, *options))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _enrol(self, password: str) -> None:
        call = self.manager.call
        operator = call("POST", "/ads", json={"name": "relay operator", "asn": 64500, "prefixes": ["192.0.2.0/24"]})
        border = {"name": "border AD", "asn": 64501, "prefixes": ["203.0.113.0/24", "2001:db8:b::/48"]}
        call("POST", "/ads", json=border)
        sealed = {"name": "routers", "username": USERNAME, "kind": "password", "source": "sealed", "secret": password}
        credential = call("POST", "/credentials", json=sealed)["id"]
        common = {"ad_id": operator["id"], "poll_interval_seconds": 5, "commit_timeout_seconds": 20}
        for name, platform, sim in (("mx80", "junos", self._mx80), ("iosxe", "iosxe", self._iosxe)):
            place = {"host": "127.0.0.1", "port": sim.port}
            key = call("POST", "/relays/scan-host-key", json={**place, "legacy_ssh": False})
            self._say(f"{name}: host key {key['fingerprint']}, pinned")
            relay = {"name": name, "platform": platform, **place, "netconf_port": sim.netconf_port, **common}
            self._add({**relay, "credential_id": credential, "host_key": key["host_key"]})
        self._add({"name": "isthmus", "platform": "isthmus", "host": f"unix://{self._relay_socket}", **common})

    def _add(self, relay: dict[str, Any]) -> None:
        self._ids[relay["name"]] = self.manager.call("POST", "/relays", json=relay)["id"]

    def tell(self) -> None:
        """Plan and apply on each, lose one change to the timer, drain one, and show the tunnels.

        Raises:
            LabError: something went otherwise than it should.
        """
        for name, intent in _INTENTS.items():
            self.manager.put_intent(self._ids[name], intent)
            self._apply(name, "succeeded")
        self._lose_a_change_to_the_timer()
        for kind in ("drain", "undrain"):
            job = self._change("mx80", kind)
            self._say(
                f"mx80: {kind} {job['state']}; tunnels stay, new gateways go elsewhere"
                if kind == "drain"
                else f"mx80: {kind} {job['state']}"
            )
        wait_until(self._tunnels, 30.0, "the manager knows the tunnels of the live stream")
        self._console.print(self.table())

    def _apply(self, name: str, expected: str) -> dict[str, Any]:
        relay = self._ids[name]
        plan = self.manager.call("POST", f"/relays/{relay}/plan", json={"kind": "apply"})
        self._say(f"{name}: plan, diff from the {plan['diff_source']}:")
        self._console.print(
            Syntax(plan["diff"].rstrip() or "(nothing would change)", "diff", background_color="default")
        )
        body = {"plan": plan["id"], "confirm_minutes": 1, "comment": "demonstration"}
        job = self._finish(name, self.manager.call("POST", f"/relays/{relay}/apply", json=body), expected)
        self._say(f"{name}: apply {job['state']}, as read back from the device")
        return job

    def _change(self, name: str, kind: str) -> dict[str, Any]:
        body = {"confirm_minutes": 1, "comment": "demonstration"}
        return self._finish(
            name, self.manager.call("POST", f"/relays/{self._ids[name]}/{kind}", json=body), "succeeded"
        )

    def _finish(self, name: str, job: dict[str, Any], expected: str) -> dict[str, Any]:
        job = self.manager.wait_for_job(job["id"])
        if job["state"] != expected:
            raise LabError(f"{name}: {job['kind']} ended {job['state']}: {job['error_code']} {job['error_detail']}")
        return job

    def _lose_a_change_to_the_timer(self) -> None:
        """Kill the manager inside a confirm window: the device goes back by itself, the next manager finds out."""
        relay = self._ids["mx80"]
        for tunnel_limit in (1, 2, 3):  # a change may be confirmed before the manager is killed; then another is made
            self.manager.put_intent(relay, _INTENTS["mx80"] | {"tunnel_limit": tunnel_limit})
            plan = self.manager.call("POST", f"/relays/{relay}/plan", json={"kind": "apply"})
            sent = self._mx80.messages().count(_CONFIRMED_COMMIT)
            body = {"plan": plan["id"], "confirm_minutes": 1, "comment": "a change nobody confirms"}
            job = self.manager.call("POST", f"/relays/{relay}/apply", json=body)
            wait_until(lambda: self._mx80.messages().count(_CONFIRMED_COMMIT) > sent, 30.0, "the commit", 0.002)  # noqa: B023
            self.manager.kill()
            if _history(self._mx80)["deadline"] is not None:
                break
            self.manager.start()
            self._finish("mx80", job, "succeeded")
        self._say("mx80: manager killed inside the confirm window; the router waits for nobody")
        wait_until(lambda: _gone_back(self._mx80), 30.0, "the router goes back by itself")
        self.manager.start()
        self._finish("mx80", job, "rolled_back")
        self._say("mx80: the next manager read the router and recorded: rolled_back")
        self.manager.put_intent(relay, _INTENTS["mx80"])

    def _tunnels(self) -> list[dict[str, Any]]:
        return self.manager.items(f"/tunnels?relay_id={self._ids['mx80']}")

    def table(self) -> Table:
        """Tunnels of every relay, with the AD of the gateway, as the API tells them."""
        names = {identifier: name for name, identifier in self._ids.items()}
        ads = {ad["id"]: ad["name"] for ad in self.manager.items("/ads")}
        table = Table(title=f"Tunnels at {self.manager.url}/api/v1/tunnels", title_justify="left")
        for heading in ("relay", "gateway", "AD of the gateway", "state", "channels", "packets", "seen"):
            table.add_column(heading, justify="right" if heading in {"channels", "packets"} else "left")
        for row in self.manager.items("/tunnels"):
            gateway = f"{row['gateway_address']} port {row['gateway_port']}"
            figures = [_known(row["channels"]), _known(row["packets"])]
            ad = ads.get(row["ad_id"], "-")
            table.add_row(names[row["relay_id"]], gateway, ad, row["state"], *figures, row["seen_at"][11:19])
        return table


def _history(mx80: Simulated) -> dict[str, Any]:
    """What the simulator keeps over a restart: `deadline` of an open confirm window, `commits`, the latest first."""
    history: dict[str, Any] = json.loads(mx80.state.read_text())
    return history


def _gone_back(mx80: Simulated) -> bool:
    return bool(_history(mx80)["commits"][0]["comment"] == "rollback of unconfirmed commit")


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)
