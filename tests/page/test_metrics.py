"""Metrics say what the events say, under names as Prometheus has them, and are all that the dashboard shows."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from csasn.platform.locks import take_lock
from csasn.platform.supervision import free_port
from csasn.report.page_server import PagePlace, page_served
from enrolling import SITES
from page_scene import CLASSES, events_of, receipt_line, study_of, write_events, write_run
from server.office.enrolment import Enrolments
from server.office.service_file import LOCK, SERVICE, Service
from server.office.study_folder import StudyFolder
from server.office.troubles import Trouble
from server.page.metrics import OF_ALL, OF_SITES, kind_of, metrics_text
from server.page.sources import study_source
from server.page.view import View, view_of_run, view_of_study
from server.run.run_directory import RunDirectory

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana-dashboard.json"
INSTALL = "nothing else can tell that Prometheus reads the metrics: apt-get install -y prometheus"
LINE = re.compile(r'(csasn_[a-z0-9_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\})? (-?[0-9.]+(?:e[-+][0-9]+)?)')
STUDY = study_of(4, 20)


def samples(text):
    """{name: {labels: value}} of a text that is metrics and nothing else."""
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, "told twice"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            matched = LINE.fullmatch(line)
            assert matched, line
            name, labels, value = matched.groups()
            assert name in kinds, "before its type"
            key = tuple(sorted(dict(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', labels or "")).items()))
            assert key not in found.setdefault(name, {}), "told twice"
            found[name][key] = float(value)
    for name, kind in kinds.items():
        assert (kind == "counter") == name.endswith("_total"), name
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("metrics") / "run", STUDY, events_of(STUDY, 12))
    (path / "received.jsonl").write_text(receipt_line("centerA", 31) + "\n")
    return path


@pytest.fixture(scope="module")
def study_folder(coordinator, tmp_path_factory):
    """A coordinator whose study is under way, seen by its sites."""
    folder = tmp_path_factory.mktemp("metrics") / "coordinator"
    shutil.copytree(coordinator, folder)
    enrolments = Enrolments.open(folder)
    RunDirectory.create(folder / "runs/small", enrolments.study, enrolments.membership())
    write_events(folder / "runs/small", events_of(study_of(3, 20), 12))
    (folder / "runs/small/received.jsonl").write_text(receipt_line("centerA", 31) + "\n")
    (folder / "seen").mkdir(exist_ok=True)
    for site in SITES:
        seen = {"site": site, "time": 1796109671.5, "software_version": "0.1.0"}
        (folder / f"seen/{site}.json").write_text(json.dumps(seen))
    (folder / SERVICE).write_text(Service(pid=os.getpid(), superlink_port=free_port()).model_dump_json())
    lock = take_lock(folder / LOCK)  # as of a coordinator that is up
    yield StudyFolder(enrolments)
    os.close(lock)


def test_metrics_say_what_the_events_say(run):
    found, rounds = samples(metrics_text(view_of_run(run))), view_of_run(run).rounds
    assert found["csasn_round"][()] == 13
    assert found["csasn_rounds_planned"][()] == 20
    assert found["csasn_rounds_total"][()] == 12
    assert found["csasn_partial_rounds_total"][()] == 1
    assert found["csasn_upload_bytes_total"][()] == 12 * 5_495_380
    assert found["csasn_download_bytes_total"][()] == 12 * 8_412_540
    assert found["csasn_round_duration_seconds"][()] == 45.2
    assert found["csasn_validation_macro_auroc"][()] == rounds[10].macro_auroc
    assert found["csasn_validation_round"][()] == 11
    assert list(found["csasn_class_weight"]) == [(("class", name),) for name in CLASSES]
    assert found["csasn_site_rounds_total"][(("site", "centerD"),)] == 11
    assert found["csasn_site_awaited"][(("site", "centerA"),)] == 0
    assert found["csasn_site_awaited"][(("site", "centerD"),)] == 1
    assert found["csasn_site_ledger_lines"] == {(("site", "centerA"),): 31}
    assert found["csasn_phase"][(("phase", "running"),)] == 1
    assert sum(found["csasn_phase"].values()) == 1


def test_of_a_coordinator_there_is_also_when_sites_were_heard_and_when_its_certificate_ends(study_folder):
    found = samples(metrics_text(view_of_study(study_folder)))
    assert found["csasn_site_last_seen_timestamp_seconds"][(("site", "centerA"),)] == pytest.approx(1796109671.5, abs=0.1)
    assert found["csasn_certificate_expiry_timestamp_seconds"][()] > time.time() + 300 * 86400
    assert found["csasn_site_approved"] == {(("site", site),): 1 for site in SITES}


def test_before_a_run_there_are_few_metrics_and_none_of_them_is_wrong():
    assert set(samples(metrics_text(View()))) == {"csasn_info", "csasn_trouble"}


def test_a_class_may_have_any_name(tmp_path):
    study = STUDY.model_copy(update={"classes": ('a "b"', "c\\d", "FTC", "MTC"), "malignant": ("FTC", "MTC")})
    path = write_run(tmp_path / "run", study, events_of(STUDY, 2))
    assert 'csasn_class_weight{class="a \\"b\\""}' in metrics_text(view_of_run(path))
    samples(metrics_text(view_of_run(path)))


def test_each_trouble_has_a_kind_without_spaces_and_the_site_that_has_it(study_folder):
    source = Path(__file__).parents[2] / "server/office/troubles.py"
    keys = re.findall(r'Trouble\(\s*f?"([^"]+)"', source.read_text())
    assert len(set(keys)) > 10
    for key in keys:
        kind, site = kind_of(Trouble(re.sub(r"\{[a-z_]*site\}", "centerA", key).replace("{seen.site}", "centerA"), ""))
        assert (kind in OF_SITES and site == "centerA") or (kind in OF_ALL and not site), key


def test_all_that_the_dashboard_shows_is_among_the_metrics(study_folder):
    dashboard = json.loads(DASHBOARD.read_text())
    known = samples(metrics_text(view_of_study(study_folder)))
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown += [each["query"] for each in dashboard["templating"]["list"]]
    names = {name for expression in shown for name in re.findall(r"csasn_[a-z_]+", expression)}
    assert len(names) > 15
    assert names <= set(known)
    for expression in shown:  # a label that a legend names is there too
        assert "{{" not in expression
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{([a-z]+)\}\}", target["legendFormat"]):
                (name,) = re.findall(r"csasn_[a-z_]+", target["expr"])
                assert all(label in dict(labels) for labels in known[name]), (name, label)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# a real Prometheus


def program(name):
    found = shutil.which(name)
    assert found, f"{name} is not installed, and {INSTALL}"
    return found


@pytest.mark.slow
def test_promtool_finds_nothing_to_say_of_names_and_types(study_folder):
    text = metrics_text(view_of_study(study_folder))
    told = subprocess.run([program("promtool"), "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    wrong = text.replace("# TYPE csasn_upload_bytes_total counter", "# TYPE csasn_upload_bytes_total gauge")
    assert subprocess.run(
        [program("promtool"), "check", "metrics"], input=wrong, text=True, capture_output=True, check=False
    ).stderr


@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_page_with_its_token_and_not_without(study_folder, tmp_path):
    token, port, said = tmp_path / "page.token", free_port(), []
    with page_served(study_source(study_folder.path), PagePlace.of("127.0.0.1:0"), said.append, token):
        target = httpx.URL(said[0].removeprefix("page: "))
        (tmp_path / "other").write_text("another token")
        jobs = "".join(
            f"- job_name: {job}\n  static_configs: [{{targets: ['127.0.0.1:{target.port}']}}]\n"
            f"  authorization: {{credentials_file: {tmp_path / file}}}\n"
            for job, file in (("csasn", "page.token"), ("stranger", "other"))
        )
        (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")
        command = [
            program("prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'db'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert answer(port, "csasn_rounds_total") == [({"job": "csasn"}, "12")]
            assert answer(port, 'csasn_trouble{kind="not_started"}') == [({"job": "csasn", "kind": "not_started"}, "0")]
            assert answer(port, "up") == [({"job": "csasn"}, "1"), ({"job": "stranger"}, "0")]
            for panel in json.loads(DASHBOARD.read_text())["panels"]:
                for target in panel["targets"]:
                    if "== 1" not in target["expr"]:  # which has an answer where there is trouble
                        assert answer(port, target["expr"].replace("$job", ".*"))
        finally:
            process.terminate()
            process.wait(20)


def answer(port, expression, within_s=30):
    """What Prometheus answers, once it has something: labels without the instance, and the value."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            told = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}).json()
        except httpx.TransportError:
            told = {}
        if results := told.get("data", {}).get("result"):
            found = [
                ({k: v for k, v in row["metric"].items() if k not in ("__name__", "instance") and v}, row["value"][1])
                for row in results
            ]
            return sorted(found, key=str)
        time.sleep(0.3)
    pytest.fail(f"Prometheus has no answer to {expression}: {told}")
