"""`server start`: keeps SuperLink and front running for all studies of a coordinator, and where asked a run of each.

Each process can be killed and started again at any instant: SuperLink holds nothing that matters, the front nothing at all, and a
run goes on from its directory.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from csasn.errors import ConfigurationError, RunError
from csasn.platform.locks import take_lock
from csasn.platform.plain_text import plain
from csasn.platform.storage import private_folder, write_json
from csasn.platform.supervision import QUIET, Child, ServiceManager, end_on_sigterm, free_port
from csasn.site import split_address
from server.flower.message_bounds import MESSAGES_HELD, message_bytes
from server.office.authority import SERVER_CERTIFICATE, SERVER_KEY
from server.office.enrolment import Enrolments
from server.office.service_file import LOCK, SERVICE, Service, find_service
from server.office.studies import Studies
from server.office.study_folder import StudyFolder
from server.run.run_directory import report_name
from server.run.telling import News

TURN_S = 0.5
# glibc gives a freed array back to the system, whatever came before it: a model's size each, in several processes. What is smaller,
# such as the blocks of a body, stays: pages that are touched anew for each took a sixth of a round
RETURNED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "2"}
LOOK_S = 30.0
STUDIES_AT_ONCE = 2  # for which there is room from the beginning
SITE_CONNECTIONS = 16  # of one site to the front, at most; all sites may come from one proxy
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
    """Keeps SuperLink, front and, where asked, the runs going, until SIGTERM or Ctrl-C.

    `tell_ready` is told at each turn whether the front runs before a SuperLink that knows the sites. `beside` lasts as long.

    Raises:
        ConfigurationError: the folder is none of a coordinator's, another `server start` is at work on it, or what it shall call
            in trouble is no command.
    """
    from server.office.trouble_calls import check_command

    check_command(settings.on_trouble)
    if (office := Enrolments.open(folder).office) != folder:
        raise ConfigurationError(f"{folder} is one study of a coordinator", f"server start --folder {office} serves all of them")
    lock = _lock(folder)
    end_on_sigterm()
    kept = _Kept(Studies(folder), settings, settings.superlink_port or free_port(), say)
    write_json(folder / SERVICE, Service(pid=os.getpid(), superlink_port=kept.port).model_dump())
    try:
        with beside:
            while True:
                kept.turn()
                if kept.superlink.is_running and kept.register():
                    manager.ready()
                tell_ready(kept.known is not None and kept.superlink.is_running and kept.front.is_running)
                kept.tell()
                manager.alive(f"{', '.join(kept.told)}: {len(kept.children)} processes")
                time.sleep(TURN_S)
    finally:
        manager.stopping()
        for child in reversed(kept.children):
            child.stop()
        (folder / SERVICE).unlink(missing_ok=True)
        os.close(lock)


class _Told:
    """What of a study its people are told: what happens in its run, and through the operator's program what wants somebody."""

    def __init__(self, study_folder: StudyFolder, settings: StartSettings, say: Say) -> None:
        from server.office.trouble_calls import TroubleCalls

        self.study_folder, self._say, self._calls_somebody = study_folder, say, bool(settings.on_trouble)
        self._news = News(study_folder.run_path / "events.jsonl")
        self._calls = TroubleCalls(settings.on_trouble, say, timedelta(minutes=settings.grace_minutes))
        self._looked = 0.0

    def tell(self) -> None:
        """Tells what is new."""
        if self._calls_somebody and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._calls.tell(self.study_folder)
        for line in self._news.read():
            self._say(plain(line))


