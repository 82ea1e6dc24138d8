"""`csasn ablate`: the grid file, cells that are run once whatever happens, and tables that say what can be concluded."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from csasn.ablation.cells import base_study, cells_of
from csasn.ablation.estimation import Estimate
from csasn.ablation.grid import read_grid
from csasn.ablation.picture import draw_comparisons
from csasn.ablation.predictions import Predictions, load_predictions, save_predictions
from csasn.ablation.provenance import _bare, code_version, data_hash
from csasn.ablation.results import Record, Results, classes_of
from csasn.ablation.summary import check_comparisons, summarise
from csasn.ablation.tables import markdown, tables_of
from csasn.errors import ConfigurationError, StorageError
from csasn.site import find_site
from csasn.statistics import Cases, Classes, confusion, measure_names

pytestmark = pytest.mark.xdist_group("grid")  # one process of a parallel test run trains the cells, not each

COMMAND = Path(sys.prefix) / "bin"
SIMULATE = """
import server.simulate
server.simulate.NUM_PROCESSES = 1  # and so one thread for the pooled baseline, as in a cell
from server.cli import main
if __name__ == "__main__":
    main()
"""
SVG = "{http://www.w3.org/2000/svg}"
EVIDENCE = Path(__file__).parent / "evidence"
CLASSES = Classes(("benign", "PTC", "FTC"), malignant=(1, 2), rare=(2,))
SEEDS = (1, 2)
STATIC = {"class_weighting.mode": "static", "class_weighting.tau": 1.0}
GRID = {
    "study": "hospitals/study.yaml",
    "seeds": list(SEEDS),
    "rare": ["FTC"],
    "statistics": ["own", "released"],
    "variants": {
        "fedprox": {},
        "diverging": {"optimiser.learning_rate": 1e20},
        "pooled": {"central": "pooled"},
        "without_centerB": {"leave_out": "centerB"},
        "decided": {"decided_from": "fedprox"} | STATIC,
        "decided_from_failed": {"decided_from": "diverging"} | STATIC,
    },
    "comparisons": [
        {"of": "fedprox", "against": "pooled", "metrics": ["macro_auroc", "recall.FTC"], "at_equal_rare_recall": True},
        {"of": "without_centerB", "against": "fedprox", "cases": "centerB", "statistics": "released"},
        {"of": "fedprox", "against": "diverging"},
    ],
}


def command(*arguments):
    return [str(COMMAND / "csasn"), "ablate", *map(str, arguments)]


def ablate(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, check=False)


def write_grid(folder, **changes):
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID | changes, sort_keys=False))
    return path


def records_of(folder):
    path = folder / "results.json"
    return {(cell["variant"], cell["seed"]): cell for cell in json.loads(path.read_text())["cells"]} if path.exists() else {}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid):
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [inner for child in found for inner in descendants(child)]


def begin_and_wait_for_a_worker(grid, *more):
    """A grid whose first federation is on its way, and all processes below it."""
    process = subprocess.Popen(
        command(grid, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    work = grid.parent / "grid" / ".work"
    deadline = time.monotonic() + 120
    while not list(work.glob("*/run/events.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no federation began"
        time.sleep(0.05)
    return process, descendants(process.pid)


def wait_until_ended(pids):
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived the grid"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("grid")
    write_small_hospitals(folder / "hospitals", federation={"rounds": 1})
    return folder


@pytest.fixture(scope="module")
def ended(hospitals):
    """A grid that was stopped by SIGTERM in its first cell, and then run to its end: both processes, and the folder."""
    grid = write_grid(hospitals)
    process, below = begin_and_wait_for_a_worker(grid, "--seeds", 1)
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    wait_until_ended(below)
    stopped = (process.returncode, stderr, sorted(path.name for path in (hospitals / "grid").iterdir()))
    return stopped, ablate(grid, "--jobs", 2, "--seeds", 1), hospitals / "grid"


def test_a_stopped_grid_leaves_no_process_and_nothing_half_written(ended):
    code, stderr, left = ended[0]
    assert code == 130
    assert "6 of 6 cells are to do" in stderr
    assert "the same command goes on" in stderr
    assert left == []


def test_a_failing_cell_is_named_and_the_others_go_on(ended):
    _, done, folder = ended
    assert done.returncode == 10
    assert "2 of 6 cells failed: diverging-1, decided_from_failed-1" in done.stderr
    assert "diverging-1: failed: server simulate ended with exit code" in done.stderr
    records = records_of(folder)
    assert set(records) == {(name, 1) for name in GRID["variants"]}
    assert {name for name, record in records.items() if record["error"]} == {("diverging", 1), ("decided_from_failed", 1)}
    assert records["diverging", 1]["values"] == {}
    assert not (folder / ".work").exists()


def test_a_table_has_a_row_for_each_measure_of_each_cell(ended):
    rows = list(csv.DictReader((ended[2] / "results.csv").open()))
    assert {row["variant"] for row in rows} == {"fedprox", "pooled", "without_centerB", "decided"}
    for row in rows:
        record = records_of(ended[2])[row["variant"], int(row["seed"])]
        value = record[row["metric"]] if row["metric"] == "clipped_share" else record["values"][row["statistics"]][row["metric"]]
        assert row["value"] == ("" if value is None else f"{value:.6f}")
        assert record["study_hash"].startswith(row["study_hash"])
        assert (row["grid"], row["device"], row["code_version"]) == ("grid", "cpu", code_version())
    own = {"fedprox", "decided"}
    assert {row["statistics"] for row in rows if row["variant"] in own} == {"own", "released"}
    assert {row["statistics"] for row in rows if row["variant"] not in own} == {"released"}


def test_kept_predictions_are_those_of_a_simulation_and_of_its_pooled_baseline(ended, hospitals):
    """Confusion of a federation whose sites use their own statistics, and of the pooled model, to the case."""
    out = hospitals / "run"
    study = str(hospitals / "hospitals/study.yaml")
    arguments = [sys.executable, "-P", "-c", SIMULATE, "simulate", study, "--out", str(out), "--set", "seed=1", "--baselines"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    for name, expected in (("fedprox-1-own", report["final"]), ("pooled-1-released", report["baselines"]["pooled"])):
        cases = load_predictions(ended[2] / f"predictions/{name}.npz").cases
        found = confusion(cases.class_N, cases.decision_N, 3, np.ones((1, len(cases.class_N))))[0]
        np.testing.assert_array_equal(found, expected["confusion"], err_msg=name)
        assert records_of(ended[2])[name.split("-")[0], 1]["values"][name.split("-")[2]]["macro_auroc"] == pytest.approx(
            expected["macro_auroc"], abs=0.01  # counted in bins there
        )  # fmt: skip
    record = records_of(ended[2])["fedprox", 1]
    assert record["study_hash"] == report["study_hash"]
    assert record["clipped_share"] == max(entry["clipped_share"] for entry in report["rounds"])
    assert records_of(ended[2])["pooled", 1]["clipped_share"] is None


@pytest.mark.parametrize("statistics", ["own", "released"])
def test_a_cell_that_is_decided_from_another_has_its_probabilities_and_origin(ended, statistics):
    decided, trained = (load_predictions(ended[2] / f"predictions/{name}-1-{statistics}.npz") for name in ("decided", "fedprox"))
    np.testing.assert_array_equal(decided.keys(), trained.keys())
    np.testing.assert_array_equal(decided.cases.log_probability_NK, trained.cases.log_probability_NK)
    np.testing.assert_allclose(decided.cases.adjustment_K, np.log([1 / 3] * 3))  # as few cases of each class as are floored
    record, origin = records_of(ended[2])["decided", 1], records_of(ended[2])["fedprox", 1]
    assert (record["method"], record["seconds"]) == ("decided from fedprox", 0)
    assert {key for key in record if record[key] != origin[key]} - {"values"} == {"variant", "method", "study_hash", "seconds"}


def test_nothing_is_decided_from_a_cell_that_failed(ended):
    assert records_of(ended[2])["decided_from_failed", 1]["error"] == "it is decided from diverging-1, which is not done"
    assert not list((ended[2] / "predictions").glob("decided_from_failed*"))


def test_a_site_that_was_left_out_is_what_is_scored(ended):
    predictions = load_predictions(ended[2] / "predictions/without_centerB-1-released.npz")
    assert set(predictions.site_N) == {1}
    whole = load_predictions(ended[2] / "predictions/fedprox-1-released.npz").of_site(1)
    np.testing.assert_array_equal(predictions.keys(), whole.keys())


def test_a_finished_cell_is_not_run_again_and_a_failed_one_is(ended):
    grid = ended[2].parent / "grid.yaml"
    before = {path: path.stat().st_mtime_ns for path in (ended[2] / "predictions").iterdir()}
    listed = ablate(grid, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[:2] for line in listed.stdout.replace("to do", "todo").splitlines()[:4]] == [
        ["done", "fedprox-1"], ["todo", "diverging-1"], ["done", "pooled-1"], ["done", "without_centerB-1"]
    ]  # fmt: skip
    again = ablate(grid, "--seeds", 1, "--only", "fedprox", "--only", "pooled")
    assert again.returncode == 0, again.stderr
    assert "2 cells, of which 2 are done" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (ended[2] / "predictions").iterdir()} == before


def test_other_data_make_a_cell_run_again(ended, hospitals):
    site = hospitals / "hospitals/centerA/manifest.csv"
    text = site.read_text()
    try:
        site.write_text(text.replace("benign", "PTC", 1))
        assert ablate(hospitals / "grid.yaml", "--dry-run", "--only", "pooled").stdout.startswith("stale  pooled-1")
    finally:
        site.write_text(text)


def test_the_report_needs_no_data_and_marks_what_cannot_be_concluded(ended, tmp_path):
    shutil.copytree(ended[2], tmp_path / "grid")
    (tmp_path / "hospitals").mkdir()
    shutil.copy(ended[2].parent / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    done = ablate(write_grid(tmp_path), "--report")
    assert done.returncode == 0, done.stderr
    assert "4 of 12 cells are done" in done.stdout
    text = (tmp_path / "grid/results.md").read_text()
    assert "| fedprox - pooled | all, " in text
    assert "too few cases" in text
    assert "| fedprox - diverging | all | not done yet |" in text
    assert "## Comparisons at equal rare recall" in text
    summary = json.loads((tmp_path / "grid/summary.json").read_text())
    fedprox = summary["variants"][0]
    assert (fedprox["variant"], fedprox["statistics"], fedprox["seeds"]) == ("fedprox", "own", [1])
    value = records_of(ended[2])["fedprox", 1]["values"]["own"]["macro_auroc"]
    assert fedprox["measures"]["macro_auroc"]["mean"] == pytest.approx(value, abs=1e-5)


def test_a_killed_grid_takes_its_processes_with_it(tmp_path, hospitals):
    shutil.copytree(hospitals / "hospitals", tmp_path / "hospitals")
    process, below = begin_and_wait_for_a_worker(write_grid(tmp_path), "--only", "fedprox")
    assert len(below) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_ended(below)
    assert records_of(tmp_path / "grid") == {}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(("--only", "unheard"), 3, "the grid has no variant unheard"), (("--seeds", "7"), 3, "the grid has no seed 7"),
     (("--jobs", "0"), 3, "--jobs is 0"), (("--report", "--dry-run"), 2, "not allowed with")],
)  # fmt: skip
def test_wrong_arguments_say_what_is_possible(tmp_path, hospitals, arguments, code, says):
    (tmp_path / "hospitals").mkdir()
    shutil.copy(hospitals / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    done = ablate(write_grid(tmp_path), *arguments)
    assert done.returncode == code
    assert says in done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"seeds": [1, 1]}, "names a seed twice"),
     ({"variants": {}}, "variants"),
     ({"comparisons": [{"of": "fedprox", "against": "unheard"}]}, "comparisons name unheard"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "metrics": ["accuracy"]}]}, "name the measure accuracy"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "at_least": {"luck": 0}}]}, "name the measure luck"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "cases": "centerZ"}]}, "the cases of centerZ"),
     ({"rare": [], "comparisons": GRID["comparisons"][:1], "variants": GRID["variants"]}, "at_equal_rare_recall without rare"),
     ({"rare": ["MTC"]}, "rare is MTC"),
     ({"comparisons": [{"of": "without_centerB", "against": "fedprox"}]}, "scored on other cases than all"),
     ({"variants": {"fedprox": {"federation.sites": ["centerA", "centerZ"]}}, "comparisons": []}, "centerZ is no site"),
     ({"variants": {"fedprox": {"changes": {"seed": 3}}}, "comparisons": []}, "changes is not a known key"),
     ({"prevalence": {"benign": 1.0}}, "prevalence names benign"),
     ({"variants": {"fedprox": {"model.chanel_attention": False}}, "comparisons": []},
      "variant fedprox: study.yaml: model.chanel_attention is not a known key"),
     ({"variants": {"fedprox": {"central": "centerZ"}}, "comparisons": []}, "centerZ is no site of the study"),
     ({"variants": {"fedprox": {"central": "pooled", "leave_out": "centerA"}}, "comparisons": []}, "central and leave_out"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "y"}}, "comparisons": []}, "decided_from names y"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "central": "pooled"}}, "comparisons": []}, "decided_from with"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox"} | STATIC, "y": {"decided_from": "x"} | STATIC},
       "comparisons": []}, "decided_from names x"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "class_weighting.tau": 0.75}}, "comparisons": []},
      "class_weighting dynamic on the decision cannot be decided"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "class_weighting.acts_on": "loss"} | STATIC},
       "comparisons": []}, "class_weighting static on the loss cannot be decided"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "model.vit": False} | STATIC}, "comparisons": []},
      "other changes than of class_weighting"),
     ({"variants": {"../up": {}}, "comparisons": []}, "variants"),
     ({"unheard": 1}, "unheard is not a known key")],
)  # fmt: skip
def test_a_grid_that_cannot_be_run_is_refused_before_anything_trains(tmp_path, hospitals, changes, says):
    (tmp_path / "hospitals").mkdir()
    shutil.copy(hospitals / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    with pytest.raises(ConfigurationError) as refused:
        checked(write_grid(tmp_path, **changes))
    assert says in refused.value.message


def checked(path):
    from csasn.ablation.campaign import Campaign

    grid = read_grid(path)
    cells = cells_of(grid)
    Campaign.of(grid, Results(path.parent / "grid", "grid", grid.prevalence), cells, "cpu")
    return cells


def test_cells_go_seed_by_seed_and_differ_in_study_or_in_the_way_to_train(tmp_path, hospitals):
    (tmp_path / "hospitals").mkdir()
    shutil.copy(hospitals / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    cells = checked(write_grid(tmp_path))
    assert [(cell.variant, cell.seed) for cell in cells] == [(name, seed) for seed in SEEDS for name in GRID["variants"]]
    assert len({(cell.study.study_hash, cell.method) for cell in cells}) == len(cells)
    fedprox, diverging, pooled, without = cells[:4]
    assert diverging.study.optimiser.learning_rate == 1e20
    assert pooled.study == fedprox.study
    assert (pooled.trained_on, pooled.scored_on) == (pooled.study.federation.sites,) * 2
    assert "centerB" not in without.study.federation.sites
    assert (without.trained_on, without.scored_on) == ((), ("centerB",))


@pytest.mark.parametrize("name", sorted(path.stem for path in EVIDENCE.glob("*.yaml")))
def test_the_grids_of_the_evidence_are_possible(name, tmp_path):
    packaged = Path(sys.modules["csasn"].__file__).parent / "data/phantom"
    for folder, study in (("demo", "study.yaml"), ("benchmark", "benchmark.yaml"), ("tuning", "benchmark.yaml")):
        (tmp_path / folder).mkdir()
        shutil.copy(packaged / study, tmp_path / folder / "study.yaml")
    (tmp_path / "tests/evidence").mkdir(parents=True)
    cells = checked(Path(shutil.copy(EVIDENCE / f"{name}.yaml", tmp_path / "tests/evidence")))
    assert len({(cell.study.study_hash, cell.method) for cell in cells}) == len(cells)


def drawn_predictions(num_cases, seed=0, skill=1.0, places=None):
    random = np.random.default_rng(seed)
    labels = np.arange(num_cases) % 3
    logits = random.normal(0, 1, (num_cases, 3)) + skill * np.eye(3)[labels]
    cases = Cases(
        labels, logits.argmax(axis=1), logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), np.array([-0.1, -0.4, -2])
    )
    return Predictions(cases, labels * 0 + np.arange(num_cases) // 100, np.arange(num_cases) if places is None else places)


def test_predictions_are_small_numbers_alone_and_read_back_in_order(tmp_path):
    predictions = drawn_predictions(1200)
    save_predictions(tmp_path / "p.npz", predictions)
    assert (tmp_path / "p.npz").stat().st_size < 15_000
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= {"u", "f"}
    again = load_predictions(tmp_path / "p.npz")
    np.testing.assert_array_equal(again.keys(), predictions.keys())
    np.testing.assert_array_equal(again.cases.decision_N, predictions.cases.decision_N)
    np.testing.assert_allclose(again.cases.log_probability_NK, predictions.cases.log_probability_NK, rtol=1e-3, atol=1e-6)
    (tmp_path / "p.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:-200])
    with pytest.raises(StorageError, match="cannot be read as predictions"):
        load_predictions(tmp_path / "p.npz")


def test_a_record_without_its_predictions_counts_as_not_done(tmp_path, hospitals):
    grid = read_grid(write_grid(tmp_path, study=str(hospitals / "hospitals/study.yaml")))
    cell = next(cell for cell in cells_of(grid) if cell.variant == "pooled")
    results = Results(tmp_path / "grid", "grid", None)
    (tmp_path / "grid").mkdir()
    record = Record(variant="pooled", seed=1, method=cell.method, study_hash=cell.study.study_hash, data_hash="d", code_version="c")
    results.keep(cell, record, {"released": drawn_predictions(60)}, CLASSES)
    again = Results(tmp_path / "grid", "grid", None)
    assert again.finished(cell).values["released"].keys() == set(measure_names(CLASSES))
    (tmp_path / "grid/predictions/pooled-1-released.npz").unlink()
    assert again.finished(cell) is None


def test_the_version_of_the_code_counts_code_alone():
    source = 'def f(x):\n    """Says."""\n    return x + 1  # why\n'
    assert _bare(source) == _bare("def f(x):\n    return (x\n            + 1)\n")
    assert _bare(source) != _bare("def f(x):\n    return x + 2\n")


def test_the_hash_of_the_data_counts_manifests_and_pictures(tmp_path, hospitals):
    shutil.copytree(hospitals / "hospitals", tmp_path / "h")
    sites = {"centerA": find_site("centerA", folder=tmp_path / "h/sites")}
    before = data_hash(sites)
    picture = next((tmp_path / "h/centerA/images").iterdir())
    whole = picture.read_bytes()
    picture.write_bytes(whole + b"\0")
    assert data_hash(sites) != before
    picture.write_bytes(whole)
    assert data_hash(sites) == before


def summary_of(tmp_path, hospitals, skills, num_cases):
    """A grid of two variants whose predictions are drawn, as good as `skills` say, over the seeds 1 to 5."""
    pair = {"of": "good", "against": "bad", "metrics": ["macro_auroc", "brier", "recall.FTC"], "at_equal_rare_recall": True}
    pair["at_least"] = {"macro_auroc": 0.0, "macro_f1": -0.01, "recall.FTC": 0.9}
    variants = {"good": {"central": "pooled"}, "bad": {"central": "pooled", "optimiser.batch_size": 4}}
    path = write_grid(
        tmp_path, study=str(hospitals / "hospitals/study.yaml"), seeds=[1, 2, 3, 4, 5], variants=variants, comparisons=[pair]
    )
    grid = read_grid(path)
    cells = cells_of(grid)
    classes = classes_of(base_study(grid), grid.rare)
    check_comparisons(grid, cells, classes, ("centerA", "centerB"))
    (tmp_path / "grid").mkdir()
    results = Results(tmp_path / "grid", "grid", None)
    for cell in cells:
        own = {"variant": cell.variant, "seed": cell.seed, "method": cell.method, "study_hash": cell.study.study_hash}
        record = Record(
            **own, data_hash="d", code_version="c", device="cpu", saliency={"gradcam": 0.5, "rollout": None, "area": 0.1}
        )
        results.keep(cell, record, {"released": drawn_predictions(num_cases, cell.seed, skills[cell.variant])}, classes)
    return summarise(grid, cells, results, classes, ("centerA", "centerB"))


def verdicts(summary, title="Comparisons", column="verdict"):
    table = next(table for table in tables_of(summary) if table.title == title)
    return {row[2]: row[table.columns.index(column)] for row in table.rows}


def test_a_difference_is_told_where_both_intervals_show_it(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    assert verdicts(summary) == dict.fromkeys(("macro AUROC", "brier", "recall FTC", "macro F1"), "better")
    assert verdicts(summary, "Comparisons at equal rare recall")["macro F1"] == "better"
    difference = summary.comparisons[0].differences["macro_auroc"]
    assert isinstance(difference, Estimate)
    assert len(difference.values) == 5
    good, bad = (item.measures["macro_auroc"].mean for item in summary.variants)
    assert difference.mean == pytest.approx(good - bad)
    assert summary.comparisons[0].differences["brier"].mean < 0
    text = markdown(summary, tables_of(summary))
    assert "| good | 0.500 | - | 0.100 |" in text
    assert "Origin: code c, data d, cpu." in text


def test_a_worse_variant_is_called_worse_and_an_equal_one_not_shown(tmp_path, hospitals):
    (tmp_path / "worse").mkdir()
    (tmp_path / "equal").mkdir()
    assert verdicts(summary_of(tmp_path / "worse", hospitals, {"good": 0.5, "bad": 1.5}, 300))["brier"] == "worse"
    assert set(verdicts(summary_of(tmp_path / "equal", hospitals, {"good": 1.0, "bad": 1.0}, 300)).values()) == {"not shown"}


@pytest.mark.parametrize(
    ("place", "says"), [("surely", "held, also by both intervals"), ("mean", "held by the mean"), ("above", "missed")]
)
def test_a_bar_is_held_by_both_intervals_or_by_the_mean_or_missed(tmp_path, hospitals, place, says):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    difference = summary.comparisons[0].differences["macro_f1"]
    lowest = min(difference.over_cases[0], difference.over_seeds[0])
    bar = {"surely": lowest, "mean": difference.mean, "above": difference.mean + 0.001}[place]
    moved = replace(summary, comparisons=(replace(summary.comparisons[0], at_least={"macro_f1": bar}),))
    found = verdicts(moved, column="bar")
    assert found["macro F1"] == f"{bar:+.3f}: {says}"
    assert found["brier"] == "-"


def test_the_picture_shows_each_difference_where_it_is(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    tree = ElementTree.fromstring(draw_comparisons(summary))
    texts = {float(text.text): float(text.get("x")) for text in tree.iter(f"{SVG}text") if text.get("text-anchor") == "middle"}
    (low, first), (high, last) = min(texts.items()), max(texts.items())
    item = summary.comparisons[0]
    expected = [estimate.mean for estimate in (*item.differences.values(), *item.at_equal_rare_recall.values())]
    shown = [low + (float(circle.get("cx")) - first) / (last - first) * (high - low) for circle in tree.iter(f"{SVG}circle")][1:]
    assert shown == pytest.approx(np.clip(expected, low, high), abs=0.001)
    bars = [path for path in tree.iter(f"{SVG}path") if path.get("class") == "bar"]
    assert len(bars) == 1 + len(item.at_least)
    assert draw_comparisons(replace(summary, comparisons=())) == ""


def test_results_of_other_data_are_not_compared(tmp_path, hospitals):
    (tmp_path / "one").mkdir()
    summary_of(tmp_path / "one", hospitals, {"good": 1.0, "bad": 0.0}, 60)
    path = tmp_path / "one/grid/results.json"
    facts = json.loads(path.read_text())
    for cell in facts["cells"]:
        if (cell["variant"], cell["seed"]) in (("good", 1), ("bad", 2)):
            cell["data_hash"] = "other"
    path.write_text(json.dumps(facts))
    grid = read_grid(tmp_path / "one/grid.yaml")
    classes = classes_of(base_study(grid), grid.rare)
    summary = summarise(grid, cells_of(grid), Results(path.parent, "grid", None), classes, ("centerA", "centerB"))
    assert summary.comparisons[0].seeds == (3, 4, 5)
    assert "of different code, data or devices" in markdown(summary, tables_of(summary))


def test_fewer_than_ten_cases_of_a_class_are_nothing_to_conclude_from(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 2.5, "bad": 0.0}, 27)
    assert set(verdicts(summary).values()) == {"too few cases"}
    rates = next(table for table in tables_of(summary) if table.title == "Classes")
    assert all(row[-1] == "9*" and row[3].endswith("*") for row in rates.rows)
