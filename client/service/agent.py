"""`client --site centerA`: keeps this site in the study until it ends.

Two processes do the work: Flower's SuperNode, which carries messages, and the worker, which keeps model and data warm and is the
only one that reads images. This one starts them, starts them anew when they end, and says on one line what the site is doing.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from client.service.status import CONNECTING, STALE_S, WAITING, silence_s, sole_client, why_idle
from client.trust.approval import keep_approvals, read_approved
from client.trust.coordinator_link import (
    ask_facts,
    check_clock,
    check_same_version,
    check_study,
    coordinator_address,
)
from client.worker.notes import DOING, ENDED, TURN, Doing, find_disk_trouble, note, read_note
from csasn.errors import NetworkError, StorageError, TrustError
from csasn.platform.storage import private_folder
from csasn.platform.supervision import QUIET, Child, ServiceManager, end_on_sigterm, free_port
from csasn.site import Site
from csasn.trust.enrolment import AUTHORITY, Kit, read_kit
from csasn.trust.facts import CoordinatorFacts, SiteFacts
from csasn.trust.identity import NODE_KEY
from csasn.trust.membership import Approval, Membership

TURN_S = 0.5
ASK_S = 5.0
WORKER = "worker"
Say = Callable[[str], None]


@dataclass
class Agent:
    """One site of one study; `tell_ready` is told at each turn whether the coordinator answers."""

    site: Site
    site_file: Path
    manager: ServiceManager
    say: Say
    tell_ready: Callable[[bool], None] = lambda _: None
    kit: Kit = field(init=False)
    membership: Membership = field(init=False)
    approval: Approval = field(init=False)
    facts: CoordinatorFacts | None = None
    trouble: str = ""
    agreed: bool = False
    disk_trouble: str = ""
    _asked: float = 0.0
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self.kit, _ = read_kit(self.site.kit_folder)
        self._take_up()
        self.state = private_folder(Path(self.site.state))
        self.children = self._children()

    def run(self) -> CoordinatorFacts:
        """Takes part until the study ends, or until SIGTERM or Ctrl-C; returns what the coordinator said last.

        Raises:
            TrustError: the coordinator is not the one of the kit, its membership another than this site approved, or its clock is
            another.
            ProtocolError: its version is another.
            RunError: another client is at work on this state folder.
        """
        end_on_sigterm()
        with sole_client(self.site.site, self.state):
            try:
                facts = self._take_part()
            finally:
                self.manager.stopping()
                for child in reversed(self.children):
                    child.stop()
            line = f"the study is finished: {facts.run_status}"
            self.say(line)
            note(self.state / DOING, Doing(doing=line, time=time.time(), finished=facts.study_hash))
        return facts

    def _take_part(self) -> CoordinatorFacts:
        with suppress(OSError):
            (self.state / ENDED).unlink(missing_ok=True)
        while True:
            if time.monotonic() - self._looked > ASK_S:
                self._looked, self.disk_trouble = time.monotonic(), find_disk_trouble(self.state)
            self._ask()
            if self.facts and self.facts.phase == "finished":
                return self.facts
            self._turn()
            line = self.line()
            self.say(line)
            self.manager.alive(line)
            time.sleep(TURN_S)

    def line(self) -> str:
        """What this site is doing, on one line."""
        if reason := why_idle(self.site):
            return reason
        if self.disk_trouble:
            return self.disk_trouble
        if self.trouble:
            return self.trouble
        if silence_s(self.state) > STALE_S:
            return CONNECTING
        doing = read_note(self.state / DOING, Doing)
        return doing.doing if doing else WAITING

    def _turn(self) -> None:
        idle = bool(why_idle(self.site)) or self.facts is None  # whose version was not heard yet
        for child in self.children:
            if child.name == WORKER and not child.is_running:
                self._forget_doing()
            if idle or (child.name == WORKER and not self.agreed):
                child.stop()
            elif message := child.turn():
                self.say(message)
                if child.name == WORKER:  # the SuperNode would wait for a minute for its task, one started anew is sent it again
                    self.children[0].stop()
        connected = silence_s(self.state) <= STALE_S
        self.tell_ready(connected)
        if connected:
            self.manager.ready()

    def _forget_doing(self, *, finished: bool = False) -> None:
        """Drops what a worker that is gone noted last; that the study has ended stays, unless that is `finished` to be dropped."""
        doing = read_note(self.state / DOING, Doing)
        if bool(doing and doing.finished) is finished:
            with suppress(OSError):  # a disk that was made read-only after an error: it is said as such
                (self.state / DOING).unlink(missing_ok=True)

    def _ask(self) -> None:
        """Tells the coordinator of this site's approval, and keeps what others approved, where it all holds."""
        if time.monotonic() - self._asked < ASK_S:
            return
        self._asked = time.monotonic()
        try:
            self._take_up()
        except (TrustError, StorageError) as error:  # of what lies here; it may be brought back
            self.trouble, self.agreed = error.message, False
            return
        said = SiteFacts(site=self.site.site, study_hash=self.kit.study_hash, approval=self.approval)
        try:
            self.facts = ask_facts(self.site, self.kit, said)
            self.trouble = ""
        except NetworkError as error:
            self.trouble = f"the coordinator does not answer: {error.message}"
            return
        check_study(self.facts, self.kit)
        check_clock(self.facts)
        check_same_version(self.facts)
        if self.facts.phase != "finished":
            self._forget_doing(finished=True)  # of an earlier run
        self.trouble = self._agree(self.facts)
        self.agreed = not self.trouble

    def _take_up(self) -> None:
        """Goes by the membership that people here approved last; the worker of an earlier one is started anew for it."""
        _, membership, approval = read_approved(self.site)
        if self.agreed and membership.membership_hash != self.membership.membership_hash:
            self.agreed = False
            self._turn()  # before the coordinator hears of the approval
        self.membership, self.approval = membership, approval

    def _agree(self, facts: CoordinatorFacts) -> str:
        """Keeps what all approved; why not all of the proposed membership did, empty where they did.

        Raises:
            TrustError: this site is no member any more.
        """
        proposed = facts.membership
        if proposed is None:
            return "waiting until every site is enrolled"
        if self.site.site not in proposed.sites:
            raise TrustError(
                f"membership {proposed.membership_hash[:12]}, which the coordinator proposes, is without {self.site.site}",
                "it left or was revoked; ask the coordinator, and enrol again: client enroll, with new keys if it was revoked",
            )
        if proposed.membership_hash != self.membership.membership_hash:
            return (
                f"the coordinator proposes membership {proposed.membership_hash[:12]} of {', '.join(proposed.sites)}, this site "
                f"approved {self.membership.membership_hash[:12]}: read it and sign it, client approve --site {self.site.site}"
            )
        try:
            keep_approvals(self.site, self.membership, facts.approvals)
        except (TrustError, StorageError) as error:
            return f"waiting: {error.message}"
        return ""

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
