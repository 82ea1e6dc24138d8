"""`server simulate` with real processes: equal bits, kills, Ctrl-C, and errors that an operator can act on."""

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

import pytest
from rich.console import Console

from command_line import run_here, run_quietly
from csasn.study import read_study
from page_reader import check_page
from reports import read_lines
from server.run import execution
from server.run.outcome import write_outcome
from server.run.run_directory import describe, read_events
from server.simulation import simulate as engine
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation

pytestmark = pytest.mark.xdist_group("simulation")  # what its tests share is made once, not by each process

COMMAND = Path(sys.prefix) / "bin"
ROUNDS = 3
DEADLINE_S = 1000.0
CLOCK = """
import sys, time
from pathlib import Path
from server.commands.cli import main
real, ahead = time.monotonic, Path(sys.argv.pop(1))
time.monotonic = lambda: real() + 2000 * ahead.exists()
main()
"""  # `server`, whose clock goes ahead by two deadlines once a file is there


def simulate(hospitals, out, *more, **options):
    return subprocess.run(arguments(hospitals, out, *more), capture_output=True, text=True, timeout=300, check=False, **options)


def arguments(hospitals, out, *more):
    return [str(COMMAND / "server"), *words(hospitals, out, *more)]


def words(hospitals, out, *more):
    return ["simulate", str(hospitals / "study.yaml"), "--out", str(out), *more]


def refused(hospitals, out, *more):
    """What is refused before any process is started needs none of its own."""
    return run_quietly("server", *words(hospitals, out, *more))


