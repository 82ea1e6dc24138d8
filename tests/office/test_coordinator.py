"""The coordinator over its folder: what it refuses to start with, a run that was killed at its end, what people are shown."""

import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from rich.console import Console

import server.office.trouble_calls
from csasn import __version__, wire
from csasn.errors import ConfigurationError, RunError
from csasn.federated.messages import Absence, Reason
from csasn.platform.supervision import ServiceManager
from csasn.study import read_study
from csasn.trust.facts import CoordinatorFacts, SiteFacts
from reports import finished_round, told
from server.flower.app import GridExchange
from server.office.authority import initialise
from server.office.enrolment import Enrolments
from server.office.running import run
from server.office.service import StartSettings, start
from server.office.status import SiteStatus, Status, _rounds, _sites, seconds_left, status_view
from server.office.study_folder import StudyFolder
from server.office.trouble_calls import TroubleCalls
from server.office.troubles import Trouble, find_troubles, marked_ledgers
from server.run.outcome import write_outcome, write_report
from server.simulation.progress import Progress

HOSTILE = "[red]\x1b]0;owned\x07\x9b31m\nsecond line :bomb:"
SHOWN = "[red]?]0;owned??31m?second line :bomb:"


@pytest.fixture
def folder(federate, tmp_path):
    """A coordinator's folder whose run was killed between its last event and its report."""
    federation = federate("run")
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    federation.directory.event("run-finished")
    initialise(tmp_path / "coordinator", federation.study, "127.0.0.1:1", (), "a long enough passphrase")
    shutil.copytree(federation.path, tmp_path / "coordinator/runs/small")
    return tmp_path / "coordinator"


# the program that is called in trouble


@pytest.mark.parametrize("command", ["no-such-program", "./not-executable", "echo hello"])
def test_a_coordinator_does_not_start_with_a_command_that_cannot_be_called(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigurationError, match="--on-trouble is") as caught:
        start(tmp_path, StartSettings(on_trouble=command), ServiceManager(""), print)
    assert "chmod +x" in caught.value.hint


def test_a_command_that_went_away_is_a_warning_and_the_coordinator_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(server.office.trouble_calls, "find_troubles", lambda _: [Trouble("wait", "centerA is away")])
    said, folder = [], SimpleNamespace(path=tmp_path, study=SimpleNamespace(name="small"))
    TroubleCalls(str(tmp_path / "gone"), said.append, timedelta(0)).tell(folder)
    assert said == [f"warning: {tmp_path / 'gone'} cannot be called: no such file or directory"]


# a run killed at its end


def test_a_finished_run_without_its_report_is_still_running_and_gets_its_report_at_the_next_run(folder):
    study_folder = StudyFolder(Enrolments.open(folder))
    assert (study_folder.facts().phase, study_folder.facts().run_status, study_folder.is_over) == ("running", "", False)
    assert run(folder, print) == study_folder.run_path
    assert (study_folder.facts().phase, study_folder.facts().run_status, study_folder.is_over) == ("finished", "complete", True)
    with pytest.raises(RunError, match="holds a finished run"):
        run(folder, print)


def test_a_run_killed_after_its_outcome_needs_no_site_to_end(folder):
    events = folder / "runs/small/events.jsonl"
    *others, last = events.read_text().splitlines(keepends=True)
    assert json.loads(last)["event"] == "run-finished"
    events.write_text("".join(others))
    run(folder, print)
    assert StudyFolder(Enrolments.open(folder)).facts().run_status == "complete"


# what sites say, and people are shown


@pytest.mark.parametrize("version", ["[bold]1.0[/bold]", "1.0\x1b[31m", "1.0 ", "", "1" * 41])
def test_a_software_version_that_is_none_is_refused(version):
    with pytest.raises(ValidationError):
        SiteFacts(site="centerA", study_hash="a" * 64, software_version=version)


def test_a_trouble_is_one_line_that_a_terminal_does_not_act_on(folder):
    (folder / "seen").mkdir()
    seen = {"site": "centerA", "time": 0.0, "software_version": HOSTILE}
    (folder / "seen/centerA.json").write_text(json.dumps(seen))
    (trouble,) = [each.line for each in find_troubles(StudyFolder(Enrolments.open(folder))) if "centerA" in each.line]
    assert trouble == f"centerA runs version {SHOWN}, this is {__version__}"


def test_the_status_shows_a_word_of_a_site_as_text_alone():
    site = SiteStatus(
        enrolled=True, approved=False, online=True, seen_seconds_ago=None, software_version=HOSTILE, waiting=HOSTILE,
        rounds_trained=3, last_round=f"refused: {HOSTILE}",
    )  # fmt: skip
    status = Status(
        study="x", study_hash="x", software_version="x", membership_hash=None, phase="running", run_status="x", round=1,
        num_rounds=2, seconds_left=None, certificate_days_left=3, started=True, sites={"centerA": site}, rounds=[],
        troubles=[HOSTILE[:5]],
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=250)
    console.print(status_view(status))
    printed = console.file.getvalue()
    assert f"refused: {SHOWN}" in printed
    assert "! [red]" in printed
    assert "\x1b" not in printed


def test_the_progress_shows_a_word_of_a_site_as_text_alone():
    console = Console(file=io.StringIO())
    Progress(console).say(f"  centerA: {HOSTILE}")
    assert console.file.getvalue() == f"  centerA: {SHOWN}\n"


