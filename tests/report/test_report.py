"""report.json and its picture."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csasn
from csasn.data.cases import TEST, TRAIN
from csasn.finished.weights import NOTICE, load_model
from csasn.measures.counts import count_cases
from reports import (
    MEMBERSHIP,
    STUDY,
    build_report,
    counted,
    final_metrics,
    finished_round,
    model_card,
    read_lines,
    run_status,
    write_report,
)
from server.run.outcome import write_outcome

KEYS = {
    "schema_version", "study_hash", "code_version", "engine", "seed", "profile", "secure_aggregation", "coordinator_saw",
    "sites", "rounds", "final", "baselines", "status", "notice", "study", "membership_hash", "classes", "training_cases",
    "totals", "absent_at_finish", "state_hash", "weights_sha256", "adjustment", "temperature", "about", "data", "withdrawn",
    "initial_weights", "memberships", "lineage", "own_statistics", "malignant", "elapsed",
}  # fmt: skip
ROUND = {
    "round", "attempts", "participants", "absent", "class_weights", "loss", "macro_auroc", "balanced_accuracy", "recall",
    "clipped_share", "bytes_up", "bytes_down", "seconds",
}  # fmt: skip
FINAL = {
    "macro_auroc", "macro_auroc_ci95", "balanced_accuracy", "balanced_accuracy_ci95", "macro_f1", "ece", "intervals", "per_class",
    "malignancy_auroc", "malignancy", "confusion", "round",
}  # fmt: skip
MALIGNANCY = {"cancers", "found", "sensitivity", "sensitivity_ci95", "benign", "cleared", "specificity", "specificity_ci95"}
OF_A_SPLIT = {"cases", "cases_used", "images", "images_used", "images_left_out"}
OF_A_CLASS = {
    "recall", "recall_ci95", "precision", "precision_ci95", "f1", "auroc", "auroc_ci95", "support", "conclusive", "roc",
    "precision_recall", "ece", "reliability",
}  # fmt: skip


def lost_in_round_2(site, request, answer):
    return None if (site, request.header.round, str(request.kind)) == ("centerC", 2, "train") else answer


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_small_hospitals, local_federation):
    folder = tmp_path_factory.mktemp("report")
    write_small_hospitals(folder / "hospitals", federation={"rounds": 3})
    federation = local_federation(folder / "hospitals", folder / "run")
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    return federation


def test_the_report_has_every_documented_key(finished):
    report = write_report(finished.directory, "local")
    assert set(report) == KEYS
    assert all(set(row) == ROUND for row in report["rounds"])
    assert list(report["data"]) == ["train", "validation", "test"]
    assert all(set(row) == OF_A_SPLIT for row in report["data"].values())
    assert set(report["final"]) == FINAL
    assert set(report["final"]["malignancy"]) == MALIGNANCY
    assert list(report["final"]["per_class"]) == list(finished.study.classes)
    assert all(set(row) == OF_A_CLASS for row in report["final"]["per_class"].values())
    assert report["status"] == "complete"
    assert json.loads((finished.path / "report.json").read_text()) == report
    assert (finished.path / "MODEL_CARD.md").read_text() == model_card(report)


def test_every_key_is_in_the_specification():
    report = build_report(STUDY, MEMBERSHIP, "local", [], "stopped")
    table = (Path(csasn.__file__).parent / "SPEC.md").read_text().partition("## report.json")[2].partition("\n## ")[0]
    for key in set(report) | ROUND | FINAL | OF_A_CLASS | OF_A_SPLIT | MALIGNANCY | {"gains"} | set(report["totals"]):
        assert re.search(rf"\b{key}\b", table), key


def test_metrics_of_a_round_are_those_of_the_model_that_came_of_it(finished):
    report = write_report(finished.directory, "local")
    evaluated = {event["round"]: event["macro_auroc"] for event in finished.events("evaluated")}
    assert [row["macro_auroc"] for row in report["rounds"]] == [evaluated[number] for number in (1, 2, 3)]


def test_support_and_confusion_count_the_test_cases_of_all_sites(finished):
    final = write_report(finished.directory, "local")["final"]
    tested = sum(int((worker.learner.load_data().split_C == TEST).sum()) for worker in finished.workers.values())
    assert sum(map(sum, final["confusion"])) == tested == sum(row["support"] for row in final["per_class"].values())


def test_training_cases_are_summed_over_sites(finished):
    report = write_report(finished.directory, "local")
    data = [worker.learner.load_data() for worker in finished.workers.values()]
    classes = np.concatenate([cases.class_C[cases.split_C == TRAIN] for cases in data])
    assert list(report["training_cases"].values()) == np.bincount(classes, minlength=3).tolist()


def test_fewer_than_five_training_cases_of_a_class_are_not_shown():
    events = [{"event": "hello", "histogram": [5, 4, 0]}]
    report = build_report(STUDY, MEMBERSHIP, "local", events, "stopped")
    assert report["training_cases"] == {"benign": 5, "PTC": None, "FTC": None}
    report = build_report(STUDY, MEMBERSHIP, "local", [], "failed")
    assert report["training_cases"] == {"benign": None, "PTC": None, "FTC": None}


def test_cases_used_tell_no_number_of_a_class_that_is_not_shown():
    hello = {"event": "hello", "histogram": [310, 190, 4], "used": [[504, 800], [90, 150], [120, 200]]}
    shown = [
        build_report(
            STUDY, MEMBERSHIP, "local", [hello | {"histogram": [310, 190, few], "used": used, "left_out": gone}], "stopped"
        )
        for few in range(5)
        for used, gone in [([[500 + few, 800 + few], [90, 150], [120, 200]], [[12, 20], [0, 1], [0, 0]])]
    ]
    assert all(report == shown[0] for report in shown)
    assert shown[0]["data"]["train"] == {
        "cases": 512, "cases_used": 500, "images": None, "images_used": None, "images_left_out": 20,
    }  # fmt: skip
    assert shown[0]["data"]["validation"]["images"] == 151
    whole = build_report(STUDY, MEMBERSHIP, "local", [hello | {"histogram": [310, 190, 5], "left_out": [[0, 0]] * 3}], "stopped")
    assert (whole["data"]["train"]["cases_used"], whole["data"]["train"]["images_used"]) == (504, 800)


def test_totals_are_sums_over_rounds_and_a_round_that_failed_twice_counts_once():
    repeated = [{"event": "round-repeated", "round": number} for number in (2, 2, 3)]  # the run stopped in round 3
    events = [finished_round(1), *repeated, finished_round(2, {"centerA": "no answer within the deadline"})]
    assert build_report(STUDY, MEMBERSHIP, "local", events, "failed")["totals"] == {
        "rounds": 2, "repeated_rounds": 2, "partial_rounds": 1, "bytes_up": 20, "bytes_down": 600, "seconds": 3.0,
    }  # fmt: skip


def test_the_report_names_the_model_that_it_is_about(finished):
    report = write_report(finished.directory, "local")
    _, info = load_model(finished.path)
    assert report["weights_sha256"] == info.weights_sha256
    assert tuple(report["adjustment"]) == info.adjustment
    assert (report["study"], report["notice"]) == ("small", NOTICE)
    assert report["membership_hash"] == finished.directory.membership.membership_hash


def test_the_finished_model_is_the_chosen_one_with_the_class_weights_in_its_bias(federate):
    federation, bias = federate("run", federation={"rounds": 1}), "heads.heads.subtype.bias"
    chosen = federation.run()
    write_outcome(federation.directory, federation.contract, federation.network, chosen)
    network, info = load_model(federation.path)
    saved = network.state_dict()[bias].numpy().copy()
    federation.contract.state.write(network, chosen.chosen.model)
    np.testing.assert_allclose(saved, network.state_dict()[bias].numpy() - info.adjustment, atol=1e-6)
    assert np.abs(info.adjustment).min() > 0.1


def test_every_rate_lies_in_its_interval_and_few_cases_are_marked():
    final = final_metrics(STUDY, counted(), 1)
    for key in ("macro_auroc", "balanced_accuracy"):
        assert final[f"{key}_ci95"][0] < final[key] < final[f"{key}_ci95"][1]
    for row in final["per_class"].values():
        for key in ("recall", "precision", "auroc"):
            assert row[f"{key}_ci95"][0] < row[key] < row[f"{key}_ci95"][1]
        assert (row["roc"][0], row["roc"][-1], row["precision_recall"][-1][0]) == ([0, 0], [1, 1], 1)
        assert sum(cases for _, _, cases in row["reliability"]) == 400
    supports = {name: (row["support"], row["conclusive"]) for name, row in final["per_class"].items()}
    assert supports["FTC"][0] < 10
    assert [conclusive for _, conclusive in supports.values()] == [True, True, False]
    assert final["ece"] == pytest.approx(np.mean([row["ece"] for row in final["per_class"].values()]))


def test_ten_cases_are_enough_to_conclude_and_nine_are_not():
    for cases, expected in ((10, True), (9, False)):
        classes_N = np.repeat([0, 1, 2], [20, 20, cases])
        logits_NK = np.eye(3)[classes_N]
        final = final_metrics(STUDY, count_cases(logits_NK, logits_NK, classes_N, (1, 2)), 1)
        assert final["per_class"]["FTC"]["conclusive"] is expected


def test_what_no_case_tells_is_null():
    none = np.zeros((0, 3))
    final = final_metrics(STUDY, count_cases(none, none, np.zeros(0, np.int64), (1, 2)), 1)
    assert (final["balanced_accuracy_ci95"], final["ece"], final["macro_auroc_ci95"]) == (None, None, None)
    row = final["per_class"]["PTC"]
    assert {row[key] for key in OF_A_CLASS if key not in ("support", "conclusive")} == {None}
    assert (row["support"], row["conclusive"]) == (0, False)
    json.dumps(final, allow_nan=False)


def test_a_round_told_twice_counts_once(finished):
    events = read_lines(finished.path)
    again = [event for event in events if event["event"] == "round-finished"]
    report = build_report(finished.study, finished.directory.membership, "local", [*events, *again], "complete")
    assert [row["round"] for row in report["rounds"]] == [1, 2, 3]
    partial = [event | {"absent": {"centerA": "no answer within the deadline"}} for event in again]
    assert run_status([*partial, *events]) == "complete"  # each round was trained again by all sites
    assert run_status([*events, *partial]) == "degraded"


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
    assert len(federation.directory.load().history) == 3  # the weighting does not move on a partial round


def test_status_before_the_outcome():
    assert run_status([]) == "stopped"
    assert run_status([{"event": "failed"}]) == "failed"
    assert run_status([{"event": "failed"}, {"event": "train-started"}]) == "stopped"  # it was begun again


@pytest.mark.parametrize(("absent", "status"), [({}, "complete"), ({"centerA": "no answer within the deadline"}, "degraded")])
def test_a_run_whose_end_lacked_a_site_is_never_plainly_complete(absent, status):
    events = [
        finished_round(1),
        {"event": "finish", "absent": absent},
        {"event": "outcome", "final": final_metrics(STUDY, counted(), 1), "state_hash": "ab"},
    ]
    assert run_status(events) == status
    assert build_report(STUDY, MEMBERSHIP, "local", events, status)["absent_at_finish"] == absent


def test_picture_and_card_are_there_also_of_a_run_that_stopped_early(finished, federate):
    report = write_report(finished.directory, "local")
    with Image.open(finished.path / "curves.png") as picture:
        assert picture.size[0] > 1000
    assert report["final"]
    empty = federate("empty")
    assert write_report(empty.directory, "local")["rounds"] == []
    assert (empty.path / "curves.png").exists()
    assert "Status: stopped" in (empty.path / "MODEL_CARD.md").read_text()
    empty.directory.close()
