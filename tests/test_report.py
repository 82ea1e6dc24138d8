"""report.json and its picture."""

import json

import pytest
from PIL import Image

from csasn.report.report import build_report, run_status
from server.outcome import write_outcome, write_report

KEYS = {
    "schema_version", "study_hash", "code_version", "engine", "seed", "profile", "secure_aggregation", "coordinator_saw", "sites",
    "rounds", "final", "baselines", "status",
}  # fmt: skip
ROUND = {
    "round", "attempts", "participants", "absent", "class_weights", "loss", "macro_auroc", "balanced_accuracy", "recall",
    "clipped_share", "bytes_up", "bytes_down", "seconds",
}  # fmt: skip
FINAL = {"macro_auroc", "macro_auroc_ci95", "balanced_accuracy", "macro_f1", "per_class", "malignancy_auroc", "confusion", "round"}


def lost_in_round_2(site, request, answer):
    return None if (site, request.header.round, str(request.kind)) == ("centerC", 2, "train") else answer


@pytest.fixture
def finished(federate):
    federation = federate("run", federation={"rounds": 3})
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    return federation


def test_the_report_has_every_documented_key(finished):
    report = write_report(finished.directory, "local")
    assert set(report) >= KEYS
    assert all(set(row) >= ROUND for row in report["rounds"])
    assert set(report["final"]) == FINAL
    assert report["status"] == "complete"
    assert json.loads((finished.path / "report.json").read_text()) == report


def test_metrics_of_a_round_are_those_of_the_model_that_came_of_it(finished):
    report = write_report(finished.directory, "local")
    evaluated = {event["round"]: event["macro_auroc"] for event in finished.events("evaluated")}
    assert [row["macro_auroc"] for row in report["rounds"]] == [evaluated[number] for number in (1, 2, 3)]


def test_support_and_confusion_count_the_test_cases_of_all_sites(finished):
    final = write_report(finished.directory, "local")["final"]
    tested = sum(int((worker.data.split_C == 2).sum()) for worker in finished.workers.values())
    assert sum(map(sum, final["confusion"])) == tested == sum(row["support"] for row in final["per_class"].values())


def test_a_round_told_twice_counts_once(finished):
    events = finished.directory.events()
    again = [event for event in events if event["event"] == "round-finished"]
    report = build_report(finished.study, finished.directory.membership, "local", [*events, *again], "complete")
    assert [row["round"] for row in report["rounds"]] == [1, 2, 3]


def test_a_run_that_lost_a_site_is_never_plainly_complete(federate):
    federation = federate("run", tamper=lost_in_round_2, federation={"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34})
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    report = write_report(federation.directory, "local")
    assert report["status"] == "incomplete"
    second, first = report["rounds"][1], report["rounds"][0]
    assert second["absent"] == {"centerC": "no answer within the deadline"}
    assert second["participants"] == ["centerA", "centerB"]
    assert second["clipped_share"] is None
    assert (first["macro_auroc"], first["recall"]) == (None, None)


def test_a_run_that_may_reveal_is_degraded(federate):
    allowed = {"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34, "on_loss": "reveal"}
    federation = federate("run", tamper=lost_in_round_2, federation=allowed)
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    report = write_report(federation.directory, "local")
    assert report["status"] == "degraded"
    assert report["rounds"][0]["macro_auroc"] is not None
    assert len(federation.directory.load().history) == 2  # the weighting does not move on a partial round


def test_status_before_the_outcome():
    assert run_status([]) == "stopped"
    assert run_status([{"event": "failed"}]) == "failed"
    assert run_status([{"event": "failed"}, {"event": "train-started"}]) == "stopped"  # it was begun again


def test_the_picture_is_drawn_also_of_a_run_that_stopped_early(finished, federate):
    report = write_report(finished.directory, "local")
    with Image.open(finished.path / "curves.png") as picture:
        assert picture.size[0] > 1000
    assert report["final"]
    empty = federate("empty")
    assert write_report(empty.directory, "local")["rounds"] == []
    assert (empty.path / "curves.png").exists()
    empty.directory.close()
