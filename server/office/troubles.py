"""What of a study wants a person, in every phase: read from the coordinator's folder each time, so that `server status`, `--check`
and the program that is called in trouble agree.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from csasn import __version__
from csasn.platform.plain_text import in_time, plain
from csasn.platform.storage import free_bytes
from csasn.report.events import Event, Failed, LedgerMarked, finished_rounds, last, of_kind
from csasn.trust.facts import EXPIRES_SOON_DAYS, CoordinatorFacts
from csasn.trust.membership import Difference, Membership
from server.flower.message_bounds import message_bytes
from server.office.enrolment import MEMBERSHIP
from server.office.service_file import SERVICE
from server.office.study_folder import StudyFolder
from server.run.waits import Wait, expected_seconds, find_paces, find_waits

PATIENCE_S = 60.0  # with a site that keeps the run waiting, or with a coordinator that was just started, before a person is told
OVERDUE_DAYS = 7  # of an enrolment or approval
BEHIND = 3.0  # times what a round was expected to take a site
MIB = 1 << 20


@dataclass(frozen=True)
class Trouble:
    """One of them: `key` is the same as long as it is the same one, `line` says it now; `site` is the one it is of, where that
    one's own word alone says so. Where it `stops` the run, nobody knows when that will end."""

    key: str
    line: str
    stops: bool = False
    site: str = ""


def find_troubles(study_folder: StudyFolder) -> list[Trouble]:
    """What a person should look at, one of each key."""
    facts, events = study_folder.facts(), study_folder.events()
    found = [*_of_coordinator(study_folder, facts), *_of_phase(study_folder, facts, events)]
    found += [Trouble(f"ledger of {site}", f"{site}: {how}") for site, how in marked_ledgers(events).items()]
    found += [
        Trouble(f"version {seen.software_version} of {site}", f"{site} runs version {seen.software_version}, this is {__version__}",
                site=site)
        for site, seen in study_folder.seen().items()
        if seen.software_version != __version__
    ]  # fmt: skip
    unique = {trouble.key: trouble for trouble in reversed(found)}
    return [Trouble(each.key, plain(each.line), each.stops, each.site) for each in reversed(unique.values())]


def marked_ledgers(events: Sequence[Event]) -> dict[str, str]:
    """How the ledger of a site does not go on from what was seen of it, by the last word on each."""
    return {event.site: event.how for event in of_kind(events, LedgerMarked)}


def expected_by_site(study_folder: StudyFolder, events: Sequence[Event]) -> dict[str, float]:
    """The seconds that a round will take each site, of which something is known."""
    membership = study_folder.running_membership()
    return expected_seconds(find_paces(events), membership.weight_units) if membership else {}


def sites_online(study_folder: StudyFolder) -> dict[str, str]:
    """The sites that are connected now, and since when; none where SuperLink does not answer."""
    if (service := study_folder.service) is None:
        return {}
    from server.flower.superlink import LinkLostError, nodes_online  # Flower takes seconds, and is seldom asked

    with suppress(LinkLostError):
        return nodes_online(service.superlink_port)
    return {}


def _of_coordinator(study_folder: StudyFolder, facts: CoordinatorFacts) -> Iterator[Trouble]:
    if study_folder.is_first and (days := study_folder.certificate_days_left()) < EXPIRES_SOON_DAYS:
        yield Trouble("certificate", f"the server's certificate {_ends(days)}: server renew", stops=days < 0)
    if study_folder.service is None:
        yield Trouble("not started", "the coordinator is not started: server start", stops=True)
    free, wanted = free_bytes(study_folder.path), message_bytes(study_folder.study)
    if free < wanted and facts.phase != "finished":
        line = f"disk of the coordinator's folder is full: free {free // MIB} MiB, {wanted // MIB} MiB are wanted"
        yield Trouble("disk", f"{line}; the run goes on by itself once there is room", stops=True)


def _ends(days: int) -> str:
    return "expired" if days < 0 else "expires within two weeks"


