"""Whatever happens to relays and DNS: healthy tunnels are left alone, and somebody is there when anybody can be."""

from ipaddress import ip_address, ip_network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.protocol.channels import Channel
from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_selection import RelaySelection
from agent.protocol.relay_selection_config import SelectionConfig

CONFIGURED = [
    RelayCandidate("a6", relay="a", preference=0, sources=(ip_network("10.0.0.0/8"),)),
    RelayCandidate("a4", relay="a", preference=0, sources=(ip_network("10.0.0.0/8"),)),
    RelayCandidate("b", preference=1, sources=(ip_network("10.0.0.0/8"),), tunnels=2),
    RelayCandidate("c", preference=2, sources=(ip_network("10.0.0.0/8"),)),
]
DISCOVERED = ["w", "x", "y", "z"]
TUNNELS = [name for item in CONFIGURED for name in item.tunnel_names] + DISCOVERED
CHANNELS = [
    Channel.parse(source, group)
    for source in ("10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.2")
    for group in ("232.1.1.1", "232.9.1.1")
]
CONFIG = SelectionConfig(hold_down=20.0, failback_delay=5.0, patience=0.25, live_live=(ip_network("232.9.0.0/16"),))

tunnels = st.sampled_from(TUNNELS)
channels = st.sampled_from(CHANNELS)
sources = st.sampled_from([ip_address("192.0.2.1"), ip_address("192.0.2.2")])
lists = st.lists(st.tuples(st.sampled_from(DISCOVERED), st.integers(0, 2)), max_size=4, unique_by=lambda item: item[0])


class Relays(RuleBasedStateMachine):
    """Relays come, go and fail, DNS answers change, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.selection = RelaySelection(CONFIG, CONFIGURED)
        self.up: set[str] = set()
        self.wanted: dict[Channel, tuple[str, ...]] = {}

    def relay(self, tunnel: str) -> str:
        candidate = self.selection.candidate(tunnel)
        return tunnel if candidate is None else candidate.identity

    def follow(self) -> None:
        """What the directory does with every change."""
        for group in self.selection.changed():
            for channel in self.wanted:
                if channel.group == group:
                    self.wanted[channel] = self.selection.select(channel, self.now)

    @rule(channel=channels)
    def join(self, channel: Channel) -> None:
        self.wanted[channel] = self.selection.select(channel, self.now)

    @rule(channel=channels)
    def leave(self, channel: Channel) -> None:
        self.wanted.pop(channel, None)
        self.selection.release(channel)

    @rule(tunnel=tunnels)
    def answers(self, tunnel: str) -> None:
        self.selection.trying(tunnel, self.now)
        self.selection.established(tunnel, None, self.now)
        self.up.add(tunnel)
        self.follow()

    @rule(tunnel=tunnels)
    def fails(self, tunnel: str) -> None:
        self.up.discard(tunnel)
        self.selection.failed(tunnel, "request_unanswered", self.now)
        self.selection.trying(tunnel, self.now)
        self.follow()

    @rule(tunnel=tunnels)
    def sinks(self, tunnel: str) -> None:
        """A tunnel nothing goes through becomes idle."""
        if not self.selection.assigned.through(tunnel):
            self.up.discard(tunnel)
            self.selection.idle(tunnel)
            self.follow()

    @rule(tunnel=st.sampled_from(DISCOVERED))
    def ends(self, tunnel: str) -> None:
        self.up.discard(tunnel)
        self.selection.ended(tunnel)
        self.follow()

    @rule(source=sources, found=lists)
    def refreshes(self, source, found) -> None:
        before = dict(self.wanted)
        listed = [RelayCandidate(name, preference=preference, origin="driad") for name, preference in found]
        self.selection.discovered(source, sorted(listed, key=lambda item: item.preference))
        self.follow()
        for channel, names in before.items():
            healthy = [name for name in names if name in self.up and not self.held(name)]
            is_avoided = channel in self.selection._avoided
            if channel.source == source and not is_avoided:
                assert set(healthy) <= set(self.wanted[channel]), "a DNS refresh took a channel from a healthy tunnel"

    @rule()
    def way_is_back(self) -> None:
        self.selection.forgive(self.now)
        self.follow()

    @rule(channel=channels)
    def stops(self, channel: Channel) -> None:
        for name in self.wanted.get(channel, ()):
            self.selection.channel_silent(channel, name, self.now)
        self.follow()

    @rule(seconds=st.sampled_from([0.1, 0.3, 3.0, 6.0, 30.0, 400.0]))
    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.selection.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.selection.handle_timer(self.now)
            self.follow()
        self.now = end

    def held(self, tunnel: str) -> bool:
        return self.selection.health.get(tunnel).is_held(self.now)

    @invariant()
    def somebody_is_there(self) -> None:
        for channel, names in self.wanted.items():
            assert names or not self.selection.candidates(channel)

    @invariant()
    def never_twice_the_same_relay(self) -> None:
        for channel, names in self.wanted.items():
            limit = 2 if channel.group == CHANNELS[1].group else 1
            assert len({self.relay(name) for name in names}) == len(names) <= limit

    @invariant()
    def whoever_is_well_is_used(self) -> None:
        """A channel that hangs on nobody who answers has no candidate that answers and is not held down."""
        for channel, names in self.wanted.items():
            if not names or any(name in self.up for name in names):
                continue
            for candidate in self.selection.candidates(channel):
                well = [name for name in candidate.tunnel_names if name in self.up and not self.held(name)]
                if candidate.identity not in self.selection._avoided_relays(channel, self.now):
                    is_hopeful = any(self.is_hopeful(name) for name in names)
                    assert not well or is_hopeful, f"{channel} is on {names}, though {well} is well"

    def is_hopeful(self, tunnel: str) -> bool:
        health = self.selection.health.get(tunnel)
        candidate = self.selection.candidate(tunnel)
        if candidate is not None and any(name in self.up for name in candidate.tunnel_names):
            return not health.is_held(self.now)  # one tunnel of its relay answers, this one is being opened
        return not health.failures and (health.tried_at is None or self.now - health.tried_at <= CONFIG.patience + 1e-6)

    @invariant()
    def selection_is_stable(self) -> None:
        """Asking again gives the same answer: nothing moves without a reason."""
        for channel, names in self.wanted.items():
            assert self.selection.select(channel, self.now) == names


Relays.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRelays = Relays.TestCase
