"""A deployment on loopback, by the public commands: real processes are killed in one run, and its bits stay the local engine's.

All faults hit the same run, one after another, so that it is started once; each test needs only a round that is under way. Faults
of the network, of disks, clocks, keys and people are in tests/e2e/.
"""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from csasn import __version__
from csasn.errors import ModelError
from csasn.platform.checkpoint import load_arrays
from csasn.platform.supervision import free_port
from csasn.trust.facts import CoordinatorFacts, SiteFacts
from csasn.trust.identity import load_identity
from e2e.deployment import COORDINATOR, Deployment, probe, simulate
from e2e.relay import Relay
from server.front.site_signature import Signer
from server.office.enrolment import Enrolments
from server.office.service_file import find_service
from server.office.studies import Studies
from server.office.study_folder import StudyFolder

SITES = ("centerA", "centerB", "centerC")
ROUNDS = 14
MASKED = {"secure_aggregation": True}
pytestmark = pytest.mark.xdist_group("deployment")  # one process of a parallel test run starts it, not each


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("deployment") / "enrolled"
    write_small_hospitals(folder, SITES, num_cases=60, federation={"rounds": ROUNDS, "answer_deadline_s": 300.0} | MASKED)
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    return deployment


@pytest.fixture(scope="module")
def local(enrolled):
    return simulate(enrolled.folder)


@pytest.fixture(scope="module")
def running(enrolled, local, tmp_path_factory):
    """The run, with a relay before centerA; it ends with nothing left of it."""
    deployment = enrolled.copy(tmp_path_factory.mktemp("running") / "deployment")
    host, _, port = json.loads((deployment.folder / "centerA/state/kit/kit.json").read_text())["address"].rpartition(":")
    deployment.relay = Relay(socket.create_server(("127.0.0.1", 0)), lambda: socket.create_connection((host, int(port)), 5))
    deployment.change_site("centerA", coordinator=f"127.0.0.1:{deployment.relay.port}")
    deployment.health = {owner: f"127.0.0.1:{free_port()}" for owner in (COORDINATOR, "centerB")}
    deployment.start_all()
    try:
        yield deployment
    finally:
        deployment.relay.close()
        deployment.close()


@pytest.fixture(autouse=True)
def held_still(request):
    """Between tests the run stands still."""
    if "running" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("running").going_on("centerA"):
        yield


def test_probes_are_told_once_coordinator_and_site_do_what_they_are_for(running):
    for address in running.health.values():
        running.wait_for(lambda address=address: probe(address) == "SERVING", f"{address} is serving")


def check_round(running, local, number):
    """The round came to its end with every site in it, and with the bits of a run that nobody disturbed."""
    event = running.finished_round(number)
    assert (event["participants"], event["absent"]) == (list(SITES), {})
    assert event["state_hash"] == local["hashes"][number]
    assert event["attempts"] == 1  # nobody waited for a deadline


def test_a_worker_killed_in_mid_epoch_is_started_again_and_the_round_keeps_its_bits(running, local):
    number = running.await_training("centerB")
    running.kill("centerB", "worker")
    check_round(running, local, number)


@pytest.mark.slow  # tests/e2e/test_thirty_kills.py kills each of them at random instants
def test_a_supernode_killed_in_mid_epoch_comes_back_at_once(running, local):
    number = running.await_training("centerC")
    running.kill("centerC", "node")
    check_round(running, local, number)


@pytest.mark.slow  # tests/e2e/test_thirty_kills.py kills each of them at random instants
def test_a_superlink_killed_in_mid_upload_is_started_again_and_the_answer_comes_again(running, local):
    number = running.await_training("centerA")
    running.relay.hold_after(300_000)  # of the 1.8 MB of an update
    assert running.relay.holding.wait(300)
    running.kill(COORDINATOR, "server.flower.superlink")
    running.relay.go_on()
    check_round(running, local, number)


@pytest.mark.slow  # tests/e2e/test_thirty_kills.py kills each of them at random instants
def test_a_run_killed_in_mid_round_resumes_by_itself(running, local):
    number = running.await_training("centerB")
    running.kill(COORDINATOR, "run")
    check_round(running, local, number)


@pytest.mark.slow  # tests/e2e/test_thirty_kills.py kills each of them at random instants
def test_a_front_killed_in_mid_upload_is_started_again(running, local):
    number = running.await_training("centerA")
    running.relay.hold_after(300_000)
    assert running.relay.holding.wait(300)
    running.kill(COORDINATOR, "front")
    running.relay.go_on()
    check_round(running, local, number)


def test_the_whole_coordinator_killed_and_started_again_goes_on_by_itself(running, local):
    number = running.await_training("centerB")
    pids = [running.pid(COORDINATOR, child) for child in ("server.flower.superlink", "front", "run")]
    running.kill(COORDINATOR)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    running.start(COORDINATOR)
    check_round(running, local, number)


@pytest.mark.slow  # tests/e2e/test_thirty_kills.py kills each of them at random instants
def test_two_sites_killed_at_once_and_started_again_are_in_the_round(running, local):
    number = running.await_training("centerB", "centerC")
    for site in ("centerB", "centerC"):
        running.kill(site)
    for site in ("centerB", "centerC"):
        running.start(site)
    check_round(running, local, number)


def test_a_killed_server_start_leaves_no_process_behind_that_keeps_its_port(running, local):
    number = running.await_training("centerA")
    children = [running.pid(COORDINATOR, child) for child in ("server.flower.superlink", "front", "run")]
    running.kill(COORDINATOR)
    running.wait_for(lambda: not set(children) & set(running.left()), f"the children {children} end with it")
    running.start(COORDINATOR)
    check_round(running, local, number)


