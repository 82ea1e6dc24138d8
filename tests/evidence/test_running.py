"""`csasn ablate`: each cell is run once whatever happens, and nothing of it outlives the command."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from command_line import run_quietly
from csasn.measures.cases import confusion
from grid_scene import GRID, write_grid
from server.evidence.predictions import load_predictions, save_predictions
from server.evidence.provenance import code_version
from server.simulation import simulate as engine
from server.simulation.baselines import POOLED, Baseline
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation

pytestmark = pytest.mark.xdist_group("grid")  # one process of a parallel test run trains the cells, not each

COMMAND = Path(sys.prefix) / "bin"


def command(*arguments):
    return [str(COMMAND / "csasn"), "ablate", *map(str, arguments)]


def ablate(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, check=False)


def ablate_nothing(*arguments):
    """What trains no cell needs no process of its own."""
    return run_quietly("csasn", "ablate", *arguments)


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
    deadline = time.monotonic() + 300
    while not list(work.glob("*/run/events.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no federation began"
        time.sleep(0.05)
    return process, descendants(process.pid)


def wait_until_ended(pids):
    deadline = time.monotonic() + 120
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived the grid"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ended(hospitals):
    """A grid that was stopped by SIGTERM in its first cell, and then run to its end: both processes, and the folder."""
    grid = write_grid(hospitals)
    process, below = begin_and_wait_for_a_worker(grid, "--seeds", 1)
    process.terminate()
    _, stderr = process.communicate(timeout=300)
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
    assert "diverging-1: failed: 3 sites could not train" in done.stderr
    records = records_of(folder)
    assert set(records) == {(name, 1) for name in GRID["variants"]}
    assert {name for name, record in records.items() if record["error"]} == {("diverging", 1), ("decided_from_failed", 1)}
    assert records["diverging", 1]["values"] == {}
    assert not (folder / ".work").exists()


def test_a_record_says_what_its_measures_are_of(ended):
    for (variant, _), record in records_of(ended[2]).items():
        assert record["statistics"] == "released"
        assert record["code_version"] == code_version()
        if not record["error"]:
            predictions = load_predictions(ended[2] / "predictions.npz")[f"{variant}-1"]
            assert record["device"] == "cpu"
            assert record["predictions"] == predictions.sha256()
            decided = np.mean([np.mean(predictions.cases.decision_N[predictions.cases.class_N == k] == k) for k in range(3)])
            assert record["values"]["balanced_accuracy"] == pytest.approx(decided, abs=1e-6)


def test_kept_predictions_are_those_of_a_simulation_and_of_its_pooled_baseline(ended, hospitals, monkeypatch):
    """Confusion of a federation and of the pooled model, to the case."""
    out, folder = hospitals / "run", hospitals / "hospitals"
    monkeypatch.setattr(engine, "baselines_of", lambda study: (Baseline(POOLED, study.federation.sites),))
    simulation = Simulation(folder / "study.yaml", folder / "sites", out, ("seed=1",), baselines=True)
    engine.simulate(simulation, Progress(Console(file=io.StringIO())))
    report = json.loads((out / "report.json").read_text())
    for name, expected in (("fedprox", report["final"]), ("pooled", report["baselines"]["pooled"])):
        cases = load_predictions(ended[2] / "predictions.npz")[f"{name}-1"].cases
        found = confusion(cases.class_N, cases.decision_N, 3, np.ones((1, len(cases.class_N))))[0]
        np.testing.assert_array_equal(found, expected["confusion"], err_msg=name)
        found = records_of(ended[2])[name, 1]["values"]["macro_auroc"]
        assert found == pytest.approx(expected["macro_auroc"], abs=0.01)  # counted in bins there
    record = records_of(ended[2])["fedprox", 1]
    assert record["study_hash"] == report["study_hash"]
    assert record["clipped_share"] == max(entry["clipped_share"] for entry in report["rounds"])
    assert records_of(ended[2])["pooled", 1]["clipped_share"] is None


def test_a_cell_that_is_decided_from_another_has_its_probabilities_and_origin(ended):
    decided, trained = (load_predictions(ended[2] / "predictions.npz")[f"{name}-1"] for name in ("decided", "fedprox"))
    np.testing.assert_array_equal(decided.keys(), trained.keys())
    np.testing.assert_array_equal(decided.cases.log_probability_NK, trained.cases.log_probability_NK)
    np.testing.assert_allclose(decided.cases.adjustment_K, np.log([1 / 3] * 3))  # as few cases of each class as are floored
    record, origin = records_of(ended[2])["decided", 1], records_of(ended[2])["fedprox", 1]
    assert (record["method"], record["seconds"]) == ("decided from fedprox", 0)
    other = {key for key in record if record[key] != origin[key]}
    assert other - {"values"} == {"variant", "method", "study_hash", "seconds", "predictions"}


def test_nothing_is_decided_from_a_cell_that_failed(ended):
    assert records_of(ended[2])["decided_from_failed", 1]["error"] == "it is decided from diverging-1, which has to be done first"
    assert "decided_from_failed-1" not in load_predictions(ended[2] / "predictions.npz")


def test_a_site_that_was_left_out_is_what_is_scored(ended):
    kept = load_predictions(ended[2] / "predictions.npz")
    predictions = kept["without_centerB-1"]
    assert set(predictions.site_N) == {1}
    np.testing.assert_array_equal(predictions.keys(), kept["fedprox-1"].of_site(1).keys())


def test_a_finished_cell_is_not_run_again_and_a_failed_one_is(ended):
    grid = ended[2].parent / "grid.yaml"
    before = (ended[2] / "predictions.npz").stat().st_mtime_ns
    listed = ablate_nothing(grid, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[:2] for line in listed.stdout.replace("to do", "todo").splitlines()[:4]] == [
        ["done", "fedprox-1"], ["todo", "diverging-1"], ["done", "pooled-1"], ["done", "without_centerB-1"]
    ]  # fmt: skip
    again = ablate(grid, "--seeds", 1, "--only", "fedprox", "--only", "pooled")
    assert again.returncode == 0, again.stderr
    assert "2 cells, of which 2 are done" in again.stdout
    assert (ended[2] / "predictions.npz").stat().st_mtime_ns == before


def test_other_data_make_a_cell_run_again(ended, hospitals):
    site = hospitals / "hospitals/centerA/manifest.csv"
    text = site.read_text()
    try:
        site.write_text(text.replace("benign", "PTC", 1))
        assert ablate_nothing(hospitals / "grid.yaml", "--dry-run", "--only", "pooled").stdout.startswith("stale  pooled-1")
    finally:
        site.write_text(text)


def made_by_other_code(ended, folder):
    """A copy of the grid's results, as if other code had made all of them; its grid file."""
    shutil.copytree(ended[2].parent / "hospitals", folder / "hospitals")
    shutil.copytree(ended[2], folder / "grid")
    path = folder / "grid/results.json"
    path.write_text(path.read_text().replace(code_version(), "0.0+older"))
    return write_grid(folder)


