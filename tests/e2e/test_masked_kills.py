"""Processes killed at the instants of a masked round that matter: real processes, every site in the sum, the same bits."""

import os
from pathlib import Path

import pytest

from csasn.supervision import free_port
from e2e.deployment import COORDINATOR, Deployment

SITES = ("centerA", "centerB", "centerC", "centerD")
LIARS = str(Path(__file__).parent / "liars")
MASKED = {"secure_aggregation": True, "rounds": 2, "answer_deadline_s": 240.0}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("masked") / "enrolled"
    write_small_hospitals(folder, SITES, num_cases=60, federation=MASKED)
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    return deployment


@pytest.fixture(scope="module")
def undisturbed(enrolled, local_federation):
    """The state hash of a run in which nothing happens."""
    federation = local_federation(enrolled.folder, enrolled.folder / "undisturbed")
    federation.run()
    return federation.state_hash()


@pytest.fixture
def deployment(enrolled, tmp_path):
    """A deployment of its own, of which nothing is left in the end."""
    begun = enrolled.copy(tmp_path / "deployment")
    yield begun
    begun.close()


def begin(deployment, dying, point, proof):
    """Starts all of it; after round 1 `dying` becomes a process that dies at a point of what comes next."""
    deployment.start_all()
    deployment.finished_round(1)
    deployment.end(dying)
    deployment.start(dying, PYTHONPATH=LIARS, CSASN_TEST_LIE=f"die:{point}:{proof}")


def check_end(deployment, state_hash):
    report = deployment.report(400)
    assert report["status"] == "complete"
    assert [row["participants"] for row in report["rounds"]] == [list(SITES)] * 2
    assert report["state_hash"] == state_hash
    for site in SITES:
        assert deployment.exit_code(site) == 0, deployment.describe()


@pytest.mark.parametrize("point", ["kept", "noted"])
def test_a_site_killed_before_its_word_or_its_answer_leaves_goes_on_to_the_same_bits(deployment, undisturbed, tmp_path, point):
    proof = tmp_path / "died"
    begin(deployment, "centerB", point, proof)
    deployment.wait_for(proof.exists, "the worker dies", 200)
    check_end(deployment, undisturbed)


@pytest.mark.parametrize("point", ["ready", "collected"])
@pytest.mark.parametrize("whole", [False, True], ids=["run", "coordinator"])
def test_a_run_killed_between_the_two_exchanges_or_before_the_sum_goes_on_to_the_same_bits(
    deployment, undisturbed, tmp_path, point, whole
):
    proof = tmp_path / "died"
    begin(deployment, COORDINATOR, point, proof)
    deployment.wait_for(proof.exists, "the run dies", 200)
    if whole:
        children = [deployment.pid(COORDINATOR, child) for child in ("server.superlink", "front")]
        deployment.kill(COORDINATOR)
        for pid in filter(None, children):
            os.kill(pid, 9)
        deployment.start(COORDINATOR)
    check_end(deployment, undisturbed)
