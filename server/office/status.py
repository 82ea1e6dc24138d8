"""`server status`: who is registered, online, approved, trained and aggregated; what needs a person."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rich.console import Group
from rich.table import Table
from rich.text import Text

from csasn import __version__
from csasn.platform.plain_text import plain
from csasn.report.events import Event, Failed, LedgerMarked, finished_rounds, last, of_kind
from csasn.trust.facts import EXPIRES_SOON_DAYS, CoordinatorFacts
from server.flower.superlink import LinkLostError, nodes_online
from server.office.desk import Desk
from server.office.service_file import find_service
from server.run.waits import find_waits

PATIENCE_S = 60.0  # with a site that keeps the run waiting, before a person is told


def describe(desk: Desk) -> dict[str, object]:
    """Everything that `server status --json` prints."""
    facts, events = desk.facts(), desk.events()
    return {
        "study": facts.study_name,
        "study_hash": facts.study_hash,
        "software_version": __version__,
        "membership_hash": facts.membership.membership_hash if facts.membership else None,
        "phase": facts.phase,
        "run_status": facts.run_status,
        "round": facts.round,
        "num_rounds": facts.num_rounds,
        "seconds_left": seconds_left(facts, events),
        "certificate_days_left": desk.certificate_days_left(),
        "started": find_service(desk.folder) is not None,
        "sites": _sites(desk, facts, events),
        "rounds": _rounds(events),
        "troubles": find_troubles(desk),
    }


def find_troubles(desk: Desk) -> list[str]:
    """What a person should look at, a line each; the same line as long as it is the same trouble."""
    facts, events, found = desk.facts(), desk.events(), []
    if (days := desk.certificate_days_left()) < EXPIRES_SOON_DAYS:
        found.append(f"the server's certificate {'expired' if days < 0 else 'expires within two weeks'}: server renew")
    if find_service(desk.folder) is None:
        found.append("the coordinator is not started: server start")
    elif facts.phase == "running":
        found += _wait_troubles(desk)
    found += [f"{site}: {how}" for site, how in _marked_ledgers(events).items()]
    if facts.phase == "failed":
        failed = last(events, Failed)
        found.append(f"the run failed: {failed.error if failed and failed.error else 'see run.log'}")
    return [plain(trouble) for trouble in found] + list(find_version_troubles(desk).values())


def find_version_troubles(desk: Desk) -> dict[str, str]:
    """Of the sites whose software is of another version, which is their own word: the trouble, by site."""
    return {
        site: plain(f"{site} runs version {seen.software_version}, this is {__version__}")
        for site, seen in desk.seen().items()
        if seen.software_version != __version__
    }


def _wait_troubles(desk: Desk) -> list[str]:
    """Who keeps the run waiting for long; a process that was just started anew is no trouble."""
    online, found = _online(desk), []
    for site, wait in find_waits(desk.enrolments.study.federation.sites, desk.events()).items():
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


def status_view(status: Mapping[str, object]) -> Group:
    """The status for a terminal."""
    left = status["seconds_left"]
    head = (
        f"study {status['study']} ({str(status['study_hash'])[:12]}): {status['phase']} {status['run_status']}, "
        + (f"round {status['round']} of {status['num_rounds']}" if status["num_rounds"] else "a survey, which trains nothing")
        + (f", about {float(str(left)) / 60:.0f} min left" if left is not None else "")
        + f"; certificate: {status['certificate_days_left']} days left"
    )
    columns = ("site", "enrolled", "approved", "online", "version", "rounds trained", "in last round", "awaited")
    table = Table(*columns, title=None)
    sites = status["sites"]
    assert isinstance(sites, dict)
    for site, row in sites.items():
        cells = [
            row[key] for key in ("enrolled", "approved", "online", "software_version", "rounds_trained", "last_round", "waiting")
        ]
        table.add_row(site, *[Text(_cell(cell)) for cell in cells])
    troubles = status["troubles"]
    assert isinstance(troubles, list)
    return Group(Text(head), table, *[Text(f"! {trouble}", style="bold") for trouble in troubles])


def _cell(value: object) -> str:
    """A site's word is text alone: no markup, and nothing that a terminal acts on."""
    return "yes" if value is True else "no" if value is False else "" if value is None else plain(str(value))


def _sites(desk: Desk, facts: CoordinatorFacts, events: Sequence[Event]) -> dict[str, dict[str, object]]:
    enrolled, seen, online = desk.enrolments.sites(), desk.seen(), _online(desk)
    approved = {approval.site for approval in facts.approvals}
    finished = finished_rounds(events)
    waits = find_waits(desk.enrolments.study.federation.sites, events)
    rows: dict[str, dict[str, object]] = {}
    for site in desk.enrolments.study.federation.sites:
        took = [event for event in finished if site in event.participants]
        rows[site] = {
            "enrolled": site in enrolled,
            "approved": site in approved,
            "online": site in online,
            "seen_seconds_ago": round(time.time() - seen[site].time, 1) if site in seen else None,
            "software_version": seen[site].software_version if site in seen else None,
            "waiting": str(waits[site]) if site in waits else None,
            "rounds_trained": len(took),
            "last_round": finished[-1].absent.get(site, "aggregated") if finished else None,
        }
    return rows


def _rounds(events: Sequence[Event]) -> list[dict[str, object]]:
    keys = {"round", "attempts", "participants", "absent", "seconds"}
    return [event.model_dump(mode="json", include=keys) for event in finished_rounds(events)]


def _online(desk: Desk) -> dict[str, str]:
    service = find_service(desk.folder)
    if service is not None:
        with suppress(LinkLostError):
            return nodes_online(service.superlink_port)
    return {}
