"""`client report`: the study's own numbers again, an honest comparison, and a page that stays at the site."""

import csv
import dataclasses
import io
import json
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
import yaml
from rich.console import Console

from client.report.page import gain_in_words, render_site_report
from client.report.site_report import NUM_EXAMPLES, Measure, compare_models, find_model, make_site_report
from command_line import run_here
from csasn.data.cases import TEST, load_site_data
from csasn.errors import ConfigurationError, DataError, ModelError, StorageError
from csasn.federated.weighting import ClassWeights
from csasn.finished.weights import load_model, save_model
from csasn.learning.central import federation_steps, train_centrally
from csasn.learning.evaluation import count_split
from csasn.measures.cases import Cases
from csasn.measures.counts import metrics_from_counts
from csasn.site import find_site
from csasn.study import read_study
from server.simulation import simulate as engine
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation

SITES = ("centerA", "centerB", "centerC")
NOTHING_SENT = """
import os, sys
ways_out = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
sys.addaudithook(lambda event, _: os._exit(77) if event in ways_out else None)
from client.commands.cli import main
main()
"""

pytestmark = pytest.mark.xdist_group("client report")  # what its tests share is made once, not by each process


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_small_hospitals):
    """Folder of a finished simulation `run` over `hospitals`."""
    folder = tmp_path_factory.mktemp("report")
    write_small_hospitals(folder / "hospitals", num_cases=45)
    simulation = Simulation(folder / "hospitals/study.yaml", folder / "hospitals/sites", folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "NUM_PROCESSES", 1)
        engine.simulate(simulation, Progress(Console(file=io.StringIO())))
    return folder


def site_of(folder, name="centerA"):
    return find_site(name, folder=folder / "hospitals/sites")


@pytest.fixture(scope="module")
def compared(run):
    return make_site_report(site_of(run), run / "run", train_alone=True)


def report_of(folder, *arguments):
    """`client report` in a process that ends with 77 where anything asks for a connection or an address."""
    command = [sys.executable, "-P", "-c", NOTHING_SENT, "report", "--site", "centerA", *map(str, arguments)]
    return subprocess.run(command, cwd=folder / "hospitals", capture_output=True, text=True, timeout=240, check=False)


def test_the_reports_of_all_sites_add_up_to_the_study_s_own_test(run):
    final = json.loads((run / "run/report.json").read_text())["final"]
    reports = [make_site_report(site_of(run, name), run / "run", train_alone=False) for name in SITES]
    assert sum(report.federated.confusion_KK for report in reports).tolist() == final["confusion"]
    assert [report.alone for report in reports] == [None] * 3
    support = {name: item["support"] for name, item in final["per_class"].items()}
    assert {name: sum(report.num_cases["test"][name] for report in reports) for name in support} == support


