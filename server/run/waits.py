"""Who the run waits for, since when, and how long each site takes: read from its events, so that it is the same for the status,
a hook and the page."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from csasn.report.events import Ended, Event, Failed, Outcome, Reply, RoundFinished, Started, Waiting, since_last

READY, ANSWERED = "ready", "answered"  # what a site said, in events
AT_WORK = "at work"


@dataclass(frozen=True)
class Wait:
    """A site that has yet to answer the question that is asked, since when (UTC), and why; empty where it is at work, or silent.
    `trains` says whether it trains a round, and is not asked for what came of it."""

    since: datetime
    why: str = ""
    trains: bool = False

    @property
    def seconds(self) -> float:
        """How long that is."""
        return (datetime.now(UTC) - self.since).total_seconds()

    def __str__(self) -> str:
        return f"{self.why or AT_WORK}, since {self.since.astimezone():%H:%M:%S}"


def find_waits(sites: Collection[str], events: Sequence[Event]) -> dict[str, Wait]:
    """The sites of which an answer is awaited now; none where nothing is asked."""
    waits: dict[str, Wait] = {}
    for event in since_last(events, Started):  # with which waiting begins anew
        match event:
            case Started():
                waits = {site: Wait(_time(event), trains=event.event == "train-started") for site in sites}
            case Reply(said="ready" | "answered"):
                waits.pop(event.site, None)
                if not waits and event.said == READY:  # all are ready: now each is asked for its answer
                    waits = {site: Wait(_time(event)) for site in sites}
            case Waiting():
                waits |= {site: _wait(waits.get(site), event, why) for site in sites if (why := event.sites.get(site))}
            case Ended(event="link-lost"):  # each comes back in its own time
                waits = {site: replace(wait, since=_time(event)) for site, wait in waits.items()}
            case RoundFinished() | Failed() | Outcome() | Ended(event="run-finished"):
                waits = {}
    return waits


def _wait(before: Wait | None, event: Waiting, why: str) -> Wait:
    """For a site that is said to be missing: since when for that reason, or since when for any."""
    return before if before and before.why == why else Wait(before.since if before and before.why else _time(event), why)


def find_paces(events: Sequence[Event]) -> dict[str, float]:
    """The seconds that each site took for its last round, from when it was asked until it was heard; a round in which it was
    missing is passed over."""
    paces: dict[str, float] = {}
    asked: datetime | None = None
    silent: set[str] = set()  # heard already, or missing meanwhile
    for event in events:
        match event:
            case Started():
                asked, silent = (_time(event) if event.event == "train-started" else None), set()
            case Reply() if asked and event.site not in silent:
                silent.add(event.site)
                if event.said in (READY, ANSWERED):
                    paces[event.site] = (_time(event) - asked).total_seconds()
            case Waiting():
                silent |= event.sites.keys()
    return paces


def expected_seconds(paces: Mapping[str, float], weight_units: Mapping[str, int]) -> dict[str, float]:
    """How long a round will take each site: as long as its last one; where it has none, by its weight, which follows its cases, as
    long as the slowest of the others. None are known before a site has answered."""
    slowest = max((paces[site] / units for site, units in weight_units.items() if site in paces), default=None)
    if slowest is None:
        return {}
    return {site: paces.get(site, slowest * units) for site, units in weight_units.items()}


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event.time)
