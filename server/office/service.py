"""The coordinator's processes: `server start` keeps SuperLink and front running, `server run` drives the study over them.

Each can be killed and started again at any instant: SuperLink holds nothing that matters, the front nothing at all, and a run goes
on from its directory.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from csasn.errors import ConfigurationError, RunError
from csasn.platform.locks import take_lock
from csasn.platform.plain_text import plain
from csasn.platform.storage import private_folder, write_json
from csasn.platform.supervision import QUIET, Child, ServiceManager, end_on_sigterm, free_port
from csasn.site import split_address
from csasn.trust.membership import Membership, verify_approvals
from server.flower.message_bounds import MESSAGES_HELD, message_bytes
from server.office.authority import SERVER_CERTIFICATE, SERVER_KEY
from server.office.enrolment import Enrolments
from server.office.service_file import LOCK, SERVICE, Service, find_service
from server.office.study_folder import StudyFolder
from server.run.run_directory import START, RunDirectory, is_finished, report_name
from server.run.telling import News, say_event

TURN_S = 0.5
# glibc gives a freed array back to the system, whatever came before it: a model's size each, in several processes. What is smaller,
# such as the blocks of a body, stays: pages that are touched anew for each took a sixth of a round
RETURNED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "2"}
POLL_S = 0.15  # between two looks for replies, a request to SuperLink for each site that owes one
LOOK_S = 30.0
MEMBERSHIP_LOOK_S = 2.0
SITE_CONNECTIONS = 16  # of one site to the front, at most; all sites may come from one proxy
ANEW = "end the coordinator (server stop), move that folder away, and start it"
NOTHING = nullcontext()
Say = Callable[[str], None]


@dataclass(frozen=True)
class StartSettings:
    """Where the coordinator listens, and what it calls when something needs a person."""

    host: str = "0.0.0.0"  # noqa: S104 - sites come from other networks
    port: int = 0  # 0: the port of the address that sites were given
    with_run: bool = False
    on_trouble: str = ""
    grace_minutes: float = 3.0
    superlink_port: int = 0  # 0: any that is free


def start(
    folder: Path,
    settings: StartSettings,
    manager: ServiceManager,
    say: Say,
    tell_ready: Callable[[bool], None] = lambda _: None,
    beside: AbstractContextManager[None] = NOTHING,
) -> None:
    """Keeps SuperLink, front and, where asked, the run going, until SIGTERM or Ctrl-C.

    `tell_ready` is told at each turn whether the front runs before a SuperLink that knows the sites. `beside` lasts as long.

    Raises:
        ConfigurationError: the folder is none of a coordinator's, another `server start` is at work on it, or what it shall call
            in trouble is no command.
    """
    from server.office.trouble_calls import TroubleCalls, check_command

    check_command(settings.on_trouble)
    study_folder = StudyFolder(Enrolments.open(folder))
    lock = _lock(folder)
    end_on_sigterm()
    port = settings.superlink_port or free_port()
    if settings.with_run and study_folder.facts().phase == "failed":  # an attempt that failed, and now goes on
        (study_folder.run_path / report_name(study_folder.study)).unlink(missing_ok=True)
    kept = _Kept.of(study_folder, settings, port)
    write_json(folder / SERVICE, Service(pid=os.getpid(), superlink_port=port).model_dump())
    calls = TroubleCalls(settings.on_trouble, say, timedelta(minutes=settings.grace_minutes))
    looked, news = 0.0, News(study_folder.run_path / "events.jsonl")
    try:
        with beside:
            while True:
                kept.turn(study_folder, say)
                if kept.superlink.is_running and kept.register(study_folder, port):
                    say(f"SuperLink knows {len(study_folder.enrolments.sites())} enrolled sites")
                    manager.ready()
                tell_ready(kept.known is not None and kept.superlink.is_running and kept.front.is_running)
                if settings.on_trouble and time.monotonic() - looked > LOOK_S:
                    looked = time.monotonic()
                    calls.tell(study_folder)
                for line in news.read():
                    say(plain(line))
                manager.alive(f"{study_folder.study.name}: {len(kept.children)} processes")
                time.sleep(TURN_S)
    finally:
        manager.stopping()
        for child in reversed(kept.children):
            child.stop()
        (folder / SERVICE).unlink(missing_ok=True)
        os.close(lock)


@dataclass
class _Kept:
    """What `server start` keeps running. `run` is None where nobody asked for it, and once it is over; `known` are the node keys
    that SuperLink knows, by site, None before it was told."""

    superlink: Child
    front: Child
    run: Child | None
    known: Mapping[str, str] | None = None

    @classmethod
    def of(cls, study_folder: StudyFolder, settings: StartSettings, superlink_port: int) -> Self:
        """The processes of a study's folder, which are yet to be started."""
        logs, parent = private_folder(study_folder.path.resolve() / "logs"), str(os.getpid())
        environment = os.environ | QUIET | RETURNED_MEMORY

        def child(name: str, module: str, *words: object) -> Child:
            command = [sys.executable, "-P", "-m", module, *map(str, words)]
            return Child(name, command, logs / f"{name.lower()}.log", environment)

        office, folder = "server.office.processes", study_folder.path.resolve()
        held = MESSAGES_HELD * message_bytes(study_folder.study)
        return cls(
            superlink=child("SuperLink", "server.flower.superlink", superlink_port, parent, held),
            front=child("front", office, "front", parent, folder, settings.host, settings.port, superlink_port),
            run=child("run", office, "run", parent, folder) if settings.with_run and not study_folder.is_over else None,
        )

    @property
    def children(self) -> list[Child]:
        """The processes, in the order in which they are started."""
        return [child for child in (self.superlink, self.front, self.run) if child is not None]

    def turn(self, study_folder: StudyFolder, say: Say) -> None:
        """Starts what is due; a run that came to its end is not."""
        if self.run and not self.run.is_running and study_folder.is_over:
            self.run = None
            say(f"the run is over: {study_folder.facts().run_status}; see server report")
        for child in self.children:
            if message := child.turn():
                say(message)
                self.known = None if child is self.superlink else self.known

    def register(self, study_folder: StudyFolder, port: int) -> bool:
        """Tells SuperLink who is enrolled, where that is new; whether it was told."""
        from server.flower.superlink import LinkLostError, register_nodes  # Flower, which server stop and status do without

        keys = {site: enrolment.node_key for site, enrolment in study_folder.enrolments.sites().items()}
        if self.known != keys:
            with suppress(LinkLostError):
                register_nodes(port, keys)
                self.known = keys
                return True
        return False


