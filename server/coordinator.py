"""The coordinator's processes: `server start` keeps SuperLink and front running, `server run` drives the study over them.

Each can be killed and started again at any instant: SuperLink holds nothing that matters, the front nothing at all, and a run goes
on from its directory.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from csasn.configuration import Configuration
from csasn.errors import ConfigurationError, RunError, StorageError
from csasn.membership import verify_approvals
from csasn.site import split_address
from csasn.storage import private_folder, write_json
from csasn.supervision import QUIET, Child, ServiceManager, end_on_sigterm, free_port
from server.desk import Desk
from server.enrolment import SERVER_CERTIFICATE, SERVER_KEY, Enrolments

SERVICE, LOCK = "service.json", "service.lock"
RUN = "run"
LOCK_TRIES = 5
TURN_S = 0.5
# glibc gives a freed array back to the system, whatever came before it: a model's size each, in several processes
RETURNED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10), "MALLOC_ARENA_MAX": "2"}
POLL_S = 0.15  # between two looks for replies, a request to SuperLink for each site that owes one
LOOK_S = 30.0
Say = Callable[[str], None]


class Service(Configuration):
    """service.json: what `server start` left for the other commands."""

    pid: int
    superlink_port: int


@dataclass(frozen=True)
class StartSettings:
    """Where the coordinator listens, and what it calls when something needs a person."""

    host: str = "0.0.0.0"  # noqa: S104 - sites come from other networks
    port: int = 0  # 0: the port of the address that sites were given
    with_run: bool = False
    on_trouble: str = ""


def start(
    folder: Path, settings: StartSettings, manager: ServiceManager, say: Say, tell_ready: Callable[[bool], None] = lambda _: None
) -> None:
    """Keeps SuperLink, front and, where asked, the run going, until SIGTERM or Ctrl-C.

    `tell_ready` is told at each turn whether the front runs before a SuperLink that knows the sites.

    Raises:
        ConfigurationError: the folder is none of a coordinator's, or another `server start` is at work on it.
    """
    desk = Desk(Enrolments.open(folder))
    lock = _lock(folder)
    end_on_sigterm()
    port = free_port()
    if settings.with_run and desk.facts().phase == "failed":
        (desk.run_path / "report.json").unlink()  # of an attempt that failed, and now goes on
    children = _children(desk, settings, port)
    write_json(folder / SERVICE, Service(pid=os.getpid(), superlink_port=port).model_dump())
    registered: object = None
    told: set[str] = set()
    looked = 0.0
    try:
        while True:
            if children[-1].name == RUN and not children[-1].is_running and _run_ended(desk):
                children.pop()
                say(f"the run is over: {desk.facts().run_status}; see server report")
            for child in children:
                if message := child.turn():
                    say(message)
                    registered = None if child.name == "SuperLink" else registered
            if children[0].is_running and (now := _register(desk, port, registered)) != registered:
                registered = now
                say(f"SuperLink knows {len(desk.enrolments.sites())} enrolled sites")
                manager.ready()
            tell_ready(registered is not None and all(child.is_running for child in children[:2]))
            if settings.on_trouble and time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                told = _tell(settings.on_trouble, desk, told)
            manager.alive(f"{desk.enrolments.study.name}: {len(children)} processes")
            time.sleep(TURN_S)
    finally:
        manager.stopping()
        for child in reversed(children):
            child.stop()
        (folder / SERVICE).unlink(missing_ok=True)
        os.close(lock)


def find_service(folder: Path) -> Service | None:
    """The `server start` that is at work on this folder, if any."""
    with suppress(FileNotFoundError, ValueError):
        service = Service.model_validate_json((folder / SERVICE).read_bytes())
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return service
        finally:
            os.close(descriptor)
    return None


def _lock(folder: Path) -> int:
    """Held as long as `server start` lives, however it ends: its number alone may be another process's by now."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):  # another command may look just now
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        time.sleep(0.1)
    os.close(descriptor)
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
    from server.front import FrontSettings, run_front
    from server.node_signature import NodeSignatures

    desk = Desk(Enrolments.open(folder))
    run_front(
        FrontSettings(
            host=host,
            port=port or split_address(desk.enrolments.settings.address)[1],
            superlink_port=superlink_port,
            certificate=folder / SERVER_CERTIFICATE,
            key=folder / SERVER_KEY,
        ),
        desk.exchange,
        NodeSignatures(lambda: [enrolment.node_key for enrolment in desk.enrolments.sites().values()]).accepts,
    )


