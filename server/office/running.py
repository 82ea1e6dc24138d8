"""`server run`: drives one study over the coordinator's SuperLink, from the approvals to the outcome."""

import time
from collections.abc import Callable
from pathlib import Path

from csasn.errors import RunError
from csasn.platform.plain_text import plain
from csasn.trust.membership import Membership, verify_approvals
from server.office.enrolment import Enrolments
from server.office.study_folder import StudyFolder
from server.run.outcome import forget_model
from server.run.run_directory import START, RunDirectory, is_finished
from server.run.telling import say_event

POLL_S = 0.15  # between two looks for replies, a request to SuperLink for each site that owes one
MEMBERSHIP_LOOK_S = 2.0
ANEW = "end the coordinator (server stop), move that folder away, and start it"
Say = Callable[[str], None]


def run(folder: Path, say: Say) -> Path:
    """Runs or resumes the study, through whatever happens to the other processes; the run directory.

    Raises:
        CsasnError: the run cannot go on.
    """
    from server.run.execution import carry_out

    study_folder = StudyFolder(Enrolments.open(folder))
    if is_finished(study_folder.run_path):
        raise RunError(f"{study_folder.run_path} holds a finished run", f"{ANEW} to begin another")
    directory = _open_run(study_folder, say)
    carry_out(directory, "deployment", lambda: _federate(study_folder, directory, say))
    if study_folder.enrolments.settings.rehearsal:
        forget_model(study_folder.run_path)
        say("rehearsed: the model is thrown away, the report stays")
    return study_folder.run_path


def _open_run(study_folder: StudyFolder, say: Say) -> RunDirectory:
    """The run of the study, of which `say` hears what happens; a new one where there is none yet, once every site has approved."""
    if not (study_folder.run_path / "study.yaml").exists():
        membership, start = _await_approvals(study_folder, say), study_folder.path / START
        RunDirectory.create(study_folder.run_path, study_folder.study, membership, start=start if start.exists() else None)
    return RunDirectory(study_folder.run_path, lambda event: say(plain(line)) if (line := say_event(event)) else None)


class _MembershipChangedError(Exception):
    """Another membership is proposed than that of the run."""


def _federate(study_folder: StudyFolder, directory: RunDirectory, say: Say) -> None:
    """The federation to its outcome, over one link after another, and under one membership after another."""
    from server.flower.app import coordinate
    from server.flower.superlink import LinkLostError, open_link, register_nodes

    while True:
        membership = _await_approvals(study_folder, say)
        if membership != directory.membership:
            directory.adopt(membership)
        keys = {site: enrolment.node_key for site, enrolment in study_folder.enrolments.everybody().items()}
        service = study_folder.service
        try:
            if service is None:
                raise LinkLostError("the coordinator is not started", "server start")
            nodes = register_nodes(service.superlink_port, keys)
            with open_link(service.superlink_port) as grid:
                coordinate(grid, nodes, directory, _watching(study_folder, membership))
            return
        except _MembershipChangedError:
            say("another membership is proposed: the run stands still until all of it have approved")
        except LinkLostError as error:
            say(f"{error.message}; trying again")
            directory.event("link-lost")
            time.sleep(1.0)


def _watching(study_folder: StudyFolder, membership: Membership) -> Callable[[float], None]:
    """The pause of a run between two looks for replies, which ends it once another membership than `membership` is proposed."""
    looked = time.monotonic()

    def pause(_: float) -> None:
        nonlocal looked
        time.sleep(POLL_S)
        if time.monotonic() - looked > MEMBERSHIP_LOOK_S:
            looked = time.monotonic()
            if study_folder.enrolments.membership() != membership:
                raise _MembershipChangedError

    return pause


def _await_approvals(study_folder: StudyFolder, say: Say) -> Membership:
    """The membership that is proposed, once every member has signed it; says who is missing."""
    missing = ""
    while True:
        facts = study_folder.facts()
        if facts.membership is not None:
            approved = {approval.site for approval in facts.approvals}
            now = ", ".join(site for site in facts.membership.sites if site not in approved)
            if not now:
                verify_approvals(facts.membership, facts.approvals)
                return facts.membership
            now = f"waiting for the approval of {now}"
        else:
            now = f"waiting for the enrolment of {', '.join(study_folder.enrolments.waiting_for()) or 'more sites'}"
        if now != missing:
            missing = now
            say(now)
        time.sleep(1.0)
