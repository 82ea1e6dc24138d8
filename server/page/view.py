"""What the page shows and the metrics say, read from the folder of a study, or from the run directory of a simulation."""

import json
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Self

from pydantic import ValidationError

from csasn import __version__
from csasn.errors import CsasnError
from csasn.federated.receipt import RECEIVED_FILE, Receipt
from csasn.platform.growing_file import GrowingFile
from csasn.platform.storage import file_stamp
from csasn.report.events import (
    Evaluated,
    Event,
    Failed,
    RoundFinished,
    RoundUndone,
    finished_rounds,
    last,
    since_last,
)
from csasn.report.report import round_results
from csasn.report.types import RoundResult
from csasn.study import Study, read_study
from csasn.trust.certificates import certificate_end
from csasn.trust.facts import Phase
from csasn.trust.membership import read_membership
from server.office.authority import SERVER_CERTIFICATE
from server.office.service_file import SERVICE
from server.office.status import AGGREGATED, SiteStatus, Status, progress, read_status
from server.office.study_folder import ENDED, StudyFolder
from server.office.troubles import Trouble, find_troubles, marked_ledgers
from server.page.rounds import Row, tell_rounds
from server.run.event_log import event_log
from server.run.run_directory import MEMBERSHIP, REPORT, SURVEY
from server.run.waits import find_paces, find_waits


@dataclass(frozen=True)
class Other:
    """Another study of the same coordinator: where it stands, and what of it wants a person."""

    name: str
    progress: str
    troubles: Sequence[Trouble]

    @classmethod
    def of(cls, study_folder: StudyFolder) -> Self:
        """What there is to see of it."""
        troubles = find_troubles(study_folder)
        return cls(study_folder.study.name, progress(read_status(study_folder, troubles)), troubles)


@dataclass(frozen=True)
class View:
    """All that there is to see. `status` is None before there is a run to look at; `heads` are the newest receipts by site, with
    what each site's ledger stood at; `expires` is when the server's certificate does, None in a simulation; `others` are the other
    studies of the coordinator."""

    study: Study | None = None
    status: Status | None = None
    events: Sequence[Event] = ()
    troubles: Sequence[Trouble] = ()
    heads: Mapping[str, Receipt] = field(default_factory=dict)
    expires: datetime | None = None
    others: Sequence["Other"] = ()
    made: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def sites(self) -> tuple[str, ...]:
        """Their names, in roster order."""
        return tuple(self.status.sites) if self.status else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the study's classes."""
        return self.study.classes if self.study else ()

    @property
    def simulated(self) -> bool:
        """Whether all of it is on one machine, where nobody enrols, approves or connects."""
        return self.expires is None

    @property
    def progress(self) -> str:
        """Where the study stands, without the time that is left, which is another with each look."""
        if self.status is None:
            return "there is no run yet"
        if self.status.phase == "running" and self.events and self.events[-1].event == "stopped":
            return f"stopped, {self.status.round} of {self.status.num_rounds} rounds are done"
        return progress(self.status.model_copy(update={"seconds_left": None}))

    @property
    def marks(self) -> Mapping[str, str]:
        """How the ledgers of sites do not go on from what was seen of them."""
        return marked_ledgers(self.events)

    @property
    def now(self) -> Row | None:
        """The round that is under way."""
        under_way = self.status.under_way if self.status else None
        rows = tell_rounds(self.sites, since_last(self.events, RoundFinished)) if under_way else []
        return next((row for row in rows if row.round == under_way), None)

    @cached_property
    def done(self) -> list[Row]:
        """The rounds that were finished, the newest first."""
        return [row for row in reversed(tell_rounds(self.sites, self.events)) if row.finished]

    @cached_property
    def rounds(self) -> tuple[RoundResult, ...]:
        """What came of the rounds, in order."""
        return round_results(self.events)

    @property
    def num_told(self) -> int:
        """Of how many events what is told of finished rounds was read: it is another where there are more."""
        return sum(isinstance(event, RoundFinished | Evaluated | RoundUndone) for event in self.events)


class _Heads:
    """The newest receipt of each site, from a received.jsonl that grows."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = GrowingFile(path / RECEIVED_FILE), Lock()
        self._heads: dict[str, Receipt] = {}

    def read(self) -> dict[str, Receipt]:
        with self._lock:
            lines, anew = self._file.read()
            self._heads = {} if anew else self._heads
            for line in lines:
                with suppress(ValidationError):
                    receipt = Receipt.model_validate_json(line)
                    if not receipt.refused:
                        self._heads[receipt.site] = receipt
            return dict(self._heads)


_heads_of = lru_cache(maxsize=2)(_Heads)


def state_of(folder: Path, run: Path) -> Hashable:
    """Another value where what is shown of a study's folder and its run changed, but for what sites say of themselves."""
    names = [run / name for name in ("events.jsonl", REPORT, SURVEY, MEMBERSHIP)]
    names += [folder / name for name in ("approvals", "sites", MEMBERSHIP, SERVICE, SERVER_CERTIFICATE)]
    return tuple(file_stamp(name) for name in names)


