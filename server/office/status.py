"""`server status`: who is registered, online, approved, trained and aggregated; what needs a person."""

import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Group
from rich.table import Table
from rich.text import Text

from csasn import __version__
from csasn.platform.configuration import Configuration
from csasn.platform.plain_text import plain
from csasn.report.events import Event, Failed, LedgerMarked, finished_rounds, last, of_kind
from csasn.trust.facts import EXPIRES_SOON_DAYS, CoordinatorFacts, Phase
from server.flower.superlink import LinkLostError, nodes_online
from server.office.service_file import find_service
from server.office.study_folder import StudyFolder
from server.run.waits import find_waits

PATIENCE_S = 60.0  # with a site that keeps the run waiting, before a person is told


class SiteStatus(Configuration):
    """Where a site stands. `seen_seconds_ago` and `software_version` are what it said last, None before it spoke; `waiting` is why
    the run waits for it; `last_round` what came of it in the last round."""

    enrolled: bool
    approved: bool
    online: bool
    seen_seconds_ago: float | None
    software_version: str | None
    waiting: str | None
    rounds_trained: int
    last_round: str | None


class Status(Configuration):
    """What `server status --json` prints. `rounds` are those that are done, from the events; `troubles` want a person."""

    study: str
    study_hash: str
    software_version: str
    membership_hash: str | None
    phase: Phase
    run_status: str
    round: int
    num_rounds: int
    seconds_left: float | None
    certificate_days_left: int
    started: bool
    sites: dict[str, SiteStatus]
    rounds: list[dict[str, object]]
    troubles: list[str]


def read_status(study_folder: StudyFolder) -> Status:
    """Reads where the study stands now."""
    facts, events = study_folder.facts(), study_folder.events()
    return Status(
        study=facts.study_name,
        study_hash=facts.study_hash,
        software_version=__version__,
        membership_hash=facts.membership.membership_hash if facts.membership else None,
        phase=facts.phase,
        run_status=facts.run_status,
        round=facts.round,
        num_rounds=facts.num_rounds,
        seconds_left=seconds_left(facts, events),
        certificate_days_left=study_folder.certificate_days_left(),
        started=find_service(study_folder.path) is not None,
        sites=_sites(study_folder, facts, events),
        rounds=_rounds(events),
        troubles=find_troubles(study_folder),
    )


def find_troubles(study_folder: StudyFolder) -> list[str]:
    """What a person should look at, a line each; the same line as long as it is the same trouble."""
    facts, events, found = study_folder.facts(), study_folder.events(), []
    if (days := study_folder.certificate_days_left()) < EXPIRES_SOON_DAYS:
        found.append(f"the server's certificate {'expired' if days < 0 else 'expires within two weeks'}: server renew")
    if find_service(study_folder.path) is None:
        found.append("the coordinator is not started: server start")
    elif facts.phase == "running":
        found += _wait_troubles(study_folder)
    found += [f"{site}: {how}" for site, how in _marked_ledgers(events).items()]
    if facts.phase == "failed":
        failed = last(events, Failed)
        found.append(f"the run failed: {failed.error if failed and failed.error else 'see run.log'}")
    return [plain(trouble) for trouble in found] + list(find_version_troubles(study_folder).values())


def find_version_troubles(study_folder: StudyFolder) -> dict[str, str]:
    """Of the sites whose software is of another version, which is their own word: the trouble, by site."""
    return {
        site: plain(f"{site} runs version {seen.software_version}, this is {__version__}")
        for site, seen in study_folder.seen().items()
        if seen.software_version != __version__
    }


def _wait_troubles(study_folder: StudyFolder) -> list[str]:
    """Who keeps the run waiting for long; a process that was just started anew is no trouble."""
    online, found = _online(study_folder), []
    for site, wait in find_waits(study_folder.enrolments.roster, study_folder.events()).items():
        if wait.seconds > PATIENCE_S and (wait.why or site not in online):
            found.append(f"the run waits for {site} since {wait.since:%Y-%m-%d %H:%M:%S} UTC: {wait.why or 'it is away'}")
    return found


def _marked_ledgers(events: Sequence[Event]) -> dict[str, str]:
    """How the ledger of a site does not go on from what was seen of it, by the last word on each."""
    return {event.site: event.how for event in of_kind(events, LedgerMarked)}


def seconds_left(facts: CoordinatorFacts, events: Sequence[Event]) -> float | None:
    """By the mean of the rounds so far; None before the first."""
    taken = [event.seconds for event in finished_rounds(events)]
    if not taken or facts.phase != "running":
        return None
    return round(sum(taken) / len(taken) * (facts.num_rounds - facts.round), 1)


def status_view(status: Status) -> Group:
    """Lays the status out for a terminal."""
    left = status.seconds_left
    head = (
        f"study {status.study} ({status.study_hash[:12]}): {status.phase} {status.run_status}, "
        + (f"round {status.round} of {status.num_rounds}" if status.num_rounds else "a survey, which trains nothing")
        + (f", about {left / 60:.0f} min left" if left is not None else "")
        + f"; certificate: {status.certificate_days_left} days left"
    )
    table = Table("site", "enrolled", "approved", "online", "version", "rounds trained", "in last round", "awaited", title=None)
    for name, site in status.sites.items():
        told = (
            site.enrolled,
            site.approved,
            site.online,
            site.software_version,
            site.rounds_trained,
            site.last_round,
            site.waiting,
        )
        table.add_row(name, *[Text(_cell(value)) for value in told])
    return Group(Text(head), table, *[Text(f"! {trouble}", style="bold") for trouble in status.troubles])


def _cell(value: object) -> str:
    """A site's word is text alone: no markup, and nothing that a terminal acts on."""
    return "yes" if value is True else "no" if value is False else "" if value is None else plain(str(value))


def _sites(study_folder: StudyFolder, facts: CoordinatorFacts, events: Sequence[Event]) -> dict[str, SiteStatus]:
    enrolled, seen, online = study_folder.enrolments.sites(), study_folder.seen(), _online(study_folder)
    approved = {approval.site for approval in facts.approvals}
    finished = finished_rounds(events)
    waits = find_waits(study_folder.enrolments.roster, events)
    return {
        site: SiteStatus(
            enrolled=site in enrolled,
            approved=site in approved,
            online=site in online,
            seen_seconds_ago=round(time.time() - seen[site].time, 1) if site in seen else None,
            software_version=seen[site].software_version if site in seen else None,
            waiting=str(waits[site]) if site in waits else None,
            rounds_trained=sum(site in event.participants for event in finished),
            last_round=finished[-1].absent.get(site, "aggregated") if finished else None,
        )
        for site in study_folder.enrolments.roster
    }


def _rounds(events: Sequence[Event]) -> list[dict[str, object]]:
    keys = {"round", "attempts", "participants", "absent", "seconds"}
    return [event.model_dump(mode="json", include=keys) for event in finished_rounds(events)]


def _online(study_folder: StudyFolder) -> dict[str, str]:
    service = find_service(study_folder.path)
    if service is not None:
        with suppress(LinkLostError):
            return nodes_online(service.superlink_port)
    return {}
