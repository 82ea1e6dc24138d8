"""Thirty processes of one run, any of the coordinator or of a site, killed at random instants: no manual step, the same bits."""

import os
import random
import signal
import time

import pytest

from csasn.platform.supervision import free_port
from e2e.deployment import CHILDREN, COORDINATOR, Deployment, simulate

SITES = ("centerA", "centerB", "centerC", "centerD")
KILLS = 30
MASKED = {"secure_aggregation": True}
pytestmark = pytest.mark.slow


def processes(deployment):
    """Every process of the deployment that runs now: its id, whose it is, and whether a service manager started it."""
    for owner in (COORDINATOR, *SITES):
        for child in (None, *CHILDREN.get(owner, CHILDREN["site"])):
            if pid := deployment.pid(owner, child):
                yield pid, owner, child is None


def test_thirty_kills_at_random_instants_of_one_run_lose_nothing(tmp_path, write_small_hospitals):
    folder, chance, kills = tmp_path / "deployment", random.Random(7), []
    write_small_hospitals(
        folder, SITES, num_cases=60, federation=MASKED | {"rounds": 60, "answer_deadline_s": 600.0, "loss_guard": None}
    )
    local = simulate(folder)
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    deployment.start_all()
    try:
        deployment.wait_for(lambda: deployment.round() >= 1, "round 1 begins", 300)
        while len(kills) < KILLS:
            time.sleep(chance.uniform(1, 8))
            pid, owner, is_service = chance.choice(list(processes(deployment)))
            os.kill(pid, signal.SIGKILL)
            kills.append(owner)
            if is_service:  # systemd would start it again
                deployment.processes[owner].wait()
                deployment.start(owner)
            assert not deployment.events("run-finished"), f"the run was over after {len(kills)} kills"
        report = deployment.report(900)
        assert report["status"] == "complete"
        assert report["state_hash"] == local["state_hash"]
        assert {site: deployment.exit_code(site) for site in SITES} == dict.fromkeys(SITES, 0)
    finally:
        deployment.close()
