"""Who the run waits for, and since when: read from its events, so that it is the same for the status, a hook and the page."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Event = Mapping[str, object]
READY, ANSWERED = "ready", "answered"  # what a site said, in events
STARTED = "-started"  # how the name of an event ends that begins a question


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
        name, site = str(event["event"]), str(event.get("site"))
        if name.endswith(STARTED):
            waits = {site: Wait(_time(event)) for site in sites}
        elif name == "reply" and event["said"] == READY:
            waits.pop(site, None)
            if not waits:  # all are ready: now each is asked for its answer
                waits = {site: Wait(_time(event)) for site in sites}
        elif name == "reply" and event["said"] == ANSWERED:
            waits.pop(site, None)
        elif name == "waiting" and isinstance(absent := event["sites"], dict):
            for other in sites:
                why = str(absent.get(other, ""))
                if why and (other not in waits or waits[other].why != why):
                    waits[other] = Wait(waits[other].since if other in waits and waits[other].why else _time(event), why)
        elif name in ("round-finished", "failed", "outcome", "run-finished"):
            waits = {}
    return waits


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(str(event["time"]))