def run(folder: Path, say: Say) -> Path:
    """Runs or resumes the study, through whatever happens to the other processes; the run directory.

    Raises:
        CsasnError: the run cannot go on.
    """
    from server.app import coordinate
    from server.outcome import write_report
    from server.run_directory import RunDirectory, is_finished
    from server.superlink import LinkLostError, open_link, register_nodes

    desk = Desk(Enrolments.open(folder))
    if is_finished(desk.run_path):
        raise RunError(f"{desk.run_path} holds a finished run", "move that folder away to begin another")
    _await_approvals(desk, say)
    membership = desk.enrolments.membership()
    assert membership is not None
    if not (desk.run_path / "study.yaml").exists():
        RunDirectory.create(desk.run_path, desk.enrolments.study, membership)
    directory = RunDirectory(desk.run_path)
    (desk.run_path / "report.json").unlink(missing_ok=True)  # of an attempt that stopped
    try:
        if directory.membership.membership_hash != membership.membership_hash:
            raise RunError(
                f"{desk.run_path} was begun with membership {directory.membership.membership_hash[:12]}, "
                f"proposed is {membership.membership_hash[:12]}",
                "set the run aside: move its folder, then run again with the new membership",
            )
        keys = {member.site: member.node_key or "" for member in membership.members}
        while True:
            service = find_service(folder)
            try:
                if service is None:
                    raise LinkLostError("the coordinator is not started", "server start")
                nodes = register_nodes(service.superlink_port, keys)
                with open_link(service.superlink_port) as grid:
                    coordinate(grid, nodes, directory, lambda _: time.sleep(POLL_S))
                break
            except LinkLostError as error:
                say(f"{error.message}; trying again")
                directory.event("link-lost")
                time.sleep(1.0)
        directory.event("run-finished")
    except StorageError:
        raise  # no failure: `server start` begins the run again, until there is room
    except Exception as error:
        directory.event("failed", error=getattr(error, "message", type(error).__name__))
        raise
    finally:
        write_report(directory, "deployment")
        directory.close()
    return desk.run_path


def _await_approvals(desk: Desk, say: Say) -> None:
    """Waits until every member has signed; says who is missing."""
    missing = ""
    while True:
        facts = desk.facts()
        if facts.membership is not None:
            approved = {approval.site for approval in facts.approvals}
            now = ", ".join(site for site in facts.membership.sites if site not in approved)
            if not now:
                verify_approvals(facts.membership, facts.approvals)
                return
            now = f"waiting for the approval of {now}"
        else:
            now = f"waiting for the enrolment of {', '.join(desk.enrolments.waiting_for()) or 'more sites'}"
        if now != missing:
            missing = now
            say(now)
        time.sleep(1.0)


def _children(desk: Desk, settings: StartSettings, superlink_port: int) -> list[Child]:
    folder = desk.folder.resolve()
    logs = private_folder(folder / "logs")
    python, parent = [sys.executable, "-P", "-m"], str(os.getpid())
    environment = os.environ | QUIET | RETURNED_MEMORY
    listen = [settings.host, str(settings.port), str(superlink_port)]
    children = [
        Child("SuperLink", [*python, "server.superlink", str(superlink_port), parent], logs / "superlink.log", environment),
        Child("front", [*python, "server.processes", "front", parent, str(folder), *listen], logs / "front.log", environment),
    ]
    if settings.with_run and not _run_ended(desk):
        children.append(Child(RUN, [*python, "server.processes", "run", parent, str(folder)], logs / "run.log", environment))
    return children


def _register(desk: Desk, port: int, registered: object) -> object:
    """Tells SuperLink who is enrolled, where that is new; what it knows then."""
    from server.superlink import LinkLostError, register_nodes

    keys = {site: enrolment.node_key for site, enrolment in desk.enrolments.sites().items()}
    if registered != keys:
        with suppress(LinkLostError):
            register_nodes(port, keys)
            return keys
    return registered


def _run_ended(desk: Desk) -> bool:
    return (desk.run_path / "report.json").exists() and desk.facts().phase in ("finished", "failed")


def _tell(command: str, desk: Desk, told: set[str]) -> set[str]:
    """Calls the coordinator's own command, once for each new trouble, with the trouble as its last argument."""
    from server.status import find_troubles

    troubles = set(find_troubles(desk))
    for trouble in sorted(troubles - told):
        subprocess.Popen([command, trouble], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the operator's own
    return troubles
