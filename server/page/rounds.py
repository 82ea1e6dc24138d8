"""Who answered in which round, how long each took, and what a round's time went to: read from the events of a run."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from csasn.federated.messages import Kind
from csasn.report.events import Event, Reply, RoundFinished, RoundUndone, Started, Waiting
from server.run.waits import ANSWERED

TRAIN = str(Kind.TRAIN)
PARTS = ("before", "sites", "masks", "sum")


@dataclass
class Answer:
    """What a site did in a round. `seconds` from when it was asked until its answer was there, None before; `why` it is missing, or
    was waited for; `waited` says that the run waited for it at some time."""

    said: str = ""
    seconds: float | None = None
    why: str = ""
    waited: bool = False


@dataclass
class Row:
    """A round. Of its seconds: those of the questions `before` it, since the round before; until all sites had answered or were
    given up (`sites`); until their answers had come where they are masked (`masks`); and until the model had moved (`sum`)."""

    round: int
    attempts: int = 1
    answers: dict[str, Answer] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    undone: bool = False
    finished: RoundFinished | None = None


class _Telling:
    """The rounds so far, while events go by."""

    def __init__(self, sites: Collection[str]) -> None:
        self._sites = sites
        self.rows: dict[int, Row] = {}
        self._row: Row | None = None
        self._ended: datetime | None = None  # the round before
        self._asked: datetime | None = None
        self._ready: datetime | None = None  # the last site
        self._came: datetime | None = None  # the last answer

    def take(self, event: Event) -> None:
        """The next event."""
        match event:
            case Started(event="train-started"):
                self._begin(event)
            case Reply(kind=kind, said="ready" | "answered") if kind == TRAIN and self._row and self._asked:
                self._hear(self._row, event, self._asked)
            case Waiting() if self._row:
                for site, why in event.sites.items():
                    answer = self._row.answers.setdefault(site, Answer())
                    answer.waited, answer.why = True, why
            case RoundFinished():
                self._end(event)
            case RoundUndone() if event.round in self.rows:
                self.rows[event.round].undone = True

    def _begin(self, event: Started) -> None:
        before = self._row
        again = before is not None and before.finished is None and before.round == event.round
        self._row = self.rows[event.round] = Row(event.round, before.attempts + 1 if before and again else 1)
        self._row.answers = {site: Answer() for site in self._sites}
        self._asked, self._ready, self._came = _time(event), None, None
        if self._ended:
            self._row.parts["before"] = (self._asked - self._ended).total_seconds()

    def _hear(self, row: Row, event: Reply, asked: datetime) -> None:
        answer, now = row.answers.setdefault(event.site, Answer()), _time(event)
        if answer.seconds is None:
            answer.seconds, self._ready = (now - asked).total_seconds(), now
        answer.said, self._came = event.said, now

    def _end(self, event: RoundFinished) -> None:
        row = self._row if self._row and self._row.round == event.round else Row(event.round)
        self.rows[event.round], row.finished, row.attempts = row, event, event.attempts
        for site in event.participants:
            row.answers.setdefault(site, Answer()).said = ANSWERED
        for site, why in event.absent.items():
            row.answers[site] = Answer("missing", None, why, waited=True)
        marks = [self._asked, self._ready, self._came, _time(event)]
        for name, (begun, ended) in zip(PARTS[1:], pairwise(marks), strict=True):
            if begun and ended:
                row.parts[name] = (ended - begun).total_seconds()
        self._ended, self._asked = _time(event), None


def tell_rounds(sites: Collection[str], events: Iterable[Event]) -> list[Row]:
    """Each round that was begun, in order; of one that was told twice, after a crash, the last word."""
    telling = _Telling(sites)
    for event in events:
        telling.take(event)
    return [telling.rows[number] for number in sorted(telling.rows)]


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event.time)
