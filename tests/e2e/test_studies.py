"""Several studies of one coordinator and one service a hospital, on the same keys: nobody telephones, nothing is started anew."""

import json

import pytest
import yaml

from csasn.platform.supervision import free_port
from csasn.trust.membership import read_membership
from e2e.deployment import COORDINATOR, Deployment, simulate

SITES = ("centerA", "centerB", "centerC")
SECOND = "second"
pytestmark = pytest.mark.slow


@pytest.fixture
def deployment(tmp_path, write_small_hospitals):
    settings = {"secure_aggregation": True, "rounds": 6, "answer_deadline_s": 240.0}
    write_small_hospitals(tmp_path / "study", SITES, num_cases=30, federation=settings)
    deployment = Deployment(tmp_path / "study")
    deployment.enrol(f"127.0.0.1:{free_port()}")
    yield deployment
    deployment.close()


def folder_of(deployment, name):
    return deployment.folder / "coordinator/studies" / name


def approve(deployment, name):
    """Each hospital reads the further study that the coordinator has, and signs it."""
    prefix = read_membership(folder_of(deployment, name) / "membership.json").membership_hash[:12]
    for site in SITES:
        assert f"approved by {site}/{name}" in deployment.run("client", "approve", "--site", f"{site}/{name}", "--yes", prefix)


def report_of(deployment, name, within_s=400.0):
    path = folder_of(deployment, name) / "runs" / name / "report.json"
    deployment.wait_for(path.exists, f"{name} has its report", within_s)
    return json.loads(path.read_text())


def test_a_second_study_trains_beside_the_first_with_the_bits_of_either_alone(deployment):
    first = simulate(deployment.folder)
    second = yaml.safe_load((deployment.folder / "study.yaml").read_text()) | {"name": SECOND}
    second["federation"] |= {"rounds": 2, "proximal_mu": 0.5}
    (deployment.folder / "second.yaml").write_text(yaml.safe_dump(second))
    alone = simulate(deployment.folder, "--sites", deployment.folder / "sites", out="second-local", study="second.yaml")
    with deployment.going_on("centerC"):
        deployment.start_all()
        deployment.finished_round(2)
    pids = {owner: deployment.pid(owner) for owner in (COORDINATOR, *SITES)}
    said = deployment.run("server", "study", "second.yaml")
    assert f"next: each hospital says client approve --site SITE/{SECOND}" in said
    deployment.wait_for(lambda: f"client approve --site centerA/{SECOND}" in deployment.said("centerA"), "it is offered")
    with deployment.going_on("centerC"):
        approve(deployment, SECOND)
        report = report_of(deployment, SECOND)
        assert pids == {owner: deployment.pid(owner) for owner in (COORDINATOR, *SITES)}
        assert f"centerA/{SECOND}: " in deployment.run("client", "status", "--site", "centerA")
        of_first = deployment.report()
    for site in SITES:
        assert deployment.exit_code(site) == 0, deployment.describe()
    assert (report["status"], report["state_hash"]) == ("complete", alone["state_hash"])
    assert (of_first["status"], of_first["state_hash"]) == ("complete", first["state_hash"])
    for ledger in ("run", f"studies/{SECOND}/run"):
        assert (deployment.folder / "centerA/state" / ledger / "ledger.jsonl").stat().st_size > 0
    status = deployment.run("server", "status")
    assert f"study {SECOND} " in status
    assert f"study {of_first['study']} " in status
    received = deployment.run("server", "receipts", "centerA", "--folder", str(folder_of(deployment, SECOND)))
    (deployment.folder / "received").write_text(received)
    audit = json.loads(deployment.run("client", "audit", "--site", f"centerA/{SECOND}", "--received", "received", "--json"))
    assert [run["not_received"] for run in audit["runs"]] == [[]], audit


def test_a_rehearsal_makes_one_round_and_keeps_no_model(deployment):
    deployment.start(COORDINATOR)
    name = f"{deployment.study['name']}-rehearsal"
    deployment.run("server", "rehearse")
    for site in SITES:
        deployment.start(site)
    deployment.wait_for(lambda: f"client approve --site centerA/{name}" in deployment.said("centerA"), "it is offered")
    approve(deployment, name)
    report = report_of(deployment, name)
    folder = folder_of(deployment, name)
    deployment.wait_for(lambda: "the model is thrown away" in (folder / "logs/run.log").read_text(), "nothing is kept of it")
    assert report["status"] == "complete"
    assert len(report["rounds"]) == 1
    assert {each["source"] for each in report["initial_weights"].values()} <= {"random", "none"}
    assert not list(folder.glob("runs/*/**/*.safetensors"))
    assert deployment.report()["status"] == "complete"
