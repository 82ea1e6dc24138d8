"""What the time of a run went to, from its events: rounds are seconds, where the whole may be hours."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from csasn.report.events import BaselineTrained, Ended, Event, Failed, Outcome, Waiting
from csasn.report.types import Elapsed


def elapsed(events: Sequence[Event]) -> Elapsed | None:
    """Each stretch between two events goes to what the first of them began; None where no event tells its time.

    What passed between a kill and the start after it counts as work, or as waiting: no event tells of a kill.
    """
    timed = [(datetime.fromisoformat(event.time), event) for event in events if event.time]
    if not timed:
        return None
    spent = dict.fromkeys(("working", "waiting", "stopped", "baselines"), 0.0)
    kind = "working"
    for (begun, event), (ended, _) in pairwise(timed):
        match event:
            case Ended(event="run-finished" | "stopped") | Failed():
                kind = "stopped"
            case Waiting(sites=sites) if sites:
                kind = "waiting"
            case Outcome() | BaselineTrained():
                kind = "baselines"
            case Waiting():
                kind = "working"
            case _ if kind != "waiting":
                kind = "working"
        spent[kind] += (ended - begun).total_seconds()
    whole = (timed[-1][0] - timed[0][0]).total_seconds()
    return Elapsed(whole=round(whole, 3), **{name: round(seconds, 3) for name, seconds in spent.items()})
