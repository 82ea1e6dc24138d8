"""Hospitals come and go while real processes train: each change by the commands that people run, without anything begun anew."""

import json

import pytest

from csasn.platform.supervision import free_port
from e2e.deployment import COORDINATOR, Deployment, simulate

FOUR, JOINS, LEAVES = ("centerA", "centerB", "centerC", "centerD"), "centerE", "centerB"
FIVE = (*FOUR, JOINS)
AFTER = tuple(site for site in FIVE if site != LEAVES)
ROUNDS = 12
pytestmark = pytest.mark.slow


@pytest.fixture
def deployment(tmp_path, write_small_hospitals):
    settings = {"secure_aggregation": True, "rounds": ROUNDS, "answer_deadline_s": 240.0, "sites": list(FOUR)}
    write_small_hospitals(tmp_path / "study", FIVE, num_cases=30, federation=settings)
    deployment = Deployment(tmp_path / "study")
    deployment.enrol(f"127.0.0.1:{free_port()}")
    yield deployment
    deployment.close()


def approve(deployment, sites):
    """Each reads what is proposed and signs it; whose counts can be told from those of before is known and agreed to."""
    prefix = deployment.membership_hash()[:12]
    for site in sites:
        said = deployment.run("client", "approve", "--site", site, "--yes", prefix, "--accept-difference")
        assert f"approved by {site}" in said


def test_a_key_is_renewed_a_hospital_joins_and_one_leaves_and_the_run_goes_on(deployment):
    with deployment.going_on("centerC"):
        deployment.start_all()
        deployment.finished_round(2)
    _renew_node_key(deployment, "centerA")
    with deployment.going_on("centerC"):
        deployment.finished_round(4)
    assert not deployment.events("membership-changed")
    _join(deployment)
    with deployment.going_on("centerC"):
        approve(deployment, FIVE)
        deployment.finished_round(7)
    said = deployment.run("server", "leave", LEAVES, "--yes")
    assert "nothing that was trained is lost: it goes on from there once centerA, centerC, centerD, centerE" in said
    assert "in which centerB stands alone" in said
    with deployment.going_on("centerC"):
        deployment.wait_for(lambda: deployment.processes[LEAVES].poll() is not None, f"{LEAVES} ends")
        assert "left or was revoked" in deployment.said(LEAVES)
        approve(deployment, AFTER)
        report = deployment.report()
    assert report["status"] == "complete"
    participants = {row["round"]: set(row["participants"]) for row in report["rounds"]}
    assert sorted(participants) == list(range(1, ROUNDS + 1))
    assert all(participants[number] == set(FOUR) for number in range(1, 5))
    assert participants[7] == set(FIVE)
    assert participants[ROUNDS] == set(AFTER)
    assert [set(each["sites"]) for each in report["memberships"]] == [set(FOUR), set(FIVE), set(AFTER)]
    for site in AFTER:
        assert deployment.exit_code(site) == 0, deployment.describe()
    assert f"goes on with membership {deployment.membership_hash()[:12]}" in deployment.run_log()


def test_a_study_goes_on_from_a_finished_model_with_the_bits_of_the_local_engine(tmp_path, write_small_hospitals):
    folder = tmp_path / "study"
    write_small_hospitals(folder, FOUR[:3], federation={"secure_aggregation": True, "rounds": 5, "answer_deadline_s": 240.0})
    parent = simulate(folder)
    expected = simulate(folder, "--continue", folder / "local", out="more")
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}", given=("--continue", str(folder / "local")))
    try:
        deployment.start_all()
        report = deployment.report()
    finally:
        deployment.close()
    assert report["state_hash"] == expected["state_hash"] != parent["state_hash"]
    assert [each["study_hash"] for each in report["lineage"]] == [parent["study_hash"]]
    assert {each["source"] for each in report["initial_weights"].values()} == {"continued"}


def _renew_node_key(deployment, site):
    deployment.run("client", "keygen", "--site", site, "--node")
    deployment.run("client", "enroll", "--site", site, "--study", "coordinator/study.yaml")
    said = deployment.run("server", "enroll", f"{site}.request.json")
    assert "nothing to compare by telephone" in said
    status = json.loads(deployment.run("server", "status", "--json"))
    assert status["phase"] == "running"
    assert all(row["approved"] for row in status["sites"].values())


def _join(deployment):
    said = deployment.run("client", "keygen", "--site", JOINS)
    fingerprint = said.partition("fingerprint: ")[2].partition("\n")[0]
    assert "is no site of study" in deployment.run("client", "enroll", "--site", JOINS, "--study", "coordinator/study.yaml", code=3)
    deployment.run("client", "enroll", "--site", JOINS, "--study", "coordinator/study.yaml", "--join")
    request = f"{JOINS}.request.json"
    assert "give --join" in deployment.run("server", "enroll", request, "--fingerprint", fingerprint, code=11)
    said = deployment.run("server", "enroll", request, "--fingerprint", fingerprint, "--join", "--yes")
    assert "the run stands still from now on" in said
    deployment.run("client", "install", "--site", JOINS, f"coordinator/kits/{JOINS}.kit.zip")
    deployment.wait_for(lambda: "another membership is proposed" in deployment.run_log(), "the run stands still")
    assert json.loads(deployment.run("server", "status", "--json"))["phase"] == "approving"
    approve(deployment, [JOINS])
    deployment.start(JOINS)
    deployment.wait_for(lambda: "client approve --site centerA" in deployment.said("centerA"), "centerA says what to do")
    assert COORDINATOR in deployment.processes
