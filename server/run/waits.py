"""Who the run waits for, and since when: read from its events, so that it is the same for the status, a hook and the page."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from csasn.report.events import Ended, Event, Failed, Outcome, Reply, RoundFinished, Started, Waiting

READY, ANSWERED = "ready", "answered"  # what a site said, in events


@dataclass(frozen=True)
class Wait:
    """A site that has yet to answer the question that is asked, since when (UTC), and why; empty where it is at work, or silent."""

    since: datetime
    why: str = ""

    @property
    def seconds(self) -> float:
        """How long that is."""
        return (datetime.now(UTC) - self.since).total_seconds()

    def __str__(self) -> str:
        return f"{self.why or 'at work'}, since {self.since.astimezone():%H:%M:%S}"


def find_waits(sites: Collection[str], events: Sequence[Event]) -> dict[str, Wait]:
    """The sites of which an answer is awaited now; none where nothing is asked."""
    waits: dict[str, Wait] = {}
    for event in events:
        match event:
            case Started():
                waits = {site: Wait(_time(event)) for site in sites}
            case Reply(said="ready" | "answered"):
                waits.pop(event.site, None)
                if not waits and event.said == READY:  # all are ready: now each is asked for its answer
                    waits = {site: Wait(_time(event)) for site in sites}
            case Waiting():
                waits |= {site: _wait(waits.get(site), event, why) for site in sites if (why := event.sites.get(site))}
            case RoundFinished() | Failed() | Outcome() | Ended(event="run-finished"):
                waits = {}
    return waits


def _wait(before: Wait | None, event: Waiting, why: str) -> Wait:
    """For a site that is said to be missing: since when for that reason, or since when for any."""
    return before if before and before.why == why else Wait(before.since if before and before.why else _time(event), why)


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event.time)
