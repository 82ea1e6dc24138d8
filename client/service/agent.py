"""`client --site centerA`: keeps this site in its studies until they end.

Two processes do the work: Flower's SuperNode, which carries messages, and the worker, which keeps models and data warm and is the
only one that reads images; it does one thing at a time, so that several studies take turns. This one starts them, starts them anew
when they end, and says on a line what the site is doing.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from client.service.participation import Participation
from client.service.status import STALE_S, silence_s, sole_client, why_idle
from client.trust.approval import APPROVAL
from client.trust.coordinator_link import coordinator_address
from client.worker.notes import ENDED, TURN, forget_turn
from csasn.errors import CsasnError
from csasn.platform.storage import private_folder
from csasn.platform.supervision import QUIET, Child, ServiceManager, end_on_sigterm, free_port
from csasn.site import Site
from csasn.trust.enrolment import AUTHORITY
from csasn.trust.identity import NODE_KEY

TURN_S = 0.5
WORKER = "worker"
Say = Callable[[str], None]


@dataclass
class Agent:
    """One site in all its studies; `tell_ready` is told at each turn whether the coordinator answers."""

    site: Site
    site_file: Path
    manager: ServiceManager
    say: Say
    tell_ready: Callable[[bool], None] = lambda _: None
    studies: dict[str, Participation] = field(default_factory=dict)  # by what `--site` is given for each; none that is over
    over: dict[str, str] = field(default_factory=dict)  # of those that are, what they ended with
    said: set[str] = field(default_factory=set)  # what is said once

    def __post_init__(self) -> None:
        first = Participation(self.site)
        self.kit, self.state = first.kit, first.state
        self.studies[self.site.called] = first
        self._find_studies()
        self.children = self._children()

    def run(self) -> None:
        """Takes part until every study has ended, or until SIGTERM or Ctrl-C.

        Raises:
            CsasnError: no study is left that this site can take part in; of several, why it cannot in the first one.
            RunError: another client is at work on this state folder.
        """
        end_on_sigterm()
        with sole_client(self.site.site, self.state):
            try:
                self._take_part()
            finally:
                self.manager.stopping()
                for child in reversed(self.children):
                    child.stop()

    def _take_part(self) -> None:
        with suppress(OSError):
            (self.state / ENDED).unlink(missing_ok=True)
        while True:
            self._find_studies()
            for called, study in list(self.studies.items()):
                self._take_part_in(called, study)
            if not self.studies:
                return
            self._raise_if_none_goes_on()
            self._turn()
            line = self.line()
            self.say(line)
            self.manager.alive(line)
            time.sleep(TURN_S)

    def line(self) -> str:
        """What this site is doing, on one line."""
        lines = {called: study.line() for called, study in self.studies.items()}
        if len(set(lines.values())) == 1:
            return next(iter(lines.values()))
        return "; ".join(f"{called}: {line}" for called, line in lines.items())

    def _find_studies(self) -> None:
        """Takes up what people here approved since; the worker is started anew for it."""
        for site in self.site.all_studies()[1:]:
            if site.called not in self.studies and site.called not in self.over and (site.kit_folder / APPROVAL).exists():
                try:
                    self.studies[site.called] = Participation(site)
                    self.studies[site.called].changed = True
                except CsasnError as error:  # people here may mend it
                    self._say_once(f"{site.called}: {error.message}")

    def _take_part_in(self, called: str, study: Participation) -> None:
        """A turn of one study, which is left once it is over."""
        study.turn()
        if study.facts is not None:
            self._say_offered(study.facts.further_studies)
        if study.is_finished:
            self.over[called] = study.note_finished()
            del self.studies[called]
            self.say(f"{called}: {self.over[called]}" if self.studies or len(self.over) > 1 else self.over[called])

    def _raise_if_none_goes_on(self) -> None:
        """Ends where no study can go on; while one does, the others are asked for again at each turn.

        Raises:
            CsasnError: why this site cannot take part in the first of them.
        """
        refusals = [study.refusal for study in self.studies.values()]
        if refusals[0] and all(refusals):
            raise refusals[0]

    def _say_offered(self, names: tuple[str, ...]) -> None:
        for name in names:
            called = self.site.in_study(name).called
            if called not in self.studies.keys() | self.over.keys():
                self._say_once(f"the coordinator offers study {name}: read it, client approve --site {called}")

    def _say_once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.say(line)

    def _turn(self) -> None:
        studies = self.studies.values()
        idle = bool(why_idle(self.site)) or all(study.facts is None for study in studies)  # whose version was not heard yet
        works = any(study.agreed for study in studies) and not any(study.changed for study in studies)
        for child in self.children:
            if child.name == WORKER and not child.is_running:
                forget_turn(self.site)
                for study in studies:
                    study.forget_doing()
            if idle or (child.name == WORKER and not works):
                child.stop()
            elif message := child.turn():
                self.say(message)
                if child.name == WORKER:  # the SuperNode would wait for a minute for its task, one started anew is sent it again
                    self.children[0].stop()
        for study in studies:
            study.changed = False
        connected = silence_s(self.site) <= STALE_S
        self.tell_ready(connected)
        if connected:
            self.manager.ready()

    def _children(self) -> list[Child]:
        port = free_port()
        python = [sys.executable, "-P", "-m", "client.service.processes"]
        logs = private_folder(self.state / "logs")
        arguments = [
            "--superlink", coordinator_address(self.site, self.kit), "--root-certificates", str(self.site.kit_folder / AUTHORITY),
            "--auth-supernode-private-key", str(self.site.keys_folder / NODE_KEY), "--isolation", "process",
            "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        environment, site_file = children_environment(os.environ), str(self.site_file.resolve())
        node = [*python, "node", str(os.getpid()), site_file, str(self.state / TURN), *arguments]
        worker = [*python, "worker", str(os.getpid()), str(port), site_file]
        return [
            Child("SuperNode", node, logs / "node.log", environment),
            Child(WORKER, worker, logs / "worker.log", environment),
        ]


def children_environment(own: Mapping[str, str]) -> dict[str, str]:
    """`own` without a proxy that the machine names for other programs (`*_proxy`, in whatever case), and none to loopback.

    The SuperNode takes that of the site file (client/service/processes.py).
    """
    kept = {name: value for name, value in own.items() if not name.lower().endswith("_proxy")}
    return kept | QUIET | {"NO_PROXY": "127.0.0.1"}
