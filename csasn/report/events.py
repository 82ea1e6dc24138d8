"""What happens in a run, as types: each line of events.jsonl is one event, told apart by its key `event`.

Keys that a line lacks, as of an older version, have defaults.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from csasn.report.types import Facts, OwnStatistics, Reasons, Result, SurveyTable
from csasn.study import Ancestor


def _readable(text: object) -> object:
    """An error may name a file whose name is no text: those bytes become question marks."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


class Told(Facts):
    """What every event says: its kind, and when (UTC, ISO 8601)."""

    event: str
    time: str = ""


class Started(Told):
    """A question goes out to the sites; of a model with the class weights ω that hold for it."""

    event: Literal["survey-started", "hello-started", "measure-started", "train-started", "validate-started", "finish-started"]
    round: int = 0
    attempt: int = 0
    class_weights: tuple[float, ...] | None = None


class Hello(Told):
    """All sites of a membership said what they hold: training cases of each class, and by split [cases, images] that are used and
    left out. `round` rounds were done then."""

    event: Literal["hello"]
    round: int = 0
    membership_hash: str = ""
    sites: tuple[str, ...] = ()
    histogram: tuple[int, ...]
    used: tuple[tuple[int, int], ...] | None = None
    left_out: tuple[tuple[int, int], ...] = ()


class Continued(Told):
    """The run begins with the model of another; that run and those before it, oldest first."""

    event: Literal["continued"]
    lineage: tuple[Ancestor, ...]


class MembershipChanged(Told):
    """The run goes on with another membership, which all of it approved; the sites that joined and left."""

    event: Literal["membership-changed"]
    membership_hash: str
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Reply(Told):
    """What a site answered to a question: ready, answered, or why it does not."""

    event: Literal["reply"]
    kind: str
    round: int
    site: str
    said: str


class Waiting(Told):
    """The sites that the run waits for, and why; of none when they are back."""

    event: Literal["waiting"]
    sites: Reasons


class Evaluated(Told):
    """What the model of a round reaches on validation cases."""

    event: Literal["evaluated"]
    round: int
    loss: float | None = None
    macro_auroc: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    recall: dict[str, float | None] | None = None


class EvaluationWithheld(Told):
    """What the model of a round reaches is not shown: a site is missing."""

    event: Literal["evaluation-withheld"]
    round: int = 0
    absent: Reasons = Field(default_factory=dict)


class TotalsChanged(Told):
    """Validation cases of each class are not as many as in the round before."""

    event: Literal["totals-changed"]
    round: int
    before: tuple[int, ...]
    now: tuple[int, ...]


class RoundFinished(Told):
    """A round made a model. Loss, steps and clipped share are known where all sites took part."""

    event: Literal["round-finished"]
    round: int
    attempts: int = 1
    participants: tuple[str, ...] = ()
    absent: Reasons = Field(default_factory=dict)
    state_hash: str = ""
    train_loss: float | None = None
    steps: int = 0
    clipped_share: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0


class Repeated(Told):
    """Too few answered: a round, or the question of that kind, is asked once more."""

    event: Literal["round-repeated", "exchange-repeated"]
    round: int | None = None
    kind: str = ""
    attempt: int = 0
    absent: Reasons = Field(default_factory=dict)


class RoundUndone(Told):
    """A round made the model much worse, and is trained once more."""

    event: Literal["round-undone"]
    round: int
    why: str


class LedgerMarked(Told):
    """The ledger of a site does not go on from what was seen of it."""

    event: Literal["ledger-marked"]
    site: str
    how: str


class Finish(Told):
    """The last exchange is done; how many patients withdrew since the first."""

    event: Literal["finish"]
    round: int = 0
    absent: Reasons = Field(default_factory=dict)
    withdrawn: int | None = None


class Outcome(Told):
    """The federation came to its end: with a model, whose results may be withheld, or with the tables of a survey."""

    event: Literal["outcome"]
    final: Result | None = None
    own_statistics: OwnStatistics | None = None
    state_hash: str | None = None
    round: int = 0
    weights_sha256: str | None = None
    adjustment: tuple[float, ...] | None = None
    temperature: float | None = None
    tables: tuple[SurveyTable, ...] = ()


class BaselineTrained(Told):
    """A model to compare with was trained: on the cases of one site alone, or on those of all in one place."""

    event: Literal["baseline"]
    name: str
    final: Result


class Failed(Told):
    """The run ended early, and can be resumed."""

    event: Literal["failed"]
    error: Annotated[str, BeforeValidator(_readable)] = ""


class Ended(Told):
    """The run came to its report, was stopped by a person, or lost the line to Flower."""

    event: Literal["run-finished", "stopped", "link-lost"]


Event = Annotated[
    Started | Continued | Hello | MembershipChanged | Reply | Waiting | Evaluated | EvaluationWithheld | TotalsChanged
    | RoundFinished | Repeated | RoundUndone | LedgerMarked | Finish | Outcome | BaselineTrained | Failed | Ended,
    Field(discriminator="event"),
]  # fmt: skip
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
T = TypeVar("T", bound=Told)


def parse_events(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events of lines of events.jsonl; a line that a crash cut off is left out, and one of a kind that this version does not
    know."""
    for line in lines:
        with suppress(ValidationError):
            yield EVENT.validate_json(line)


def of_kind(events: Iterable[Event], kind: type[T]) -> list[T]:
    """The events of one type, oldest first."""
    return [event for event in events if isinstance(event, kind)]


def last(events: Sequence[Event], kind: type[T]) -> T | None:
    """The newest event of a type, None where there is none."""
    return next((event for event in reversed(events) if isinstance(event, kind)), None)


def since_last(events: Sequence[Event], kind: type[T]) -> Sequence[Event]:
    """The events from the newest of a type on, that one among them; all where there is none."""
    return next((events[index:] for index in range(len(events) - 1, -1, -1) if isinstance(events[index], kind)), events)


def finished_rounds(events: Iterable[Event]) -> list[RoundFinished]:
    """The last word on each round, in order. A coordinator that is killed between this event and the checkpoint repeats the round,
    and tells of it again."""
    return list({event.round: event for event in of_kind(events, RoundFinished)}.values())