def test_results_of_other_code_hold_once_one_cell_that_is_run_again_gives_the_same_bits(ended, tmp_path):
    grid = made_by_other_code(ended, tmp_path)
    done = ["--only", "fedprox", "--only", "pooled", "--only", "decided", "--seeds", 1]
    assert [line.split()[0] for line in ablate_nothing(grid, "--dry-run", *done).stdout.splitlines()] == ["check"] * 3
    checked = ablate(grid, *done)
    assert checked.returncode == 0, checked.stderr
    assert "fedprox-1: the same bits as by code 0.0+older, whose" in checked.stderr
    assert "pooled-1: " not in checked.stderr
    now, before = records_of(tmp_path / "grid"), records_of(ended[2])
    assert {record["code_version"] for record in now.values() if not record["error"]} == {code_version()}
    assert {key: record["predictions"] for key, record in now.items()} == {
        key: record["predictions"] for key, record in before.items()
    }
    assert now["pooled", 1] == before["pooled", 1]


def test_results_of_other_code_are_made_again_where_the_bits_differ(ended, tmp_path):
    grid = made_by_other_code(ended, tmp_path)
    path = tmp_path / "grid/predictions.npz"
    kept = load_predictions(path)
    kept["pooled-1"] = replace(kept["pooled-1"], cases=kept["pooled-1"].cases.decided(np.array([0.0, 9.0, 9.0])))
    save_predictions(path, kept)
    facts = json.loads((tmp_path / "grid/results.json").read_text())
    for record in facts["cells"]:
        if record["variant"] == "pooled":
            record["predictions"] = kept["pooled-1"].sha256()
    (tmp_path / "grid/results.json").write_text(json.dumps(facts))
    checked = ablate(grid, "--only", "pooled", "--only", "without_centerB", "--seeds", 1)
    assert checked.returncode == 0, checked.stderr
    assert "pooled-1: other bits than by code 0.0+older on cpu, whose results do not hold" in checked.stderr
    assert "without_centerB-1: macro_auroc" in checked.stderr
    now, before = records_of(tmp_path / "grid"), records_of(ended[2])
    assert now["pooled", 1]["predictions"] == before["pooled", 1]["predictions"]
    assert now["fedprox", 1]["code_version"] == "0.0+older"


def test_the_report_needs_no_data_and_marks_what_cannot_be_concluded(ended, tmp_path):
    shutil.copytree(ended[2], tmp_path / "grid")
    (tmp_path / "hospitals").mkdir()
    shutil.copy(ended[2].parent / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    done = ablate_nothing(write_grid(tmp_path), "--report")
    assert done.returncode == 0, done.stderr
    assert "4 of 12 cells are done" in done.stdout
    text = (tmp_path / "grid/results.md").read_text()
    assert "| fedprox - pooled | all, " in text
    assert "too few cases" in text
    assert "| fedprox - diverging | all | not done yet |" in text
    assert "## Comparisons at equal rare recall" in text
    value = records_of(ended[2])["fedprox", 1]["values"]["macro_auroc"]
    assert f"| fedprox | released | 1 | {value:.3f} (" in text
    assert records_of(tmp_path / "grid") == records_of(ended[2])


def test_tables_are_left_as_they_are_where_no_result_is_of_the_grids_study(ended, tmp_path):
    shutil.copytree(ended[2], tmp_path / "grid")
    (tmp_path / "hospitals").mkdir()
    shutil.copy(ended[2].parent / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    before = (tmp_path / "grid/results.md").read_bytes()
    done = ablate_nothing(write_grid(tmp_path, changes={"optimiser.batch_size": 4}), "--report")
    assert done.returncode == 10
    assert "is of the studies of the grid as they are now" in done.stderr
    assert (tmp_path / "grid/results.md").read_bytes() == before


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
    done = ablate_nothing(write_grid(tmp_path), *arguments)
    assert done.returncode == code
    assert says in done.stderr
