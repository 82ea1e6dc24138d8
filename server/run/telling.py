"""What of a run is said in a line as it happens: on a terminal, in run.log and in the coordinator's journal."""

from pathlib import Path

from csasn.federated.messages import Replies
from csasn.platform.growing_file import GrowingFile
from csasn.report.events import (
    BaselineTrained,
    Continued,
    Evaluated,
    EvaluationWithheld,
    Event,
    Hello,
    LedgerMarked,
    MembershipChanged,
    Repeated,
    Reply,
    RoundFinished,
    RoundUndone,
    TotalsChanged,
    Waiting,
    parse_events,
)
from csasn.report.types import Reasons, Result
from csasn.trust.membership import Difference
from server.run.waits import ANSWERED, READY


def say_event(event: Event) -> str:
    """A line for people, empty where an event is part of the usual course."""
    line = ""
    match event:
        case Continued() | MembershipChanged() | Hello():
            line = _begins(event)
        case Evaluated():
            line = f"  model of round {event.round}: {_rates(event)} (validation cases)"
        case RoundFinished():
            missing = f", without {', '.join(event.absent)}" if event.absent else ""
            loss = "" if event.train_loss is None else f", training loss {_show(event.train_loss)}"
            line = f"round {event.round}: {len(event.participants)} sites{missing}, {event.seconds} s{loss}"
        case Repeated():
            line = f"  attempt {event.attempt} is repeated: {_reasons(event.absent)}"
        case Reply(site=site, said=what) | LedgerMarked(site=site, how=what) if what not in (READY, ANSWERED):
            line = f"  {site}: {what}"
        case Waiting() if event.sites:
            line = f"  waiting for {_reasons(event.sites)}"
        case EvaluationWithheld():
            line = f"  metrics of the model of round {event.round} are withheld: a site is missing"
        case RoundUndone():
            line = f"  round {event.round} is undone, and trained once more: {event.why}"
        case TotalsChanged():
            before, now = (" ".join(map(str, numbers)) for numbers in (event.before, event.now))
            line = f"  validation cases of each class were {before}, and are {now}: did a site change its manifest?"
        case BaselineTrained():
            line = f"baseline {event.name}: {_rates(event.final)} (test cases of all sites)"
    return line


def _begins(event: Continued | MembershipChanged | Hello) -> str:
    """What a run begins or goes on with."""
    match event:
        case Continued():
            return f"begins with the model of study {event.lineage[-1].study}, round {event.lineage[-1].rounds}"
        case MembershipChanged():
            return f"goes on with membership {event.membership_hash[:12]}, {Difference(event.left, event.joined)}"
        case Hello() if event.sites:
            return f"{len(event.sites)} sites said what they hold; training {'goes on' if event.round else 'begins'}"
    return ""


def _rates(reached: Evaluated | Result) -> str:
    return f"macro AUROC {_show(reached.macro_auroc)}, balanced accuracy {_show(reached.balanced_accuracy)}"


def _reasons(sites: Reasons) -> str:
    return "; ".join(f"{site}: {why}" for site, why in sites.items())


class News:
    """The lines of what is added to an events.jsonl, from now on."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path, from_end=True)

    def read(self) -> list[str]:
        """What happened since the last look; a file that is another one by now is read from its beginning."""
        return [line for event in parse_events(self._file.read()[0]) if (line := say_event(event))]


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def reasons_of(replies: Replies) -> dict[str, str]:
    """Why each site that is missing did not answer, by name."""
    return {site: str(absence) for site, absence in sorted(replies.absent.items())}


def too_few(what: str, attempts: int, replies: Replies) -> str:
    """What a run says that ends since too few answered."""
    missing = _reasons(reasons_of(replies))
    often = f" in the last of {attempts} attempts" if attempts > 1 else ""
    return f"{what}: {len(replies.participants)} sites answered{often}, nothing was summed; {missing}"
