"""The page says what is so: before a run, while it goes on, when it waits, ends well, ends badly, and for a coordinator's study."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from command_line import run_here
from enrolling import SITES
from page_scene import events_of, receipt_line, study_of, write_events, write_run
from server.office.enrolment import Enrolments
from server.office.study_folder import StudyFolder
from server.page.metrics import metrics_text
from server.page.sources import run_source, study_source
from server.page.view import view_of_run, view_of_study
from server.run.run_directory import RunDirectory

STUDY = study_of(4, 20)
DISK = "its disk is full or cannot be written"


@pytest.fixture
def run(tmp_path):
    """A simulation whose 13th round is under way."""
    return write_run(tmp_path / "run", STUDY, events_of(STUDY, 12))


def test_before_any_run_the_page_says_so(tmp_path, visit):
    visitor = visit(run_source("to-come", tmp_path / "nothing"))
    assert "there is no run yet" in visitor.text()
    assert 'csasn_info{study=""' in visitor.get("/metrics").text


def test_a_run_that_begins_has_no_round_and_nothing_to_draw(tmp_path, visit):
    path = write_run(tmp_path / "run", STUDY, [])
    text = visit(run_source("thyroid-live", path)).text()
    assert "running, 0 of 20 rounds are done" in text
    assert "Nothing to draw yet" in text
    assert "none yet" in text


def test_a_run_under_way_shows_round_sites_and_who_is_at_work(run, visit):
    text = visit(run_source("thyroid-live", run)).text()
    assert "running, round 13 of 20 is under way" in text
    assert "About 6 min left" in text
    assert "centerD at work 11 13 s" in text
    assert "13, now 10 11 ! , waited for: its disk is full or cannot be written" in text
    assert "7 10 11 12 missing : no answer within the deadline" in text
    assert "round 7: centerD, no answer within the deadline" in text


def test_what_came_of_a_round_stands_beside_its_seconds_and_bytes(run, visit):
    view = view_of_run(run)
    eleventh = view.rounds[10]
    cells = [eleventh.macro_auroc, eleventh.balanced_accuracy, eleventh.loss]
    assert f"11 {' '.join(f'{cell:.3f}' for cell in cells)} " in visit(run_source("thyroid-live", run)).text()


def test_who_is_waited_for_is_a_trouble_with_reason_and_since(run, visit):
    now = datetime.now(UTC)
    write_events(run, [{"event": "waiting", "time": now.isoformat(), "sites": {"centerD": DISK}}])
    text = visit(run_source("thyroid-live", run)).text()
    assert f"the run waits for centerD since {now:%Y-%m-%d %H:%M:%S} UTC: {DISK}" in text
    assert "awaited, see above" in text


@pytest.mark.parametrize(
    ("status", "event", "says"),
    [
        ("complete", {"event": "run-finished"}, "finished: complete, 20 of 20 rounds are done"),
        ("failed", {"event": "failed", "error": "round 21 <b>"}, "failed, 20 of 20 rounds are done"),
        ("stopped", {"event": "stopped"}, "stopped, 20 of 20 rounds are done"),
    ],
)
def test_however_a_run_ends_the_page_says_so_and_no_time_is_left(tmp_path, visit, status, event, says):
    events = [*events_of(STUDY, 20, under_way=False), {"time": "2026-11-30T13:00:00+00:00", **event}]
    path = write_run(tmp_path / "run", STUDY, events)
    (path / "report.json").write_text(json.dumps({"status": status}))
    visitor = visit(run_source("thyroid-live", path))
    text = visitor.text()
    assert says in text
    assert " left. " not in text
    assert ("is in the run's report.html" in text.replace("&#39;", "'")) == (status == "complete")
    assert "at work" not in text
    assert ("the run failed: round 21 &lt;b&gt;" in visitor.get().text) == (status == "failed")


def test_a_survey_trains_nothing_and_says_so(tmp_path, visit):
    study = STUDY.model_copy(update={"survey": True})
    asked = {"event": "survey-started", "time": "2026-11-30T13:00:00+00:00"}
    visitor = visit(run_source("survey", write_run(tmp_path / "run", study, [asked])))
    text = visitor.text()
    assert "running, a survey, which trains nothing" in text
    assert "A survey trains nothing." in text
    assert "centerA at work 0" in text
    assert "csasn_rounds_planned 0" in visitor.get("/metrics").text


def test_a_study_that_enrols_and_approves_shows_who_is_missing(coordinator, tmp_path, visit):
    folder = tmp_path / "coordinator"
    shutil.copytree(coordinator, folder)
    assert "ready, every site has approved" in visit(study_source(folder)).text()
    (folder / "approvals/centerB.json").unlink()
    text = visit(study_source(folder)).text()
    assert "approving, 2 of 3 sites did" in text
    assert "centerB not yet" in text
    assert "centerA yes" in text
    (folder / "sites/centerC.json").unlink()
    assert "enrolling, 2 of 3 sites are" in visit(study_source(folder)).text()


def test_the_troubles_are_those_that_status_check_names(coordinator, tmp_path, visit, capsys):
    folder = tmp_path / "coordinator"
    shutil.copytree(coordinator, folder)
    (folder / "seen").mkdir(exist_ok=True)
    (folder / "seen/centerB.json").write_text('{"site": "centerB", "time": 0.0, "software_version": "0.9.9"}')
    enrolments = Enrolments.open(folder)
    RunDirectory.create(folder / "runs/small", enrolments.study, enrolments.membership())
    write_events(folder / "runs/small", [{"event": "ledger-marked", "site": "centerC", "how": "the site's ledger went back"}])
    assert run_here("server", "status", "--check", "--folder", folder) == 13
    said = capsys.readouterr().err
    view = view_of_study(StudyFolder(enrolments))
    assert len(view.troubles) == 3  # not started, version, ledger
    for trouble in view.troubles:
        assert trouble.line in said
        assert trouble.line in visit(study_source(folder)).text().replace("&#39;", "'")
    assert 'csasn_trouble{kind="version",site="centerB"} 1' in metrics_text(view)
    assert 'csasn_trouble{kind="ledger",site="centerC"} 1' in metrics_text(view)
    assert 'csasn_trouble{kind="not_started",site=""} 1' in metrics_text(view)
    assert 'csasn_trouble{kind="disk",site=""} 0' in metrics_text(view)


def test_the_heads_of_ledgers_are_the_newest_that_were_not_refused(run, visit):
    lines = [receipt_line("centerA", 3), receipt_line("centerA", 4), receipt_line("centerB", 9)]
    refused = json.dumps(json.loads(receipt_line("centerA", 5)) | {"refused": "signed by nobody"})
    (run / "received.jsonl").write_text("".join(f"{line}\n" for line in [*lines, refused]))
    heads = view_of_run(run).heads
    assert {site: head.count for site, head in heads.items()} == {"centerA": 4, "centerB": 9}
    write_events(run, [{"event": "ledger-marked", "site": "centerB", "how": "the ledger went back"}])
    text = visit(run_source("thyroid-live", run)).text()
    assert "centerA 4 0000000000000000 1,000 as it should" in text
    assert "the ledger went back" in text


def test_a_run_that_is_begun_anew_under_the_same_name_shows_nothing_of_the_old_one(run, visit):
    visitor = visit(run_source("thyroid-live", run))
    assert "round 13 of 20" in visitor.text()
    run.rename(run.with_name("aside"))
    write_run(run, STUDY, events_of(STUDY, 14, begin=datetime(2026, 12, 1, tzinfo=UTC) - timedelta(hours=1)))
    assert "round 15 of 20" in visit(run_source("thyroid-live", run)).text()
    assert len(view_of_run(run).done) == 14


def test_a_sites_word_is_text_alone(run, visit):
    write_events(
        run, [{"event": "waiting", "time": "2026-11-30T13:00:00+00:00", "sites": {"centerD": "<script>alert(1)</script>"}}]
    )
    page = visit(run_source("thyroid-live", run)).get().text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_the_grid_names_the_sites_of_the_study(coordinator):
    assert view_of_study(StudyFolder(Enrolments.open(coordinator))).sites == SITES