def _of_phase(study_folder: StudyFolder, facts: CoordinatorFacts, events: Sequence[Event]) -> Iterator[Trouble]:
    begun, proposed = study_folder.running_membership(), facts.membership
    if begun and (proposed is None or begun.membership_hash != proposed.membership_hash):
        yield Trouble("membership", _misfit(begun, facts), stops=True)
        return
    match facts.phase:
        case "enrolling":
            yield from _of_enrolment(study_folder)
        case "approving":
            yield from _of_approval(study_folder, facts)
        case "ready" if _seconds_up(study_folder) > PATIENCE_S and _age_s(*study_folder.path.glob("approvals/*")) > PATIENCE_S:
            line = "every site has approved, and no run begins: server start --run; or see logs/run.log"
            yield Trouble("no run", line, stops=True)
        case "running":
            yield from _of_run(study_folder, events)
        case "failed":
            failed = last(events, Failed)
            yield Trouble(
                "failed", f"the run failed: {failed.error if failed and failed.error else 'see logs/run.log'}", stops=True
            )


def _of_enrolment(study_folder: StudyFolder) -> Iterator[Trouble]:
    missing, days = study_folder.enrolments.waiting_for(), int(_age_s(study_folder.path / "study.yaml") / 86400)
    for site in missing if days >= OVERDUE_DAYS else ():
        yield Trouble(f"enrolment of {site}", f"{site} has not enrolled for {days} days: ask for its request (client enroll)")
    if not missing:
        yield Trouble("too few sites", "fewer sites are enrolled than the study needs: server enroll REQUEST --replace", stops=True)


def _of_approval(study_folder: StudyFolder, facts: CoordinatorFacts) -> Iterator[Trouble]:
    assert facts.membership is not None
    approved = {approval.site for approval in facts.approvals}
    days = int(_age_s(study_folder.path / MEMBERSHIP) / 86400)
    for site in facts.membership.sites if days >= OVERDUE_DAYS else ():
        if site not in approved:
            line = f"{site} has not approved for {days} days: ask it to say client approve, and to start its service"
            yield Trouble(f"approval of {site}", line)


def _of_run(study_folder: StudyFolder, events: Sequence[Event]) -> Iterator[Trouble]:
    if _seconds_up(study_folder) < PATIENCE_S:
        return
    expected = expected_by_site(study_folder, events)
    waits = find_waits(study_folder.enrolments.roster, events)
    late = {site: wait for site, wait in waits.items() if wait.seconds > PATIENCE_S}
    online = sites_online(study_folder) if any(not wait.why for wait in late.values()) else {}
    for site, wait in late.items():
        why = wait.why or ("" if site in online else "it is away")
        since = f"since {wait.since:%Y-%m-%d %H:%M:%S} UTC"
        if why:
            yield Trouble(f"wait for {site}", f"the run waits for {site} {since}: {why}", stops=True)
        elif line := _behind(site, wait, expected):
            yield Trouble(f"wait for {site}", f"{site} falls behind: at work {since}, {line}")
    for finished in finished_rounds(events)[-1:]:
        for site, why in finished.absent.items():
            yield Trouble(f"wait for {site}", f"round {finished.round} was made without {site}: {why}")


def _behind(site: str, wait: Wait, expected: Mapping[str, float]) -> str:
    usual_s = expected.get(site)
    if not wait.trains or usual_s is None or wait.seconds < BEHIND * max(usual_s, PATIENCE_S):
        return ""
    return f"{in_time(usual_s)} were expected"


def _misfit(begun: Membership, facts: CoordinatorFacts) -> str:
    """Why the run stands still: sites take part in what is proposed alone."""
    proposed = facts.membership
    if proposed is None:
        return "the run stands still: fewer sites are enrolled than the study needs; server enroll"
    difference = Difference.between(begun.sites, proposed.sites)
    approved = {approval.site for approval in facts.approvals}
    missing = ", ".join(site for site in proposed.sites if site not in approved)
    return f"the run stands still since a membership {difference} is proposed: " + (
        f"{missing} did not approve it yet (client approve)" if missing else "all approved it, and the run goes on now"
    )


def _seconds_up(study_folder: StudyFolder) -> float:
    """How long the coordinator has been up; 0 where it is not."""
    return _age_s(study_folder.enrolments.office / SERVICE) if study_folder.service else 0.0


def _age_s(*paths: Path) -> float:
    """Seconds since the newest of the files was written; 0 where there is none."""
    times = []
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return time.time() - max(times, default=time.time())
