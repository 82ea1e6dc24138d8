"""Processes killed at the instants of a masked round that matter, in one that a site is lost in: real processes, the same bits."""

import os
from pathlib import Path

import pytest

from csasn.federated.messages import Kind
from csasn.supervision import free_port
from e2e.deployment import COORDINATOR, Deployment

SITES = ("centerA", "centerB", "centerC", "centerD")
LIARS = str(Path(__file__).parent / "liars")
MASKED = {"secure_aggregation": True, "rounds": 2, "answer_deadline_s": 40.0, "max_partial_rounds": 1.0}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("masked") / "enrolled"
    write_small_hospitals(folder, SITES, num_cases=60, federation=MASKED)
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    return deployment


@pytest.fixture(scope="module")
def without_one(enrolled, local_federation):
    """The state hash of an undisturbed run that loses centerD after round 1."""
    federation = local_federation(enrolled.folder, enrolled.folder / "undisturbed")
    federation.tamper = lambda site, request, answer: (
        None if site == "centerD" and (request.header.round == 2 or request.kind in (Kind.VALIDATE, Kind.FINISH)) else answer
    )
    federation.run()
    return federation.state_hash()


@pytest.fixture
def deployment(enrolled, tmp_path):
    """A deployment of its own, of which nothing is left in the end."""
    begun = enrolled.copy(tmp_path / "deployment")
    yield begun
    begun.close()


def begin(deployment, dying, point, proof):
    """Starts all of it, the process that will die among them, and takes centerD away after round 1."""
    deployment.start(COORDINATOR)
    for site in SITES:
        if site != dying:
            deployment.start(site)
    if dying != COORDINATOR:
        deployment.start(dying)
    deployment.finished_round(1)
    deployment.kill("centerD")
    restart(deployment, dying, PYTHONPATH=LIARS, CSASN_TEST_LIE=f"die:{point}:{proof}")


def restart(deployment, owner, **environment):
    """What belongs to `owner` ends and is started anew."""
    deployment.end(owner)
    deployment.start(owner, **environment)


def check_end(deployment, state_hash):
    report = deployment.report(400)
    assert report["status"] == "incomplete"  # of the sites that are left, counts are not shown
    assert report["rounds"][1]["participants"] == list(SITES[:3])
    assert report["state_hash"] == state_hash
    for site in SITES[:3]:
        assert deployment.exit_code(site) == 0, deployment.describe()


@pytest.mark.parametrize("point", ["answer", "confirmation"])
def test_a_site_killed_where_it_has_just_committed_is_in_the_sum(deployment, without_one, tmp_path, point):
    proof = tmp_path / "died"
    begin(deployment, "centerB", point, proof)
    deployment.wait_for(proof.exists, "the worker dies", 200)
    check_end(deployment, without_one)


@pytest.mark.parametrize("point", ["survivors", "shares"])
@pytest.mark.parametrize("whole", [False, True], ids=["run", "coordinator"])
def test_a_run_killed_between_answers_and_sum_goes_on_to_the_same_bits(deployment, without_one, tmp_path, point, whole):
    proof = tmp_path / "died"
    begin(deployment, COORDINATOR, point, proof)
    deployment.wait_for(proof.exists, "the run dies", 200)
    if whole:
        children = [deployment.pid(COORDINATOR, child) for child in ("server.superlink", "front")]
        deployment.kill(COORDINATOR)
        for pid in filter(None, children):
            os.kill(pid, 9)
        deployment.start(COORDINATOR)
    check_end(deployment, without_one)
    second = {event["attempt"] for event in deployment.events("train-started") if event["round"] == 2}
    asked_again = {event["attempt"] for event in deployment.events("shares-asked-again")}
    # of round 1 too, where `begin` ended the coordinator between that round's event and its checkpoint
    assert bool(asked_again & second) == (point == "shares")