def read_by_the_coordinator(records, error=None, mark=""):
    """What the coordinator makes of a site's message, and what it was told of its ledger."""
    marked = []

    class Message:
        content = records
        has_error = staticmethod(lambda: error is not None)

    class Receipts:
        take = staticmethod(lambda *_: mark)

    Message.error = error
    exchange = GridExchange(None, {}, Receipts(), lambda *_: None, lambda *given: marked.append(given))
    return exchange._read(SimpleNamespace(site="centerA", request=None), Message()), marked


def test_of_a_site_that_is_absent_the_coordinator_shows_words_of_its_own_alone():
    records = wire.answer_to_records(Absence(Reason.IMAGES))
    assert read_by_the_coordinator(records) == (Absence(Reason.IMAGES), [])
    records["absence"]["reason"] = HOSTILE
    absence, _ = read_by_the_coordinator(records)
    assert absence == Absence(Reason.BROKEN, text="unknown reason of an absence")
    records["absence"]["text"] = HOSTILE
    assert "red" not in str(read_by_the_coordinator(records)[0])


def test_an_app_that_ended_and_a_ledger_that_cannot_be_written_are_told_apart():
    codes = {wire.NO_LEDGER: Reason.DISK, 8: Reason.FAILED}
    for code, reason in codes.items():
        absence, _ = read_by_the_coordinator(None, SimpleNamespace(code=code))
        assert absence.reason is reason
    assert "the site's app ended, code 8" in str(absence)


def test_a_ledger_that_went_back_is_told_of_and_the_answer_is_used():
    records = wire.answer_to_records(Absence(Reason.DISK))
    assert read_by_the_coordinator(records, mark="it went back") == (Absence(Reason.DISK), [("centerA", "it went back")])


# what there is to see of a run


def said(*events):
    """What a person sees of these events."""
    console = Console(file=io.StringIO(), width=200)
    progress = Progress(console)
    for event in told(events):
        progress.on_event(event)
    return console.file.getvalue()


def test_a_log_says_what_takes_long_before_it_is_done(write_small_hospitals, tmp_path):
    study = read_study(write_small_hospitals(tmp_path / "h"))
    log, terminal = io.StringIO(), io.StringIO()
    for file, is_terminal in ((log, False), (terminal, True)):
        progress = Progress(Console(file=file, width=200, force_terminal=is_terminal, force_interactive=is_terminal))
        progress.federation(study)
        progress.baselines(4, 80)
    assert log.getvalue().splitlines() == [
        "3 sites read their images; after that each round is a line",
        "4 baselines train, 80 steps in all; each is a line",
    ]
    assert "read their images; after" not in terminal.getvalue()


def reply(site, word, kind="train"):
    return {"event": "reply", "kind": kind, "round": 1, "site": site, "said": word}


def test_that_a_site_is_ready_is_no_line_and_that_it_is_absent_is():
    assert said(reply("centerA", "ready"), reply("centerB", "answered")) == ""
    assert said(reply("centerC", str(Absence(Reason.DISK)))) == "  centerC: its disk is full or cannot be written\n"


def test_what_is_out_of_the_ordinary_in_a_round_is_said_as_it_comes():
    assert said({"event": "waiting", "sites": {"centerC": "no answer within the deadline"}}) == (
        "  waiting for centerC: no answer within the deadline\n"
    )
    assert said({"event": "waiting", "sites": {}}) == ""
    undone = {"event": "round-undone", "round": 3, "why": "validation loss 9 after round 3, 1 was the best so far"}
    assert said(undone) == f"  round 3 is undone, and trained once more: {undone['why']}\n"
    changed = {"event": "totals-changed", "round": 3, "before": [9, 4], "now": [8, 4]}
    assert "validation cases of each class were 9 4, and are 8 4" in said(changed)
    assert said({"event": "ledger-marked", "site": "centerA", "how": "it went back"}) == "  centerA: it went back\n"


def test_how_a_ledger_went_back_is_told_by_the_last_word_on_it():
    marked = [{"event": "ledger-marked", "site": "centerA", "how": how} for how in ("it went back", "it went back again")]
    assert marked_ledgers(told([*marked, reply("centerA", "ready")])) == {"centerA": "it went back again"}


# a round that was told twice


def test_a_round_that_was_told_twice_counts_once(folder):
    first, second = (finished_round(number) | {"participants": ["centerA"], "seconds": 2.0} for number in (1, 2))
    events = told([first, {"event": "failed"}, first | {"seconds": 8.0}, second])
    study_folder = StudyFolder(Enrolments.open(folder))
    facts = CoordinatorFacts(study_name="small", study_hash="a" * 64, software_version="1.0.0", time=datetime.now(UTC),
                             phase="running", round=2, num_rounds=4)  # fmt: skip
    assert seconds_left(facts, events) == 10.0
    assert [(row["round"], row["seconds"]) for row in _rounds(events)] == [(1, 8.0), (2, 2.0)]
    assert [site.rounds_trained for site in _sites(study_folder, facts, events).values()] == [2, 0, 0]


def test_the_report_of_a_failed_attempt_is_gone_while_the_run_goes_on(folder):
    from server.run.run_directory import RunDirectory

    directory = RunDirectory(folder / "runs/small")
    write_report(directory, "deployment")
    directory.drop_report()
    directory.drop_report()
    directory.close()
    assert StudyFolder(Enrolments.open(folder)).facts().phase == "running"