def test_the_model_alone_makes_as_many_passes_as_the_site_made_in_the_study(run, compared):
    study, site = read_study(run / "hospitals/study.yaml"), site_of(run)
    data = load_site_data(study, site, 32)
    steps = []
    trained = train_centrally(study, data, "single/centerA", federation_steps(study, {"x": data}), lambda: steps.append(1))
    counted = count_split(trained.network, data, TEST, study, ClassWeights.finished(trained.adjustment_K))
    assert compared.alone.confusion_KK.tolist() == counted["confusion"].tolist()
    auroc = metrics_from_counts(counted).macro_auroc
    assert compared.alone.measures["macro_auroc"].value == pytest.approx(auroc, abs=2e-3)  # there from histograms
    num_training = sum(compared.num_cases["train"].values())
    assert len(steps) == study.federation.rounds * -(-num_training // study.optimiser.batch_size)


def test_progress_of_training_ends_at_all_steps(run):
    told = []
    make_site_report(site_of(run), run / "run", train_alone=True, on_step=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(told), len(told))


def test_gains_are_differences_on_the_same_cases(compared):
    for name in ("macro_auroc", "balanced_accuracy", "recall.FTC"):
        gain = compared.gains[name]
        assert gain.value == pytest.approx(compared.federated.measures[name].value - compared.alone.measures[name].value)
        assert gain.interval[0] <= gain.value <= gain.interval[1]


def test_a_model_gains_nothing_over_itself_in_any_sample(run):
    study, random = read_study(run / "hospitals/study.yaml"), np.random.default_rng(3)
    class_N = np.repeat(np.arange(3), 8)
    log_NK = np.log(random.dirichlet(np.ones(3), 24))
    cases = Cases(class_N, log_NK.argmax(axis=1), log_NK, np.zeros(3))
    federated, alone, gains = compare_models(study, "centerA", cases, cases)
    assert federated.measures == alone.measures
    assert federated.measures["macro_auroc"].interval[0] < federated.measures["macro_auroc"].interval[1]
    assert {measure.interval for measure in gains.values()} == {(0.0, 0.0)}
    assert federated.measures["ece"].interval is None  # drawn anew it rises: the interval would leave out the value


def test_examples_are_the_most_certain_and_named_by_their_row(run, compared):
    with (run / "hospitals/centerA/manifest.csv").open() as file:
        labels = {number: row["label"] for number, row in enumerate(csv.DictReader(file), start=2)}
    assert compared.right or compared.mistakes
    for examples in (compared.right, compared.mistakes):
        shares = [example.share for example in examples]
        assert shares == sorted(shares, reverse=True)
        assert len(examples) <= NUM_EXAMPLES
        assert all(labels[example.row] == example.label for example in examples)
        assert all(sum(example.probabilities.values()) == pytest.approx(1) for example in examples)
        assert all(example.square.shape == example.cam.shape == (32, 32) for example in examples)
    assert all(example.label == example.decision for example in compared.right)
    assert all(example.label != example.decision for example in compared.mistakes)
    num_mistakes = int(compared.federated.confusion_KK.sum() - np.trace(compared.federated.confusion_KK))
    assert len(compared.mistakes) == min(NUM_EXAMPLES, num_mistakes)


def test_the_page_is_one_file_without_script_or_address_and_names_no_case(run, compared):
    page = render_site_report(compared)
    assert set(re.findall(r'src="([a-z:/;0-9]+),', page)) == {"data:image/png;base64"}
    text = re.sub(r'"data:image/png[^"]*"', "", page)
    assert not re.search(r"https?:|//\w|<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", text)
    with (run / "hospitals/centerA/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert not [row["case_id"] for row in rows if re.search(rf"\b{row['case_id']}\b", text)]
    assert not [row["image"] for row in rows if row["image"] in text]
    assert "not to leave this site" in text
    assert all(f"Row {example.row}:" in text for example in (*compared.right, *compared.mistakes))


def page_of_study(compared, **changes):
    info = compared.info.model_copy(update={"study": compared.info.study.model_copy(update=changes)})
    return render_site_report(dataclasses.replace(compared, info=info))


def test_names_of_classes_are_text_on_the_page(compared):
    assert "<b>bold" not in page_of_study(compared, name="<b>bold</b>")


def test_the_page_says_that_validation_cases_chose_a_round_only_where_they_did(compared):
    assert "chose its round" in page_of_study(compared, model_selection="best")
    assert "chose its round" not in page_of_study(compared, model_selection="last")


def test_a_class_of_fewer_than_ten_test_cases_is_marked(compared):
    many = dict.fromkeys(compared.info.study.classes, 10)
    page = render_site_report(dataclasses.replace(compared, num_cases={**compared.num_cases, "test": many}))
    assert "*</span>" not in page
    assert "be concluded" not in page
    page = render_site_report(dataclasses.replace(compared, num_cases={**compared.num_cases, "test": many | {"FTC": 9}}))
    assert page.count('from">*</span>') == 6  # recall, precision and AUROC of two models
    assert "fewer than 10 test cases: FTC (9)" in page


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        (Measure(0.1, (0.02, 0.2)), "joining helped"),
        (Measure(-0.1, (-0.2, -0.02)), "did not help"),
        (Measure(0.1, (-0.02, 0.2)), "do not show"),
        (Measure(None, None), "cannot be said"),
    ],
)
def test_words_say_no_more_than_the_interval(compared, gain, says):
    assert says in gain_in_words(dataclasses.replace(compared, gains={"macro_auroc": gain}))


