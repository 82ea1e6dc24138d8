"""Faults of network, disks, clocks, keys and people, on a network of five hosts: the real commands, each fault, and how it ends.

It ends with the bits of the local engine; beyond the deadline with a partial round that is named; or with an error and its code.
"""

import hashlib
import http.client
import json
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from e2e.deployment import COORDINATOR, Deployment, check_same_bits, simulate
from e2e.network import PORT, RELAY
from server.front.front import OWN, PASSED

SITES = ("centerA", "centerB", "centerC", "centerD")
NO_WAY = (ConnectionRefusedError, TimeoutError)
LIARS = str(Path(__file__).parent / "liars")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
# only in plain a round may do without a site
IMPATIENT = {"secure_aggregation": False, "min_sites": 3, "answer_deadline_s": 30.0, "max_partial_rounds": 1.0, "max_attempts": 1}
pytestmark = [pytest.mark.slow, pytest.mark.network]


def waited_for(deployment):
    """Who the run waits for now, with why and since when, as `server status` says it."""
    sites = json.loads(deployment.run("server", "status", "--json"))["sites"]
    return {site: row["waiting"] for site, row in sites.items() if row["waiting"] and "at work" not in row["waiting"]}


def failure(deployment, within_s=200):
    """What a run that failed says, after everything that says so was checked."""
    deployment.wait_for(lambda: deployment.events("failed"), "the run fails", within_s)
    deployment.wait_for((deployment.run_path / "report.json").exists, "the report is written")
    error = str(deployment.events("failed")[-1]["error"])
    assert json.loads(deployment.run("server", "report", "--json"))["status"] == "failed"
    assert error in deployment.run("server", "status", "--check", code=13)
    return error