def _lock(folder: Path) -> int:
    """Held as long as `server start` lives, however it ends: its number alone may be another process's by now."""
    lock = take_lock(folder / LOCK)
    if lock is not None:
        return lock
    running = find_service(folder)
    number = f", process {running.pid}" if running else ""
    raise ConfigurationError(f"the coordinator is started already{number}", "end it with server stop")


def stop(folder: Path, within_s: float = 60.0) -> None:
    """Ends `server start`, and with it whatever it keeps running.

    Raises:
        ConfigurationError: the folder is none of a coordinator's.
        RunError: it is not running, or does not end.
    """
    service = find_service(Enrolments.open(folder).folder)
    if service is None:
        raise RunError("the coordinator is not running", "start it with server start")
    os.kill(service.pid, signal.SIGTERM)
    deadline = time.monotonic() + within_s
    while find_service(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if find_service(folder):
        raise RunError(f"process {service.pid} does not end", f"look into it; the last resort is kill -9 {service.pid}")


def serve_front(folder: Path, host: str, port: int, superlink_port: int) -> None:
    """The process of the front."""
    from server.front.front import FrontSettings, Office, run_front
    from server.front.node_signature import NodeSignatures
    from server.front.site_signature import SiteSignatures

    study_folder = StudyFolder(Enrolments.open(folder))
    study, enrolled = study_folder.study, study_folder.enrolments.sites
    per_address = max(FrontSettings.connections_per_address, SITE_CONNECTIONS * len(study_folder.enrolments.roster))
    run_front(
        FrontSettings(
            host=host,
            port=port or split_address(study_folder.enrolments.settings.address)[1],
            superlink_port=superlink_port,
            certificate=folder / SERVER_CERTIFICATE,
            key=folder / SERVER_KEY,
            max_body_bytes=message_bytes(study),
            max_node_bytes=message_bytes(study),
            connections_per_address=per_address,
            max_connections=max(FrontSettings.max_connections, 2 * per_address),
        ),
        Office(
            find_node=NodeSignatures(lambda: {site: enrolment.node_key for site, enrolment in enrolled().items()}).find,
            find_site=SiteSignatures(lambda: {site: enrolment.identity for site, enrolment in enrolled().items()}).find,
            facts=study_folder.answer_site,
        ),
    )


def run(folder: Path, say: Say) -> Path:
    """Runs or resumes the study, through whatever happens to the other processes; the run directory.

    Raises:
        CsasnError: the run cannot go on.
    """
    from server.run.execution import carry_out

    study_folder = StudyFolder(Enrolments.open(folder))
    if is_finished(study_folder.run_path):
        raise RunError(f"{study_folder.run_path} holds a finished run", f"{ANEW} to begin another")
    directory = _open_run(study_folder, say)
    carry_out(directory, "deployment", lambda: _federate(study_folder, directory, say))
    return study_folder.run_path


def _open_run(study_folder: StudyFolder, say: Say) -> RunDirectory:
    """The run of the study, of which `say` hears what happens; a new one where there is none yet, once every site has approved."""
    if not (study_folder.run_path / "study.yaml").exists():
        membership, start = _await_approvals(study_folder, say), study_folder.path / START
        RunDirectory.create(study_folder.run_path, study_folder.study, membership, start=start if start.exists() else None)
    return RunDirectory(study_folder.run_path, lambda event: say(plain(line)) if (line := say_event(event)) else None)


class _MembershipChangedError(Exception):
    """Another membership is proposed than that of the run."""


def _federate(study_folder: StudyFolder, directory: RunDirectory, say: Say) -> None:
    """The federation to its outcome, over one link after another, and under one membership after another."""
    from server.flower.app import coordinate
    from server.flower.superlink import LinkLostError, open_link, register_nodes

    while True:
        membership = _await_approvals(study_folder, say)
        if membership != directory.membership:
            directory.adopt(membership)
        keys = {member.site: member.node_key or "" for member in membership.members}
        service = find_service(study_folder.path)
        try:
            if service is None:
                raise LinkLostError("the coordinator is not started", "server start")
            nodes = register_nodes(service.superlink_port, keys)
            with open_link(service.superlink_port) as grid:
                coordinate(grid, nodes, directory, _watching(study_folder, membership))
            return
        except _MembershipChangedError:
            say("another membership is proposed: the run stands still until all of it have approved")
        except LinkLostError as error:
            say(f"{error.message}; trying again")
            directory.event("link-lost")
            time.sleep(1.0)


def _watching(study_folder: StudyFolder, membership: Membership) -> Callable[[float], None]:
    """The pause of a run between two looks for replies, which ends it once another membership than `membership` is proposed."""
    looked = time.monotonic()

    def pause(_: float) -> None:
        nonlocal looked
        time.sleep(POLL_S)
        if time.monotonic() - looked > MEMBERSHIP_LOOK_S:
            looked = time.monotonic()
            if study_folder.enrolments.membership() != membership:
                raise _MembershipChangedError

    return pause


def _await_approvals(study_folder: StudyFolder, say: Say) -> Membership:
    """The membership that is proposed, once every member has signed it; says who is missing."""
    missing = ""
    while True:
        facts = study_folder.facts()
        if facts.membership is not None:
            approved = {approval.site for approval in facts.approvals}
            now = ", ".join(site for site in facts.membership.sites if site not in approved)
            if not now:
                verify_approvals(facts.membership, facts.approvals)
                return facts.membership
            now = f"waiting for the approval of {now}"
        else:
            now = f"waiting for the enrolment of {', '.join(study_folder.enrolments.waiting_for()) or 'more sites'}"
        if now != missing:
            missing = now
            say(now)
        time.sleep(1.0)
