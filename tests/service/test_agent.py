"""`client --site NAME` and `client status`: one client on a state folder, its processes' environment, and what it says it does."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from flwr.app import RecordDict

from client.commands.agent import StatusLine
from client.flower.app import node_of_hospital, nodes_of_hospital
from client.service import processes
from client.service.agent import WORKER, Agent
from client.service.status import CONNECTING, LOCK, WAITING, describe_site, is_client_at_work, sole_client
from client.worker.notes import DOING, TURN, find_disk_trouble
from csasn.errors import DiskFullError, KeptError, RunError, TrustError
from csasn.platform.supervision import Child, ServiceManager
from csasn.privacy.ledger import LEDGER_FILE
from enrolling import SITES, Federation
from full_disk import room_for

HOLDS = """
import sys
from pathlib import Path
from client.service.status import sole_client
with sole_client("centerA", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TRAINING = {"doing": "round 3: training, 40 %", "time": 0.0}


@pytest.fixture
def federation(tmp_path, write_small_hospitals, monkeypatch, capsys):
    write_small_hospitals(tmp_path / "h")
    return Federation(tmp_path / "h", monkeypatch, capsys)


@pytest.fixture
def agent(federation):
    """The agent of centerA, which approved; its processes are others that do nothing."""
    federation.approve("centerA", federation.enroll_all())
    agent = Agent(federation.site("centerA"), federation.path / "sites/centerA.yaml", ServiceManager(""), lambda _: None)
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    agent.children = [Child(name, wait, agent.state / f"logs/{name}.log") for name in ("SuperNode", WORKER)]
    agent.studies["centerA"].facts = SimpleNamespace(phase="training", further_studies=())
    yield agent
    for child in agent.children:
        child.stop()


def note(path, **facts):
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(json.dumps(facts))


def test_two_clients_do_not_work_on_one_state_folder(agent, federation, monkeypatch):
    """Two would answer one attempt twice, masked differently."""
    monkeypatch.setattr("client.service.agent.end_on_sigterm", lambda: None)
    monkeypatch.setattr(Agent, "_take_part", lambda _: SimpleNamespace(run_status="complete", study_hash=""))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, agent.state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert other.stdout.readline() == b"held\n"
        said = federation.run("client", "--site", "centerA", code=RunError.exit_code)
        assert "another client is at work as centerA" in said
        assert "hint: " in said
    finally:
        other.kill()
        other.communicate()
    with sole_client("centerA", agent.state):
        assert (agent.state / LOCK).stat().st_mode & 0o777 == 0o600


def test_an_agent_holds_its_folder_as_long_as_it_runs_and_no_longer(agent, monkeypatch):
    held = []
    monkeypatch.setattr("client.service.agent.end_on_sigterm", lambda: None)
    study = agent.studies["centerA"]
    monkeypatch.setattr(study, "_ask", lambda: held.append(is_client_at_work(agent.state)))
    study.facts = SimpleNamespace(phase="finished", run_status="complete", study_hash=agent.kit.study_hash, further_studies=())
    agent.run()
    assert held == [True]
    assert not is_client_at_work(agent.state)


def test_no_child_inherits_the_lock(tmp_path):
    with sole_client("centerA", tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
        assert is_client_at_work(tmp_path)
    end = time.monotonic() + 120
    while is_client_at_work(tmp_path) and time.monotonic() < end:  # a child closes it a moment after its program begins
        time.sleep(0.01)
    assert not is_client_at_work(tmp_path)
    assert child.poll() is None
    child.communicate(b"\n")


def test_a_look_at_the_lock_keeps_no_client_from_starting(tmp_path, monkeypatch):
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr("csasn.platform.locks.time.sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        with sole_client("centerA", tmp_path):
            assert is_client_at_work(tmp_path)


def test_no_proxy_of_the_machine_and_no_password_is_in_what_children_are_started_with(agent, federation, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "http://another.example.org:8080")
    monkeypatch.setenv("KEPT", "as it is")
    with_login(agent, federation)
    for child in Agent(agent.site, agent.site_file, ServiceManager(""), lambda _: None).children:
        assert {value for name, value in child.environment.items() if name.lower().endswith("_proxy")} == {"127.0.0.1"}
        assert child.environment["KEPT"] == "as it is"
        assert "pa55" not in " ".join([*child.command, *child.environment.values()])


def with_login(agent, federation):
    """Gives the site file a proxy that wants a login."""
    login = federation.path / "proxy.login"
    login.write_text("jane doe:pa55/w@rd\n")
    login.chmod(0o600)
    facts = yaml.safe_load(agent.site_file.read_text()) | {"proxy": "http://proxy.example.org:3128", "proxy_login": str(login)}
    agent.site_file.write_text(yaml.safe_dump(facts))


@pytest.mark.parametrize("proxy", [None, "http://jane%20doe:pa55%2Fw%40rd@proxy.example.org:3128"])
def test_the_supernode_takes_the_proxy_of_the_site_file_with_its_login(agent, federation, monkeypatch, proxy):
    monkeypatch.setattr("client.flower.runtime.serve_node", lambda *_: None)
    monkeypatch.setattr("client.service.processes.os.environ", given := {})
    if proxy:
        with_login(agent, federation)
    processes._node(1, str(agent.site_file), "turn", "--superlink", "coordinator:9443")
    assert given == ({"HTTPS_PROXY": proxy} if proxy else {})


def test_the_worker_has_its_files_from_the_site_file_alone(agent):
    """Nothing that a message, or its context, says can name another one."""
    supernode, worker = Agent(agent.site, agent.site_file, ServiceManager(""), lambda _: None).children
    assert "--node-config" not in supernode.command
    node = nodes_of_hospital(Path(worker.command[-1]))(SimpleNamespace(content=RecordDict()), None)
    assert node.site == agent.site
    assert node.ledger.path == agent.site.run_folder / LEDGER_FILE


def test_what_a_worker_did_before_it_was_started_anew_is_not_shown(agent):
    note(agent.state / TURN, time=time.time())
    note(agent.state / DOING, **TRAINING)
    agent.studies["centerA"].agreed = True
    agent._turn()
    assert all(child.is_running for child in agent.children)
    assert agent.line() == WAITING
    note(agent.state / DOING, **TRAINING)
    agent._turn()
    assert agent.line() == TRAINING["doing"]  # of the worker that is there


def test_that_the_study_has_ended_is_kept_when_a_worker_is_started_anew(agent):
    note(agent.state / DOING, doing="the study is finished: complete", time=0.0, finished=agent.kit.study_hash)
    agent._turn()
    assert describe_site(agent.site).line == "the study is finished: complete"


def test_without_a_connection_a_site_does_not_say_what_it_did(agent):
    note(agent.state / DOING, **TRAINING)
    assert agent.line() == CONNECTING
    note(agent.state / TURN, time=time.time())
    assert agent.line() == TRAINING["doing"]


def outside_now(federation):
    """Training hours in the site file that are not now."""
    hours = "-".join((datetime.now() + timedelta(hours=ahead)).strftime("%H:%M") for ahead in (2, 4))
    path = federation.path / "sites/centerA.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"policy": {"training_hours": hours}}))
    return hours


def test_status_of_a_service_outside_its_training_hours_is_as_it_should_be(agent, federation):
    hours = outside_now(federation)
    check = ("client", "status", "--site", "centerA", "--check")
    with sole_client("centerA", agent.state):
        assert federation.run(*check) == ""
        assert federation.run(*check[:-1]) == f"outside training hours {hours}\n"
        status = json.loads(federation.run(*check[:-1], "--json"))
        assert (status["takes_part"], status["outside_training_hours"]) == (False, True)
        federation.run("client", "pause", "--site", "centerA")
        assert "centerA: paused" in federation.run(*check, code=13)
        federation.run("client", "pause", "--site", "centerA", "--resume")
    assert "centerA: not running" in federation.run(*check, code=13)


def test_status_of_a_service_without_a_connection_does_not_say_that_it_is_not_running(agent):
    with sole_client("centerA", agent.state):
        assert describe_site(agent.site).line == CONNECTING
    assert describe_site(agent.site).line == "not running"


def test_who_may_not_read_the_state_folder_is_not_told_that_nothing_runs(agent, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # as root, whom a test may run as, nothing is unreadable
    with pytest.raises(PermissionError):
        describe_site(agent.site)


# what keeps a site from answering


def test_a_disk_without_room_for_a_note_is_said_by_the_agent_and_by_the_status(agent, federation):
    note(agent.state / TURN, time=time.time())
    with sole_client("centerA", agent.state):
        assert describe_site(agent.site).takes_part
        with room_for(0):
            line = find_disk_trouble(agent.state)
            status = describe_site(agent.site)
        assert line.startswith("disk of the state folder is full: cannot write notes: file too large, free ")
        assert line.endswith(" MiB; training goes on by itself once there is room")
        assert status.line.partition(", free")[0] == line.partition(", free")[0]
        assert not status.takes_part
        agent.studies["centerA"].disk_trouble = line
        assert agent.line() == line
        assert describe_site(agent.site).takes_part
    assert not list(agent.state.glob("*.tmp"))


def test_what_keeps_the_worker_from_answering_is_a_trouble_until_it_does(agent, federation):
    node = node_of_hospital(agent.site)
    note(agent.state / TURN, time=time.time())
    with sole_client("centerA", agent.state):
        node.tell_trouble(DiskFullError("cannot write pending.safetensors: no space left on device"))
        said = federation.run("client", "status", "--site", "centerA", "--check", code=13)
        assert "disk of the state folder is full: cannot write pending.safetensors: no space left on device, free " in said
        node.tell_trouble(KeptError("diary.json is damaged", "bring it back from a backup"))
        said = federation.run("client", "status", "--site", "centerA", "--check", code=13)
        assert (
            "no answer: diary.json is damaged; bring it back from a backup; training goes on by itself once that is mended" in said
        )
        node.tell("round 3: evaluating")
        assert federation.run("client", "status", "--site", "centerA", "--check") == ""


def test_a_line_that_the_log_has_no_room_for_goes_to_standard_error(monkeypatch, capsys):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        StatusLine()("disk of the state folder is full")
        assert capsys.readouterr().err.endswith(" disk of the state folder is full\n")
        monkeypatch.undo()
        full.flush = lambda: None
        os.dup2(os.open("/dev/null", os.O_WRONLY), full.fileno())


def test_why_a_client_ended_is_in_its_status_until_it_runs_again(federation):
    federation.enroll_all()
    said = federation.run("client", "--site", "centerA", code=11)
    assert "centerA has approved no study" in said
    shown = federation.run("client", "status", "--site", "centerA")
    assert re.fullmatch(r"not running; it ended at [\d-]+ [\d:]+: centerA has approved no study; run client approve\n", shown)


def test_next_steps_are_said(federation):
    said = federation.run("client", "approve", "--site", "centerA", "--yes", "0", code=3)
    assert "no kit is installed in " in said
    assert "hint: client install --site NAME KIT" in said
    federation.initialise()
    for site in SITES:
        federation.request(site)
        said = federation.enroll(site)
    assert "next: server start --run" in said
    federation.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip")
    said = federation.approve("centerA", federation.enrolments.membership())
    assert "next, if it does not run: systemctl enable --now csasn-client@centerA as root, or client --site centerA here" in said


# a membership that changes


def facts_of(federation, **changes):
    """What the coordinator says of its folder now."""
    from server.office.study_folder import StudyFolder

    return StudyFolder(federation.enrolments).facts().model_copy(update=changes)


def turn(agent):
    """One turn of the agent."""
    for called, study in list(agent.studies.items()):
        agent._take_part_in(called, study)
    agent._raise_if_none_goes_on()
    agent._turn()


@pytest.fixture
def agreed(agent, federation, monkeypatch):
    """The agent among others that all approved, whose processes run; its coordinator is the folder itself."""
    membership = federation.enrolments.membership()
    for site in SITES:
        federation.approve(site, membership)
        federation.enrolments.record(federation.approval(site))
    monkeypatch.setattr("client.service.participation.ask_facts", lambda site, kit, said: facts_of(federation))
    monkeypatch.setattr("client.service.participation.ASK_S", 0.0)
    turn(agent)
    assert agent.studies["centerA"].agreed
    assert all(child.is_running for child in agent.children)
    return agent


def test_a_worker_rests_while_another_membership_is_proposed_and_people_are_told_what_to_do(agreed, federation):
    federation.run("server", "leave", "centerC")
    turn(agreed)
    assert "client approve --site centerA" in agreed.line()
    assert {child.name: child.is_running for child in agreed.children} == {"SuperNode": True, WORKER: False}


def test_an_approval_is_taken_up_without_a_restart_and_the_old_worker_is_gone_before_the_coordinator_hears_of_it(
    agreed, federation, monkeypatch
):
    federation.run("server", "leave", "centerC")
    membership = federation.enrolments.membership()
    federation.approve("centerA", membership)
    heard = []

    def ask(site, kit, said):
        heard.append((said.approval.membership_hash, agreed.children[1].is_running))
        return facts_of(federation)

    monkeypatch.setattr("client.service.participation.ask_facts", ask)
    turn(agreed)
    turn(agreed)
    assert heard == [(membership.membership_hash, False)]
    assert "not approved by centerA, centerB" in agreed.line()
    for site in ("centerA", "centerB"):
        federation.approve(site, membership)
        federation.enrolments.record(federation.approval(site))
    turn(agreed)
    assert agreed.studies["centerA"].agreed
    assert agreed.children[1].is_running


def test_a_site_that_left_ends_with_why(agreed, federation):
    federation.run("server", "leave", "centerA")
    with pytest.raises(TrustError, match="without centerA") as caught:
        turn(agreed)
    assert "it left or was revoked" in caught.value.hint