@contextmanager
def tiny_disk(folder, size):
    """A file system of its own under `folder`, which keeps what is in it."""
    kept = folder.with_name(f"{folder.name}-kept")
    folder.rename(kept)
    folder.mkdir(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Writes until the disk is full; the file that holds the space."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        for block in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * block)
            except OSError:
                continue
    return path


# the network


def test_a_line_cut_for_ninety_seconds_in_mid_upload_costs_time_alone(deploy, local, network, relay):
    deployment = deploy()
    deployment.change_site("centerB", coordinator=f"{network.addresses[RELAY]}:{PORT}")
    deployment.start_all()
    deployment.await_training("centerB")
    relay.hold_after(300_000)  # of the 1.8 MB of an update
    assert relay.holding.wait(120)
    network.cut("centerB")
    relay.go_on()
    time.sleep(90)
    network.mend("centerB")
    check_same_bits(deployment, local)


def test_a_slow_and_lossy_line_with_delay_is_enough(deploy, local, network, relay):
    deployment = deploy()
    network.slow("centerC", 20)
    network.lose("centerC", 1)
    relay.delay_s = 0.1  # either way
    deployment.change_site("centerC", coordinator=f"{network.addresses[RELAY]}:{PORT}")
    deployment.start_all()
    check_same_bits(deployment, local)


def test_from_the_network_side_only_the_routes_of_sites_answer(deploy, network):
    deployment = deploy()
    deployment.start(COORDINATOR)
    deployment.wait_for(lambda: "SuperLink knows" in deployment.said(COORDINATOR), "the coordinator is up")
    listening = [each for each in network.listeners(COORDINATOR) if not each.startswith("127.")]
    assert listening == [f"0.0.0.0:{PORT}"]
    tls = ssl.create_default_context(cafile=deployment.folder / "coordinator/keys/ca.crt")
    answers = {}
    for method, path in superlink_routes():
        with tls.wrap_socket(network.connect("centerA", COORDINATOR), server_hostname=network.addresses[COORDINATOR]) as link:
            link.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: coordinator\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            response = http.client.HTTPResponse(link, method=method)
            response.begin()
            answers[method, path] = response.status
    assert len(answers) > 40
    assert {route for route, status in answers.items() if status != 404} <= PASSED | OWN
    assert answers["GET", "/health"] == 200
    superlink_port = int(json.loads((deployment.folder / "coordinator/service.json").read_text())["superlink_port"])
    for port in (superlink_port, 8000, 9091, 9092, 9093, 9094):
        with pytest.raises(NO_WAY), network.connect(RELAY, COORDINATOR, port):  # whose host has no firewall at all
            pass
    with pytest.raises(NO_WAY), network.connect(COORDINATOR, "centerA", 22, 1.0):
        pass  # and nothing comes into a hospital


def superlink_routes():
    """Method and path of every route that Flower's SuperLink declares."""
    from flwr.superlink.main import create_app

    found = [
        (method, context.path) for context in iter_route_contexts(create_app().routes) for method in context.methods or ["GET"]
    ]
    return sorted({(method, path.replace("{", "").replace("}", "")) for method, path in found})


# sites that come and go


def test_a_site_that_joins_late_is_waited_for(deploy, local):
    deployment = deploy()
    for owner in (COORDINATOR, *SITES[:3]):
        deployment.start(owner)
    deployment.wait_for(lambda: "waiting for the approval of centerD" in deployment.run_log(), "the run waits", 100)
    time.sleep(10)
    assert deployment.round() == 0
    deployment.start("centerD")
    check_same_bits(deployment, local)


def test_a_site_absent_for_good_leaves_a_partial_round_that_is_named(deploy):
    deployment = deploy("impatient", **IMPATIENT)
    deployment.start_all()
    deployment.finished_round(1, 200)
    deployment.kill("centerD")
    report = deployment.report(300)
    assert report["status"] == "incomplete"
    assert report["rounds"][-1]["absent"] == {"centerD": "no answer within the deadline"}
    assert report["rounds"][-1]["participants"] == list(SITES[:3])
    assert "centerD is away" not in deployment.run("server", "status", "--check", code=0)


def test_a_site_absent_for_good_ends_a_study_that_allows_no_partial_round(deploy):
    deployment = deploy("strict", secure_aggregation=False, answer_deadline_s=20.0, max_partial_rounds=0.0, max_attempts=2)
    deployment.start_all()
    deployment.finished_round(1, 200)
    deployment.kill("centerD")
    assert "centerD: no answer" in failure(deployment)


def test_a_site_that_is_away_for_ten_minutes_is_waited_for_and_named(deploy):
    """Its deadline passes again and again; nobody does anything, and the bits are those of an undisturbed run."""
    deployment = deploy("away", answer_deadline_s=45.0)
    undisturbed = simulate(deployment.folder)
    deployment.start_all()
    deployment.finished_round(1, 200)
    deployment.kill("centerD")
    deployment.wait_for(lambda: waited_for(deployment), "the run waits for centerD", 120)
    time.sleep(600)
    assert list(waited_for(deployment)) == ["centerD"]
    assert "no answer within the deadline" in waited_for(deployment)["centerD"]
    assert "the run waits for centerD since" in deployment.run("server", "status", "--check", code=13)
    deployment.start("centerD")
    check_same_bits(deployment, undisturbed)


# disks

FULL_S = 300.0


def test_a_full_disk_at_a_site_is_said_everywhere_and_the_run_goes_on_once_there_is_room(deploy, local):
    """By status, `--check` and the program that is called; at the site in its journal and status, though its logs have no room."""
    deployment = deploy()
    hook, heard = deployment.folder / "hook", deployment.folder / "heard"
    hook.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> {heard}\n')
    hook.chmod(0o755)
    deployment.more[COORDINATOR] = ("--on-trouble", str(hook), "--grace", "0.5")
    status, full = ("client", "status", "--site", "centerB"), "disk of the state folder is full: cannot write "
    with tiny_disk(deployment.folder / "centerB/state", "60m"):
        deployment.start_all()
        deployment.finished_round(1, 300)
        filling, filled = fill(deployment.folder / "centerB/state"), time.monotonic()
        deployment.wait_for(lambda: "centerB" in waited_for(deployment), "the run waits for centerB", 200)
        assert "its disk is full or cannot be written" in waited_for(deployment)["centerB"]
        deployment.wait_for(lambda: full in deployment.said("centerB"), "the site's journal says it", 60)
        assert full in deployment.run(*status)
        assert full in deployment.run(*status, "--check", code=13)
        assert "done, waiting for the other hospitals" in deployment.run("client", "status", "--site", "centerA")
        deployment.wait_for(heard.exists, "the program is called", 300)
        assert "centerB" in deployment.run("server", "status", "--check", code=13)
        assert "waiting for centerB: its disk is full" in deployment.run_log()
        assert "waiting for centerB: its disk is full" in deployment.said(COORDINATOR)
        time.sleep(max(0.0, filled + FULL_S - time.monotonic()))
        filling.unlink()
        deployment.finished_round(2, 400)
        check_same_bits(deployment, local)
        deployment.wait_for(lambda: "over, after" in heard.read_text(), "the all-clear", 120)
        told, over = heard.read_text().splitlines()
        assert "UTC, study small: the run waits for centerB since" in told
        assert "UTC, study small: over, after" in over
        assert "round 1: 4 sites" in deployment.said(COORDINATOR)
        deployment.close()


def test_a_full_disk_at_the_coordinator_is_waited_out(deploy, local):
    deployment = deploy()
    with tiny_disk(deployment.folder / "coordinator", "60m"):
        deployment.start_all()
        deployment.finished_round(1, 200)
        filling = fill(deployment.folder / "coordinator")
        deployment.wait_for(lambda: "exit code 9" in deployment.said(COORDINATOR), "the run ends for want of space", 100)
        filling.unlink()
        check_same_bits(deployment, local)
        deployment.close()


# keys, clocks, studies, versions


def refused(deployment, site, code, words, **environment):
    """A site that ends with this exit code and says these words, at a coordinator that is up."""
    if COORDINATOR not in deployment.processes:
        deployment.start(COORDINATOR)
        deployment.wait_for(lambda: "SuperLink knows" in deployment.said(COORDINATOR), "the coordinator is up")
    deployment.start(site, **environment)
    assert deployment.exit_code(site, 120) == code, deployment.said(site)
    assert words in deployment.said(site)


def test_a_revoked_site_is_refused_and_the_others_are_asked_again(deploy):
    deployment = deploy()
    deployment.run("server", "revoke", "centerD")
    refused(deployment, "centerD", 11, "the site left or was revoked")
    deployment.start("centerA")
    deployment.wait_for(lambda: "read it and sign it, client approve --site centerA" in deployment.said("centerA"), "it is asked")
    assert deployment.round() == 0


def test_a_coordinator_of_another_authority_is_refused(deploy, tmp_path):
    deployment = deploy()
    other = Deployment(deployment.copy(tmp_path / "other").folder)
    (other.folder / "coordinator").rename(other.folder / "aside")
    address = json.loads((other.folder / "centerA/state/kit/kit.json").read_text())["address"]
    other.run("server", "init", "study.yaml", "--address", address, "--passphrase-file", "passphrase")
    for name in ("server.key", "server.crt"):
        (deployment.folder / "coordinator/keys" / name).write_bytes((other.folder / "coordinator/keys" / name).read_bytes())
    refused(deployment, "centerA", 11, "not of this study's authority")


def test_an_expired_certificate_is_refused_with_what_to_do(deploy):
    deployment = deploy()
    deployment.run("server", "renew", "--passphrase-file", "passphrase", LD_PRELOAD=FAKETIME, FAKETIME="-400d")
    refused(deployment, "centerA", 11, "is expired")
    assert "expired" in deployment.run("server", "status", "--check", code=13)


def test_a_clock_ten_minutes_off_is_said(deploy):
    deployment = deploy()
    refused(deployment, "centerA", 11, "clock", LD_PRELOAD=FAKETIME, FAKETIME="+10m")


def test_a_site_of_another_study_alone_is_refused(deploy, enrol):
    deployment = deploy()
    theirs = enrol("impatient", **IMPATIENT)
    deployment.start(COORDINATOR)
    deployment.wait_for(lambda: "SuperLink knows" in deployment.said(COORDINATOR), "the coordinator is up")
    stranger = theirs.copy(deployment.folder / "stranger")
    kit = stranger.folder / "centerA/state/kit/ca.crt"
    kit.write_bytes((deployment.folder / "coordinator/keys/ca.crt").read_bytes())
    facts = json.loads(kit.with_name("kit.json").read_text())
    facts["files"]["ca.crt"] = hashlib.sha256(kit.read_bytes()).hexdigest()
    kit.with_name("kit.json").write_text(json.dumps(facts))
    try:
        stranger.start("centerA")
        assert stranger.exit_code("centerA") == 11
        assert "does not know the key of centerA" in stranger.said("centerA")
    finally:
        stranger.close()


def test_a_site_of_another_version_is_refused_and_named(deploy, local):
    deployment = deploy()
    refused(deployment, "centerD", 7, "the coordinator runs version", PYTHONPATH=LIARS, CSASN_TEST_LIE="version:9.9.9")
    assert "centerD runs version 9.9.9" in deployment.run("server", "status", "--check", code=13)
    for site in SITES[:3]:
        deployment.start(site)
    deployment.wait_for(lambda: "waiting for the approval of centerD" in deployment.run_log(), "the run waits")
    deployment.start("centerD")
    check_same_bits(deployment, local)


def test_without_the_signature_of_one_site_nothing_trains(deploy):
    deployment = deploy()
    (deployment.folder / "centerD/state/kit/approval.json").unlink()
    refused(deployment, "centerD", 11, "has approved no study")
    deployment.start("centerA")
    deployment.wait_for(lambda: "waiting for the approval of" in deployment.run_log(), "the run waits")
    deployment.wait_for(lambda: "waiting" in deployment.said("centerA"), "the site waits")
    assert deployment.round() == 0


# those who lie


@pytest.mark.parametrize("kind", ["nan", "shape", "bytes"])
def test_a_site_that_sends_what_the_contract_forbids_is_named_and_never_averaged(deploy, kind):
    deployment = deploy()
    for owner in (COORDINATOR, *SITES[:3]):
        deployment.start(owner)
    deployment.start("centerD", PYTHONPATH=LIARS, CSASN_TEST_LIE=f"send:{kind}")
    assert "centerD: answer breaks the contract" in failure(deployment, 300)
    assert deployment.events("round-finished") == []


@pytest.mark.parametrize("kind", ["study", "tensor"])
def test_a_coordinator_that_asks_for_what_was_not_approved_is_refused_by_the_first_site_that_it_asks(deploy, kind):
    deployment = deploy()
    deployment.start(COORDINATOR, PYTHONPATH=LIARS, CSASN_TEST_LIE=f"ask:{kind}")
    for site in SITES:
        deployment.start(site)
    assert failure(deployment, 300) in [f"{site}: refuses what it was sent" for site in SITES]
    assert deployment.events("round-finished") == []


def test_code_that_a_coordinator_ships_is_never_imported(deploy, local, tmp_path):
    deployment, proof = deploy(), tmp_path / "imported"
    deployment.start(COORDINATOR, PYTHONPATH=LIARS, CSASN_TEST_LIE=f"ship:{proof}")
    for site in SITES:
        deployment.start(site)
    check_same_bits(deployment, local)
    assert not proof.exists()