def begin(hospitals, out, *more, command=(COMMAND / "server",)):
    command = [*map(str, command), *words(hospitals, out, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(out, condition, process, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if any(condition(event) for event in read_lines(out)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("the run did not come so far")


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(pid):
    """The spawned workers, without multiprocessing's resource tracker."""
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children_of(pid)}
    return [child for child, command in commands.items() if b"spawn_main" in command]


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def kill_with_workers(process):
    """Kills it alone; its workers end by themselves."""
    workers = workers_of(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    deadline = time.monotonic() + 60
    while not all(ended(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the one who started it"
        time.sleep(0.05)


def kill_in_mid_round_and_resume(hospitals, out):
    process = begin(hospitals, out)
    wait_for(out, mid_round_2, process)
    kill_with_workers(process)
    assert not (out / "report.json").exists()
    again = simulate(hospitals, out, "--resume")
    assert again.returncode == 0, again.stderr


def mid_round_2(event):
    return event["event"] == "train-started" and event["round"] == 2


def answered_in_round_2(event, site):
    return [event.get(key) for key in ("event", "kind", "round", "site", "said")] == ["reply", "train", 2, site, "answered"]


def state_hash(out):
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "complete"
    return report["state_hash"]


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("simulate") / "hospitals"
    write_small_hospitals(folder, federation={"rounds": ROUNDS})
    return folder


@pytest.fixture(scope="module")
def reference(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "reference"
    done = simulate(small, out)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def of_ten_classes(tmp_path_factory, write_small_hospitals):
    """What a simulation with baselines printed as JSON, and its run directory."""
    folder, classes = tmp_path_factory.mktemp("ten"), [f"lesion {letter}" for letter in "ABCDEFGHIJ"]
    changes = {"classes": classes, "malignant": [], "tasks": {"subtype": {}}, "federation": {"rounds": 1}}
    write_small_hospitals(folder / "hospitals", ("north", "south"), num_cases=50, **changes)
    done = simulate(folder / "hospitals", folder / "run", "--baselines", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "run"


@pytest.fixture
def one_worker(monkeypatch):
    monkeypatch.setattr(engine, "NUM_PROCESSES", 1)


def test_a_run_ends_with_tables_and_names_its_directory(reference):
    out, done = reference
    assert "Federated model" in done.stdout
    assert str(out) in done.stdout
    assert done.stdout.splitlines()[-1] == f"open {out / 'report.html'}"
    files = {"report.json", "report.html", "curves.png", "model.safetensors", "model.json", "events.jsonl", "study.yaml"}
    assert files <= set(os.listdir(out))


def test_the_engine_gives_the_bits_of_the_federation_without_processes(reference, small, tmp_path, local_federation):
    federation = local_federation(small, tmp_path / "runs" / "inside")
    federation.run()
    assert state_hash(reference[0]) == federation.state_hash()


@pytest.mark.slow  # tests/e2e/test_kills.py does it twelve times, tests/run/test_rounds.py without processes
def test_killed_in_mid_round_and_resumed_gives_the_same_bits(reference, small, tmp_path):
    kill_in_mid_round_and_resume(small, tmp_path / "run")
    assert state_hash(tmp_path / "run") == state_hash(reference[0])


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["fedadagrad", "fedadam", "fedyogi"])
def test_also_what_a_rule_of_the_server_remembers_outlives_a_kill(rule, tmp_path, write_small_hospitals, local_federation):
    write_small_hospitals(tmp_path / "hospitals", federation={"rounds": ROUNDS, "server_rule": rule})
    undisturbed = local_federation(tmp_path / "hospitals", tmp_path / "runs" / "undisturbed")
    undisturbed.run()
    kill_in_mid_round_and_resume(tmp_path / "hospitals", tmp_path / "run")
    assert state_hash(tmp_path / "run") == undisturbed.state_hash()


def test_a_killed_worker_is_started_anew_and_the_bits_are_the_same(reference, small, tmp_path):
    out = tmp_path / "run"
    process = begin(small, out)
    wait_for(out, mid_round_2, process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "the site's app ended, code 8" in stdout
    assert state_hash(out) == state_hash(reference[0])


def test_a_worker_that_hangs_costs_one_deadline_and_is_named(tmp_path, write_small_hospitals):
    hospitals, out = tmp_path / "hospitals", tmp_path / "run"
    allowed = {"rounds": ROUNDS, "answer_deadline_s": DEADLINE_S, "min_sites": 2, "max_partial_rounds": 0.7}
    write_small_hospitals(hospitals, federation=allowed)
    process = begin(hospitals, out, command=(sys.executable, "-P", "-c", CLOCK, tmp_path / "ahead"))
    wait_for(out, mid_round_2, process)
    hanging = workers_of(process.pid)[1]
    os.kill(hanging, signal.SIGSTOP)
    for site in ("centerA", "centerC"):
        wait_for(out, lambda event, site=site: answered_in_round_2(event, site), process)
    (tmp_path / "ahead").touch()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "incomplete"
    assert [row["absent"] for row in report["rounds"][1:]] == [{"centerB": "no answer within the deadline"}] * 2
    assert report["rounds"][1]["seconds"] >= DEADLINE_S
    assert report["rounds"][2]["seconds"] < DEADLINE_S
    assert report["final"] is None
    assert "withheld" in stdout
    assert ended(hanging)


def test_ctrl_c_leaves_a_run_that_can_be_resumed_and_says_so(reference, small, tmp_path):
    out = tmp_path / "run"
    process = begin(small, out)
    wait_for(out, mid_round_2, process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "an unfinished run (1 rounds done)" in stderr
    assert "--resume" in stderr
    assert json.loads((out / "report.json").read_text())["status"] == "stopped"
    over = refused(small, out)
    assert over.returncode == 10
    assert "an unfinished run" in over.stderr
    assert "--resume" in over.stderr
    other = refused(small, out, "--resume", "--set", "seed=5")
    assert other.returncode == 10
    assert "was begun with study" in other.stderr
    again = simulate(small, out, "--resume")
    assert again.returncode == 0, again.stderr
    assert state_hash(out) == state_hash(reference[0])


def test_a_broken_image_at_a_site_stops_before_training_and_the_row_is_in_the_sites_log_alone(
    tmp_path, write_small_hospitals, one_worker, capfd
):
    hospitals = tmp_path / "hospitals"
    write_small_hospitals(hospitals)
    victim = hospitals / "centerB/images/004-0.png"
    victim.write_bytes(victim.read_bytes()[:200])
    assert run_here("server", *words(hospitals, tmp_path / "run")) == 8
    said = capfd.readouterr()
    assert "centerB: its manifest or images cannot be used" in said.err
    assert "no answer: manifest.csv row" in said.err  # workers of a simulation log where it was started
    assert "row" not in (tmp_path / "run/events.jsonl").read_text()
    for secret in ("004-0", "c004"):
        assert secret not in said.err + said.out + (tmp_path / "run/events.jsonl").read_text()


def test_a_finished_run_is_set_aside_and_never_overwritten(reference, small):
    out, _ = reference
    done = refused(small, out)
    assert done.returncode == 10
    assert "a finished run" in done.stderr


def test_baselines_are_added_to_a_finished_run_whose_model_and_figures_stay_also_when_it_is_killed(reference, small, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference[0], out)
    kept = ("report.json", "report.html", "MODEL_CARD.md", "curves.png", "model.safetensors", "model.json")
    before = {name: (out / name).read_bytes() for name in kept}
    process = begin(small, out, "--resume", "--baselines")
    wait_for(out, lambda event: event["event"] == "baseline", process)
    kill_with_workers(process)
    assert {name: (out / name).read_bytes() for name in before} == before
    trained = [event["name"] for event in read_lines(out) if event["event"] == "baseline"]
    assert 0 < len(trained) < 4
    again = simulate(small, out, "--resume", "--baselines")
    assert again.returncode == 0, again.stderr
    told = [event["name"] for event in read_lines(out) if event["event"] == "baseline"]
    assert sorted(told) == ["pooled", "single/centerA", "single/centerB", "single/centerC"]
    assert told[: len(trained)] == trained
    assert (out / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert (out / "model.json").read_bytes() == before["model.json"]
    was, report = json.loads(before["report.json"]), json.loads((out / "report.json").read_text())
    assert {**report, "baselines": {}, "elapsed": was["elapsed"]} == was
    assert {measure for final in report["baselines"].values() for measure in final["gains"]} >= {"macro_auroc", "balanced_accuracy"}
    assert set(report["baselines"]) == set(told)
    for name in ("report.html", "MODEL_CARD.md"):
        assert "pooled" in (out / name).read_text()
        assert (out / name).read_bytes() != before[name]
    over = simulate(small, out, "--resume", "--baselines")
    assert over.returncode == 10
    assert "a finished run" in over.stderr


def test_baselines_and_ten_other_classes_need_no_change_of_code(of_ten_classes):
    report, path = of_ten_classes
    assert list(report["final"]["per_class"]) == [f"lesion {letter}" for letter in "ABCDEFGHIJ"]
    assert set(report["baselines"]) == {"pooled", "single/north", "single/south"}
    assert report["final"]["malignancy_auroc"] is None
    assert report == json.loads((path / "report.json").read_text())


def test_every_number_on_the_page_of_a_real_run_is_that_of_its_report(of_ten_classes):
    report, path = of_ten_classes
    page = check_page((path / "report.html").read_text(), report, read_lines(path))
    assert "final.macro_auroc" in page.places()
    assert "baselines.single/south.balanced_accuracy" in page.places()


@pytest.fixture
def ending(federate):
    """A run that came to its outcome, and what resumes it."""
    federation = federate("run")
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    resumed = Simulation(federation.sites_folder.parent / "study.yaml", federation.sites_folder, federation.path, resume=True)
    return federation, resumed


def quiet():
    return Progress(Console(file=io.StringIO()))


@pytest.mark.parametrize("before", [None, '{"status": "stopped"}'])
def test_a_run_killed_before_its_report_gets_it_when_it_is_resumed(ending, monkeypatch, before):
    """Also where an attempt before that stopped, and left a report."""

    class KilledError(Exception):
        pass

    def kill(*_):
        raise KilledError

    federation, resumed = ending
    if before:
        (federation.path / "report.json").write_text(before)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "write_report", kill)
        with pytest.raises(KilledError):
            engine.simulate(resumed, quiet())
    assert federation.events("run-finished")
    assert describe(federation.path) == "an unfinished run (2 rounds done)"
    found, path = engine.simulate(resumed, quiet())
    assert found.status == "complete"
    assert json.loads((path / "report.json").read_text()) == found.as_json()
    assert describe(path) == "a finished run"


def test_a_round_that_was_told_twice_counts_once_for_the_baselines(ending, monkeypatch):
    federation, resumed = ending
    rounds = federation.events("round-finished")
    federation.directory.event("round-finished", **{key: value for key, value in rounds[1].items() if key not in ("event", "time")})
    asked = []
    monkeypatch.setattr(Progress, "baselines", lambda _, number, steps: asked.append((number, steps)))
    monkeypatch.setattr(engine, "run_baselines", lambda *_: None)
    engine.simulate(replace(resumed, baselines=True), quiet())
    assert asked == [(4, 4 * sum(event["steps"] for event in rounds))]


@pytest.mark.parametrize("withheld", [False, True])
def test_baselines_are_compared_with_the_model_unless_its_metrics_are_withheld(ending, monkeypatch, withheld):
    federation, resumed = ending
    if withheld:
        (outcome,) = federation.events("outcome")
        federation.directory.event(
            "outcome", **{key: outcome[key] for key in outcome if key not in ("event", "time")} | {"final": None}
        )
    given = []
    monkeypatch.setattr(engine, "run_baselines", lambda *arguments: given.append(arguments[3]))
    engine.simulate(replace(resumed, baselines=True), quiet())
    assert given == [None if withheld else federation.path]


def test_the_bar_of_a_run_with_secure_aggregation_counts_each_site_once_an_exchange(tmp_path, write_small_hospitals, one_worker):
    """That a site is ready is an exchange too, and not counted."""
    study_file = write_small_hospitals(tmp_path / "hospitals", federation={"rounds": 2, "secure_aggregation": True})
    engine.simulate(Simulation(study_file, tmp_path / "hospitals/sites", tmp_path / "run"), quiet())
    progress, reached = quiet(), {}
    progress.federation(read_study(study_file))
    (bar,) = progress._bars.tasks
    for event in read_events(tmp_path / "run"):
        progress.on_event(event)
        reached[event.event, getattr(event, "round", None)] = bar.completed
    assert bar.total == 3 * (2 + 3)
    assert [reached["hello", 0], reached["round-finished", 1], reached["round-finished", 2]] == [3, 6, 9]
    assert reached["evaluated", 2] == 12
    assert max(done for (event, _), done in reached.items() if event == "finish") == 15
