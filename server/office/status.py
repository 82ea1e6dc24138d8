"""`server status`: who is registered, online, approved, trained and aggregated; what needs a person."""

import time
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from csasn import __version__
from csasn.platform.configuration import Configuration
from csasn.platform.plain_text import in_time, plain
from csasn.report.events import Event, Started, finished_rounds, last
from csasn.trust.facts import CoordinatorFacts, Phase
from server.office.study_folder import StudyFolder
from server.office.troubles import Trouble, expected_by_site, find_troubles, sites_online
from server.run.waits import AT_WORK, Wait, find_paces, find_waits

AGGREGATED = "aggregated"


class SiteStatus(Configuration):
    """Where a site stands. `seen_seconds_ago` and `software_version` are what it said last, None before it spoke; `waiting` is why
    the run waits for it, `seconds_left` how long it is expected to be at work still; `last_round` what came of it in the last
    round, `seconds_a_round` how long one takes it."""

    enrolled: bool
    approved: bool
    online: bool
    seen_seconds_ago: float | None
    software_version: str | None
    waiting: str | None
    rounds_trained: int
    last_round: str | None
    seconds_left: float | None = None
    seconds_a_round: float | None = None


class Status(Configuration):
    """What `server status --json` prints. `round` are done, `under_way` is the round that goes on now, None where none does;
    `rounds` are those that are done, from the events; `troubles` want a person. A simulation has no certificate."""

    study: str
    study_hash: str
    software_version: str
    membership_hash: str | None
    phase: Phase
    run_status: str
    round: int
    num_rounds: int
    under_way: int | None = None
    seconds_left: float | None
    certificate_days_left: int | None
    started: bool
    sites: dict[str, SiteStatus]
    rounds: list[dict[str, object]]
    troubles: list[str]


def read_status(study_folder: StudyFolder, troubles: Sequence[Trouble] | None = None) -> Status:
    """Reads where the study stands now; `troubles` are those that were found already."""
    facts, events = study_folder.facts(), study_folder.events()
    troubles = find_troubles(study_folder) if troubles is None else troubles
    started = last(events, Started)
    return Status(
        study=facts.study_name,
        study_hash=facts.study_hash,
        software_version=__version__,
        membership_hash=facts.membership.membership_hash if facts.membership else None,
        phase=facts.phase,
        run_status=facts.run_status,
        round=facts.round,
        num_rounds=facts.num_rounds,
        under_way=started.round if started and facts.phase == "running" and started.round > facts.round else None,
        seconds_left=None if any(trouble.stops for trouble in troubles) else seconds_left(facts, events),
        certificate_days_left=study_folder.certificate_days_left(),
        started=study_folder.service is not None,
        sites=_sites(study_folder, facts, events),
        rounds=_rounds(events),
        troubles=[trouble.line for trouble in troubles],
    )


def seconds_left(facts: CoordinatorFacts, events: Sequence[Event]) -> float | None:
    """By the mean of the rounds so far; None before the first."""
    taken = [event.seconds for event in finished_rounds(events)]
    if not taken or facts.phase != "running":
        return None
    return round(sum(taken) / len(taken) * (facts.num_rounds - facts.round), 1)


def status_view(status: Status) -> Group:
    """Lays the status out for a terminal."""
    certificate = f"certificate: {status.certificate_days_left} days left"
    head = f"study {status.study} ({status.study_hash[:12]}): {progress(status)}; {certificate}"
    table = Table("site", "is", "heard", "version", "rounds", "a round takes", "now", title=None)
    for name, site in status.sites.items():
        told = (
            stage(site),
            None if site.seen_seconds_ago is None else f"{in_time(site.seen_seconds_ago)} ago",
            site.software_version,
            site.rounds_trained,
            None if site.seconds_a_round is None else in_time(site.seconds_a_round),
            now_doing(site),
        )
        table.add_row(name, *[Text(_cell(value)) for value in told])
    missed = {name: site.last_round for name, site in status.sites.items() if site.last_round not in (None, AGGREGATED)}
    notes = [Text(f"  {name} was not in round {status.round}: {_cell(why)}") for name, why in missed.items()]
    return Group(Text(head), table, *notes, *[Text(f"! {trouble}", style="bold") for trouble in status.troubles])


def progress(status: Status) -> str:
    """Where the study stands, in words: a phase that says nothing more is said alone."""
    sites = status.sites.values()
    match status.phase:
        case "enrolling":
            return f"enrolling, {sum(site.enrolled for site in sites)} of {len(sites)} sites are"
        case "approving":
            enrolled = sum(site.enrolled for site in sites)
            return f"approving, {sum(site.approved for site in sites)} of {enrolled} sites did"
        case "ready":
            return "ready, every site has approved"
    ended = f"{status.phase}: {status.run_status}" if status.phase == "finished" else status.phase
    left = "" if status.seconds_left is None else f", about {in_time(status.seconds_left)} left"
    if not status.num_rounds:
        return f"{ended}, a survey, which trains nothing{left}"
    if status.under_way is not None:
        return f"{ended}, round {status.under_way} of {status.num_rounds} is under way{left}"
    return f"{ended}, {status.round} of {status.num_rounds} rounds are done{left}"


def stage(site: SiteStatus) -> str:
    """The last step that a site has taken."""
    known = "approved" if site.approved else "enrolled" if site.enrolled else "not enrolled"
    return f"{known}, online" if site.online else known


def now_doing(site: SiteStatus, where: str = "below") -> str | None:
    """What a site does in the round: why it does not is a trouble, and stands in full `where` it says."""
    if site.waiting is None:
        return None
    if not site.waiting.startswith(AT_WORK):
        return f"awaited, see {where}"
    if not site.online:
        return "awaited, not connected"
    return AT_WORK if site.seconds_left is None else f"{AT_WORK}, {in_time(site.seconds_left)} left"


def _cell(value: object) -> str:
    """A site's word is text alone: no markup, and nothing that a terminal acts on."""
    return "yes" if value is True else "no" if value is False else "" if value is None else plain(str(value))


def _sites(study_folder: StudyFolder, facts: CoordinatorFacts, events: Sequence[Event]) -> dict[str, SiteStatus]:
    enrolled, seen, online = study_folder.enrolments.sites(), study_folder.seen(), sites_online(study_folder)
    approved = {approval.site for approval in facts.approvals}
    finished = finished_rounds(events)
    waits = find_waits(study_folder.enrolments.roster, events)
    paces, expected = find_paces(events), expected_by_site(study_folder, events)
    return {
        site: SiteStatus(
            enrolled=site in enrolled,
            approved=site in approved,
            online=site in online,
            seen_seconds_ago=round(time.time() - seen[site].time, 1) if site in seen else None,
            software_version=seen[site].software_version if site in seen else None,
            waiting=str(waits[site]) if site in waits else None,
            rounds_trained=sum(site in event.participants for event in finished),
            last_round=finished[-1].absent.get(site, AGGREGATED) if finished else None,
            seconds_left=left_of(waits.get(site), expected.get(site)),
            seconds_a_round=paces.get(site),
        )
        for site in study_folder.enrolments.roster
    }


def left_of(wait: Wait | None, expected_s: float | None) -> float | None:
    """How long a site that trains is expected to be at it still."""
    if wait is None or wait.why or not wait.trains or expected_s is None:
        return None
    return round(max(0.0, expected_s - wait.seconds), 1)


def _rounds(events: Sequence[Event]) -> list[dict[str, object]]:
    keys = {"round", "attempts", "participants", "absent", "seconds"}
    return [event.model_dump(mode="json", include=keys) for event in finished_rounds(events)]
