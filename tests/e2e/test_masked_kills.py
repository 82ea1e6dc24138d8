"""Processes killed at the instants of a masked round that matter: real processes, no manual step, the same bits."""

import os
from pathlib import Path

import pytest

from csasn.platform.supervision import free_port
from e2e.deployment import COORDINATOR, Deployment, simulate

SITES = ("centerA", "centerB", "centerC", "centerD")
LIARS = str(Path(__file__).parent / "liars")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("masked") / "enrolled"
    federation = {"secure_aggregation": True, "rounds": 3, "answer_deadline_s": 300.0}
    write_small_hospitals(folder, SITES, num_cases=60, federation=federation)
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    return deployment


@pytest.fixture(scope="module")
def local(enrolled):
    return simulate(enrolled.folder)


@pytest.fixture
def deployment(enrolled, tmp_path):
    """A deployment of its own, of which nothing is left in the end."""
    begun = enrolled.copy(tmp_path / "deployment")
    yield begun
    begun.close()


def check_end(deployment, local):
    report = deployment.report(400)
    assert report["status"] == "complete"
    assert report["state_hash"] == local["state_hash"]
    for site in SITES:
        assert deployment.exit_code(site) == 0, deployment.describe()


@pytest.mark.parametrize("point", ["settled", "left", "pending", "diary"])
def test_a_site_killed_at_any_write_goes_on_with_the_same_bits(deployment, local, tmp_path, point):
    proof = tmp_path / "died"
    deployment.start(COORDINATOR)
    for site in SITES:
        more = {"PYTHONPATH": LIARS, "CSASN_TEST_LIE": f"die:{point}:{proof}"} if site == "centerB" else {}
        deployment.start(site, **more)
    deployment.wait_for(proof.exists, "the worker dies", 200)
    check_end(deployment, local)


@pytest.mark.parametrize("point", ["ready", "answers", "before", "checkpoint"])
@pytest.mark.parametrize("whole", [False, True], ids=["run", "coordinator"])
def test_a_coordinator_killed_at_any_step_goes_on_with_the_same_bits(deployment, local, tmp_path, point, whole):
    proof = tmp_path / "died"
    for site in SITES:
        deployment.start(site)
    deployment.start(COORDINATOR, PYTHONPATH=LIARS, CSASN_TEST_LIE=f"die:{point}:{proof}")
    deployment.wait_for(proof.exists, "the run dies", 200)
    if whole:
        children = [deployment.pid(COORDINATOR, child) for child in ("server.flower.superlink", "front")]
        deployment.kill(COORDINATOR)
        for pid in filter(None, children):
            os.kill(pid, 9)
        deployment.start(COORDINATOR)
    check_end(deployment, local)


def test_a_site_restored_from_a_backup_in_mid_run_finishes_it_without_a_person(deployment, tmp_path):
    """Its ledger is older than what the coordinator saw, its diary too, and what it left over is gone."""
    deployment.start_all()
    deployment.finished_round(1, 200)
    assert deployment.end("centerB") in (0, 130, -15)
    deployment.run("client", "backup", "--site", "centerB", "centerB.tar")
    deployment.start("centerB")
    deployment.finished_round(2, 200)
    assert deployment.end("centerB") in (0, 130, -15)
    for path in ("state", "keys", "kit"):
        place = deployment.folder / "centerB" / path
        if place.exists():
            place.rename(tmp_path / path)
    deployment.run("client", "restore", "--site", "centerB", "centerB.tar")
    deployment.start("centerB")
    report = deployment.report(400)
    assert report["status"] == "complete"
    marked = [event["site"] for event in deployment.events("ledger-marked")]
    assert set(marked) <= {"centerB"}
    for site in SITES:
        assert deployment.exit_code(site) == 0, deployment.describe()
