"""One command line session: user and privileged EXEC, configuration modes, show commands with output filters."""

from __future__ import annotations

from collections.abc import Callable

from lab.sim.cli_shell import Reply
from lab.sim.iosxe.configuration import Path
from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.exec_commands import COMMANDS
from lab.sim.iosxe.grammar import MODES
from lab.sim.iosxe.output_filter import filtered
from lab.sim.iosxe.words import Refusal, Trace, ambiguous, best, match_all, not_understood, split

_LOCKED = "Configuration mode locked exclusively by user 'other' process '3' from terminal '2'. Please try later.\n"
_SHOWN_LENGTH = 24
_ENTER = "Enter configuration commands, one per line.  End with CNTL/Z.\n"


class Session:
    """One logged-in user.

    Args:
        device: the router.
        user: who.
    """

    def __init__(self, device: IosDevice, user: str) -> None:
        self.device: IosDevice = device
        self.user = user
        self.number: int = device.next_session()
        self.page_length = _SHOWN_LENGTH
        self.privilege: int = device.privilege_of(user)
        self.configuring = False
        self.path: Path = ()
        self._answering: Callable[[str], Reply | str] | None = None
        self._tries = 0

    @property
    def prompt(self) -> str:
        """`hostname>`, `hostname#` or `hostname(config-if)#`."""
        hostname = self.device.running.hostname
        if not self.configuring:
            return hostname + ("#" if self.privilege > 1 else ">")
        mode = MODES[self.path[-1].mode or "global"] if self.path else MODES["global"]
        return f"{hostname[:20]}({mode.prompt})#"

    def execute(self, line: str) -> Reply:
        """Obey one line, or take it as the answer to the last question."""
        self.device.touched(self.number)
        answering, self._answering = self._answering, None
        try:
            if answering is not None:
                return _reply(answering(line), "answer")
            if not line.strip() or line.lstrip().startswith("!"):
                return Reply()
            return self._configure(line) if self.configuring else self._exec(line)
        except Refusal as refusal:
            return Reply(refusal.text, name="refused")

    def ask(self, question: str, then: Callable[[str], Reply | str], *, secret: bool = False) -> Reply:
        """Print `question`; the next line goes to `then`."""
        self._answering = then
        return Reply(question=question, secret=secret)

    # EXEC

    def _exec(self, line: str) -> Reply:
        command, bar, output_filter = line.partition("|")
        entries = [entry for entry in COMMANDS if self.privilege > 1 or not entry[1]]
        words = split(command)
        trace = Trace()
        found = match_all([entry[0] for entry in entries], command, words, trace)
        chosen = best([one for one in found if one[1].complete])
        if not chosen:
            raise not_understood(command, words, trace, len(self.prompt))
        if len(chosen) > 1:
            raise ambiguous(line)
        number, candidate = chosen[0]
        reply = _reply(entries[number][2](self, candidate.words), " ".join(candidate.words))
        if bar and reply.text:
            return Reply(filtered(reply.text, output_filter, len(self.prompt) + len(command) + 1), name=reply.name)
        return reply

    # Configuration

    def _configure(self, line: str) -> Reply:
        first, *rest = line.split()
        word = first.lower()
        if word == "end" and not rest:
            self._leave()
            return Reply(name="end", commits=True)
        if word == "exit" and not rest:
            if self.path:
                self.path = self.path[:-1]
            else:
                self._leave()
            return Reply(name="exit")
        if word == "do" and rest:
            return self._exec(line.split(None, 1)[1])
        self._forget_removed()
        self.path = self.device.configure(line, self.path, self.user, len(self.prompt))
        return Reply(name="configuration line")

    def _forget_removed(self) -> None:
        """A section that a rollback replaced is found again by its name, or left."""
        lines = self.device.running.root.children
        kept: Path = ()
        for section in self.path:
            current = next((line for line in lines if line.text == section.text), None)
            if current is None:
                break
            kept = (*kept, current)
            lines = current.children
        self.path = kept

    def _leave(self) -> None:
        self.configuring = False
        self.path = ()

    def check_configurable(self) -> None:
        """Raises Refusal when the user may not configure, or somebody else holds the lock."""
        if "lock-held" in self.device.faults:
            raise Refusal(_LOCKED)
        if not self.device.may_configure(self.user):
            raise Refusal("% Authorization failed.\n")

    def enter_configuration(self) -> str:
        """Go to global configuration mode."""
        self.configuring = True
        self.path = ()
        return _ENTER


def _reply(answer: Reply | str, name: str) -> Reply:
    if isinstance(answer, str):
        return Reply(answer, name=name)
    return Reply(answer.text, answer.question, answer.secret, answer.ends, answer.commits, name)