@dataclass
class _Kept:
    """What `server start` keeps running: SuperLink at `port`, the front, and the runs by their studies, of which none is there once
    it is over. `known` are the node keys that SuperLink knows, by site, None before it was told."""

    studies: Studies
    settings: StartSettings
    port: int
    say: Say
    known: Mapping[str, str] | None = None
    told: dict[str, _Told] = field(default_factory=dict)
    runs: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._take_up(self.studies.all())
        self._make_common()

    @property
    def children(self) -> list[Child]:
        """The processes, in the order in which they are started."""
        return [self.superlink, self.front, *self.runs.values()]

    def turn(self) -> None:
        """Starts what is due; a run that came to its end is not."""
        studies = self.studies.all()
        if self._take_up(studies) and self._wanted_room() > self.room:
            self.say("a further study wants more room for messages: SuperLink and front are started anew")
            self.front.stop()
            self.superlink.stop()
            self._make_common()
        for name, run in list(self.runs.items()):
            study_folder = self.told[name].study_folder
            if not run.is_running and study_folder.is_over:
                del self.runs[name]
                self._say_of(name, f"the run is over: {study_folder.facts().run_status}; see server report")
        for child in self.children:
            if message := child.turn():
                self.say(message)
                self.known = None if child is self.superlink else self.known

    def register(self) -> bool:
        """Tells SuperLink who is enrolled, where that is new; whether it was told."""
        from server.flower.superlink import LinkLostError, register_nodes  # Flower, which server stop and status do without

        keys = {site: enrolment.node_key for site, enrolment in self.studies.sites().items()}
        if self.known != keys:
            with suppress(LinkLostError):
                register_nodes(self.port, keys)
                self.known = keys
                self.say(f"SuperLink knows {len(keys)} enrolled sites")
                return True
        return False

    def tell(self) -> None:
        """Tells people of each study what is new."""
        for told in self.told.values():
            told.tell()

    def _take_up(self, studies: list[StudyFolder]) -> bool:
        """Takes up the studies that are new; whether one is."""
        new = {name: each for each in studies if (name := _called(each)) not in self.told}
        for name, each in new.items():
            self.told[name] = _Told(each, self.settings, partial(self._say_of, name))
            if not self.settings.with_run:
                continue
            if each.facts().phase == "failed":  # an attempt that failed, and now goes on
                (each.run_path / report_name(each.study)).unlink(missing_ok=True)
            if not each.is_over:
                run = "run" if each.path == self.studies.folder else f"run {name}"
                self.runs[name] = self._child(run, each.path, "server.office.processes", "run", os.getpid(), each.path.resolve())
        return bool(new)

    def _make_common(self) -> None:
        folder, parent = self.studies.folder, os.getpid()
        self.room = self._wanted_room()
        self.superlink = self._child("SuperLink", folder, "server.flower.superlink", self.port, parent, MESSAGES_HELD * self.room)
        listens = self.settings.host, self.settings.port
        self.front = self._child("front", folder, "server.office.processes", "front", parent, folder.resolve(), *listens, self.port)

    def _wanted_room(self) -> int:
        """Bytes for the messages of one site."""
        return _message_room(told.study_folder for told in self.told.values())

    def _say_of(self, name: str, line: str) -> None:
        """Says of which study a line is, where there are several."""
        self.say(f"{name}: {line}" if len(self.told) > 1 else line)

    def _child(self, name: str, folder: Path, module: str, *words: object) -> Child:
        logs = private_folder(folder.resolve() / "logs")
        command = [sys.executable, "-P", "-m", module, *map(str, words)]
        return Child(name, command, logs / f"{name.lower().partition(' ')[0]}.log", os.environ | QUIET | RETURNED_MEMORY)


def _called(study_folder: StudyFolder) -> str:
    """A survey has the name of the study that may come after it."""
    return f"{study_folder.study.name}{'-survey' * study_folder.study.survey}"


def _message_room(studies: Iterable[StudyFolder]) -> int:
    """Bytes of the messages that one site may have under way: one of each study."""
    sizes = [message_bytes(each.study) for each in studies]
    return max(STUDIES_AT_ONCE, len(sizes)) * max(sizes)


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
    office = Enrolments.open(folder).office
    service = find_service(office)
    if service is None:
        raise RunError("the coordinator is not running", "start it with server start")
    os.kill(service.pid, signal.SIGTERM)
    deadline = time.monotonic() + within_s
    while find_service(office) and time.monotonic() < deadline:
        time.sleep(0.1)
    if find_service(office):
        raise RunError(f"process {service.pid} does not end", f"look into it; the last resort is kill -9 {service.pid}")


def serve_front(folder: Path, host: str, port: int, superlink_port: int) -> None:
    """The process of the front."""
    from server.front.front import FrontSettings, Office, run_front
    from server.front.node_signature import NodeSignatures
    from server.front.site_signature import SiteSignatures

    all_studies = Studies(folder)
    studies = all_studies.all()
    roster = {site for each in studies for site in each.enrolments.roster}
    per_address = max(FrontSettings.connections_per_address, SITE_CONNECTIONS * len(roster))
    run_front(
        FrontSettings(
            host=host,
            port=port or split_address(studies[0].enrolments.settings.address)[1],
            superlink_port=superlink_port,
            certificate=folder / SERVER_CERTIFICATE,
            key=folder / SERVER_KEY,
            max_body_bytes=max(message_bytes(each.study) for each in studies),
            max_node_bytes=_message_room(studies),
            connections_per_address=per_address,
            max_connections=max(FrontSettings.max_connections, 2 * per_address),
        ),
        Office(
            find_node=NodeSignatures(lambda: {site: enrolment.node_key for site, enrolment in all_studies.sites().items()}).find,
            find_site=SiteSignatures(lambda: {site: enrolment.identity for site, enrolment in all_studies.sites().items()}).find,
            facts=all_studies.answer_site,
        ),
    )