def test_without_a_model_alone_nothing_is_said_of_a_gain(run):
    report = make_site_report(site_of(run), run / "run", train_alone=False)
    assert "not known" in gain_in_words(report)
    assert ">alone</th>" not in render_site_report(report)


def test_the_command_sends_nothing_and_writes_for_its_owner_alone(run):
    state = run / "hospitals/centerA/state"
    (state / "run").mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "run/sites/centerA/ledger.jsonl", state / "run/ledger.jsonl")
    before = (state / "run/ledger.jsonl").read_bytes()
    done = report_of(run, "--model", run / "run", "--train-alone")
    assert done.returncode == 0, done.stderr
    page = state / "report/report.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert str(page) in done.stdout
    assert (state / "run/ledger.jsonl").read_bytes() == before
    assert {path.name for path in (state / "run").iterdir()} == {"ledger.jsonl"}
    assert {path.name for path in state.iterdir()} <= {"cache", "report", "run"}


def test_the_model_may_lie_in_the_state_folder_and_the_page_elsewhere(run, tmp_path):
    place = run / "hospitals/centerA/state/model"
    place.mkdir(parents=True)
    for name in ("model.safetensors", "model.json"):
        shutil.copy(run / "run" / name, place)
    try:
        assert find_model(site_of(run), None) == place
        assert report_of(run, "--out", tmp_path / "out").returncode == 0
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    finally:
        shutil.rmtree(place)


def test_a_folder_that_cannot_be_written_is_refused_before_model_and_data_are_loaded(tmp_path, write_small_hospitals):
    write_small_hospitals(tmp_path / "hospitals")
    (tmp_path / "file").touch()
    done = report_of(tmp_path, "--model", tmp_path, "--out", tmp_path / "file/page")
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "file/page: not a directory" in done.stderr


def test_a_site_without_a_model_is_told_where_it_comes_from(run):
    with pytest.raises(ConfigurationError, match="centerA has no finished model") as caught:
        find_model(site_of(run), None)
    assert "ask the coordinator" in caught.value.hint
    assert "--model" in caught.value.hint
    with pytest.raises(ModelError):
        make_site_report(site_of(run), run / "hospitals", train_alone=False)


def test_a_model_of_another_study_is_refused(run):
    other = site_of(run).model_copy(update={"site": "centerZ"})
    with pytest.raises(ConfigurationError, match="centerZ is no site of the model's study small"):
        make_site_report(other, run / "run", train_alone=False)


def test_a_site_without_a_test_case_is_told_so(run, tmp_path):
    manifest = (run / "hospitals/centerA/manifest.csv").read_text().splitlines()
    lines = [f"{line},{'split' if number == 0 else 'train'}" for number, line in enumerate(manifest)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    site = site_of(run).model_copy(update={"manifest": str(tmp_path / "manifest.csv")})
    with pytest.raises(DataError, match="no labelled test case"):
        make_site_report(site, run / "run", train_alone=False)


def test_weights_of_the_hub_are_not_fetched(run, tmp_path):
    network, info = load_model(run / "run")
    study = yaml.safe_load((run / "hospitals/study.yaml").read_text())
    study["model"]["initial_weights"] = {"vit": {"source": "hub"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    save_model(tmp_path, read_study(tmp_path / "study.yaml"), network, info.round, np.array(info.adjustment), "of a test")
    with pytest.raises(ConfigurationError, match="initial weights of vit"):
        make_site_report(site_of(run), tmp_path, train_alone=True)
    assert make_site_report(site_of(run), tmp_path, train_alone=False).alone is None


def test_help_says_that_nothing_is_sent(capsys):
    assert run_here("client", "report", "--help") == 0
    assert "sends nothing" in capsys.readouterr().out