def view_of_study(study_folder: StudyFolder, others: Sequence[StudyFolder] = ()) -> View:
    """What there is to see of a coordinator's study, beside its others."""
    troubles = find_troubles(study_folder)
    return View(
        study=study_folder.study,
        status=read_status(study_folder, troubles),
        events=study_folder.events(),
        troubles=troubles,
        heads=_heads_of(study_folder.run_path).read(),
        expires=certificate_end((study_folder.enrolments.office / SERVER_CERTIFICATE).read_bytes()),
        others=[Other.of(each) for each in others],
    )


def view_of_run(path: Path) -> View:
    """What there is to see of a simulation, from its run directory alone."""
    if not (path / "study.yaml").exists():
        return View()
    study, sites = _known_of(path, file_stamp(path / MEMBERSHIP))
    events = event_log(path).read()
    troubles = _troubles_of_run(sites, events)
    status = _status_of_run(path, study, sites, events, troubles)
    return View(study, status, events, troubles, _heads_of(path).read())


@lru_cache(maxsize=2)
def _known_of(path: Path, changed: Hashable) -> tuple[Study, tuple[str, ...]]:  # noqa: ARG001 - what tells old from new
    """The study of a run, and the sites of its membership."""
    return read_study(path / "study.yaml"), read_membership(path / MEMBERSHIP).sites


def _status_of_run(path: Path, study: Study, sites: Sequence[str], events: Sequence[Event], troubles: Sequence[Trouble]) -> Status:
    """Where a simulation stands, in which every site is there from the beginning."""
    rounds, waits, paces = finished_rounds(events), find_waits(sites, events), find_paces(events)
    current = max((event.round for event in rounds), default=0)
    ended = _report_status(path)
    phase: Phase = ENDED.get(ended, "running")
    under_way = _under_way(events) if phase == "running" else None
    num_rounds = 0 if study.survey else study.federation.rounds
    seconds = sum(event.seconds for event in rounds)
    return Status(
        study=study.name, study_hash=study.study_hash, software_version=__version__, membership_hash=None, phase=phase,
        run_status=ended, round=current, num_rounds=num_rounds, under_way=under_way,
        seconds_left=round(seconds / current * (num_rounds - current), 1) if current and under_way else None,
        certificate_days_left=None, started=under_way is not None, rounds=[], troubles=[trouble.line for trouble in troubles],
        sites={
            site: SiteStatus(
                enrolled=True, approved=True, online=True, seen_seconds_ago=None, software_version=None,
                waiting=str(waits[site]) if site in waits and phase == "running" else None,
                rounds_trained=sum(site in event.participants for event in rounds),
                last_round=rounds[-1].absent.get(site, AGGREGATED) if rounds else None,
                seconds_a_round=paces.get(site),
            )
            for site in sites
        },
    )  # fmt: skip


def _under_way(events: Sequence[Event]) -> int | None:
    """The round that goes on; none between the last one and the end, nor where a person stopped it."""
    for event in reversed(events):
        if event.event == "train-started":
            return event.round
        if isinstance(event, RoundFinished | Failed) or event.event == "stopped":
            return None
    return None


def _troubles_of_run(sites: Sequence[str], events: Sequence[Event]) -> list[Trouble]:
    """What a person should look at, in the words of `server status`."""
    found = [Trouble(f"ledger of {site}", f"{site}: {how}") for site, how in marked_ledgers(events).items()]
    failed = last(events[-1:], Failed)
    if failed:
        found.append(Trouble("failed", f"the run failed: {failed.error}", stops=True))
    for site, wait in find_waits(sites, events).items():
        if wait.why:
            line = f"the run waits for {site} since {wait.since:%Y-%m-%d %H:%M:%S} UTC: {wait.why}"
            found.append(Trouble(f"wait for {site}", line, stops=True))
    for finished in finished_rounds(events)[-1:]:
        found += [
            Trouble(f"wait for {site}", f"round {finished.round} was made without {site}: {why}")
            for site, why in finished.absent.items()
        ]
    return found


def _report_status(path: Path) -> str:
    for name in (REPORT, SURVEY):
        with suppress(FileNotFoundError, ValueError, KeyError, CsasnError):
            return str(json.loads((path / name).read_text(encoding="utf-8"))["status"])
    return ""