def test_a_number_that_another_process_has_by_now_is_no_coordinator_that_runs(tmp_path):
    (tmp_path / "service.json").write_text(json.dumps({"pid": os.getpid(), "superlink_port": 1}))
    assert find_service(tmp_path) is None
    (tmp_path / "service.lock").touch()
    assert find_service(tmp_path) is None


def test_a_site_that_approved_an_older_membership_is_told_the_new_one(tmp_path, write_small_hospitals):
    write_small_hospitals(tmp_path / "deployment", SITES)
    deployment = Deployment(tmp_path / "deployment")
    deployment.enrol(f"127.0.0.1:{free_port()}")
    approval = json.loads((deployment.folder / "centerA/state/kit/approval.json").read_text())
    study_folder = StudyFolder(Enrolments.open(deployment.folder / "coordinator"))
    study_folder.enrolments.revoke("centerC")
    said = SiteFacts(site="centerA", study_hash=approval["study_hash"], approval=approval)
    signer = Signer("centerA", time.time(), "")
    answered = Studies(study_folder.path).answer_site(said.model_dump_json().encode(), signer)
    answer = CoordinatorFacts.model_validate_json(json.dumps(answered))
    assert answer.membership.sites == ("centerA", "centerB")
    assert answer.membership.membership_hash != approval["membership_hash"]
    assert answer.approvals == ()


def test_no_run_begins_with_a_site_of_another_version(enrolled, tmp_path):
    deployment = enrolled.copy(tmp_path / "deployment")
    approval = json.loads((deployment.folder / "centerA/state/kit/approval.json").read_text())
    study_folder = StudyFolder(Enrolments.open(deployment.folder / "coordinator"))
    for version, approved in (("9.9.9", []), (__version__, ["centerA"])):
        said = SiteFacts(site="centerA", study_hash=approval["study_hash"], approval=approval, software_version=version)
        Studies(study_folder.path).answer_site(said.model_dump_json().encode(), Signer("centerA", time.time(), ""))
        time.sleep(0.002)
        assert [approval.site for approval in study_folder.facts().approvals] == approved
        assert study_folder.seen()["centerA"].software_version == version


def held_in_memory(pid, secrets):
    """The names of those secrets that are somewhere in the memory of a process."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, rights = line.split()[:2]
            start, stop = (int(bound, 16) for bound in bounds.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError):  # a page that nobody can read
                    memory.seek(start)
                    data = memory.read(stop - start)
                    found |= {name for name, secret in secrets.items() if secret in data}
    return found


def secrets_of(site_folder):
    """The key of a site's answer, where one waits, and its identity."""
    secrets = {"identity": load_identity(site_folder / "state/keys").private_bytes_raw()}
    for path in (site_folder / "state/run").glob("study-*/pending.safetensors"):
        with suppress(ModelError):  # just replaced
            secrets["answer"] = bytes.fromhex(str(load_arrays(path)[1]["private"]))
    return secrets


def test_the_coordinator_holds_no_key_of_a_site_in_its_files_and_in_its_memory(running, local):
    """Rounds go on meanwhile, so that the keys of answers are gathered until each site had one, and looked for after that."""
    secrets = {}

    def gather():
        secrets.update({(site, name): key for site in SITES for name, key in secrets_of(running.folder / site).items()})
        return len(secrets) == 2 * len(SITES)

    running.wait_for(gather, "each site has an answer that waits", 300, 0.01)
    number = running.await_training("centerB")
    pids = [running.pid(COORDINATOR), *(running.pid(COORDINATOR, child) for child in ("server.flower.superlink", "front", "run"))]
    for pid in pids:
        assert held_in_memory(pid, secrets | {"what is there": b"csasn"}) == {"what is there"}
    check_round(running, local, number)
    for path in (running.folder / "coordinator").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert not [name for name, secret in secrets.items() if secret in data or secret.hex().encode() in data], path.name


def test_after_all_that_deployment_and_local_engine_have_the_same_model(running, local):
    report = running.report()
    assert (report["engine"], report["status"]) == ("deployment", "complete")
    assert report["state_hash"] == local["state_hash"]
    assert report["final"] == local["final"]
    assert {site: running.exit_code(site) for site in SITES} == dict.fromkeys(SITES, 0)


def test_a_site_compares_its_ledger_with_what_the_coordinator_received_of_it(running):
    said = running.run("server", "receipts", "centerB")
    assert {json.loads(line)["site"] for line in said.splitlines()} == {"centerB"}
    received = running.folder / "centerB.received.jsonl"
    received.write_text(said)
    audit = json.loads(running.run("client", "audit", "--site", "centerB", "--received", str(received), "--json"))
    assert (audit["receipts"], audit["signatures_checked"], audit["unreadable_receipts"]) == (len(said.splitlines()), True, 0)
    assert "expected one of centerA, centerB, centerC" in running.run("server", "receipts", "centerZ", code=3)


def test_monitoring_takes_a_finished_study_for_a_success(running):
    check = ("client", "status", "--site", "centerB")
    assert running.run(*check, "--check") == ""
    assert running.run(*check) == "the study is finished: complete\n"
    running.run("client", "pause", "--site", "centerB")
    assert running.run(*check, "--check") == ""


def test_monitoring_of_a_site_is_told_that_it_takes_no_part(enrolled, tmp_path):
    deployment = enrolled.copy(tmp_path / "deployment")
    check = ("client", "status", "--site", "centerB", "--check")
    assert "site centerB: not running" in deployment.run(*check, code=13)
    deployment.run("client", "pause", "--site", "centerB")
    assert "site centerB: paused" in deployment.run(*check, code=13)
