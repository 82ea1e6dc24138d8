"""Every phase of a study with its trouble planted: `--check`, the live page, the program that is called and its all-clear agree."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console

from command_line import run_here
from csasn.platform.locks import take_lock
from csasn.trust.identity import load_identity
from csasn.trust.membership import sign_membership
from enrolling import SITES, Federation
from server.office.enrolment import Enrolments
from server.office.service_file import LOCK, SERVICE, Service
from server.office.status import read_status, status_view
from server.office.study_folder import StudyFolder
from server.office.trouble_calls import TOLD, TroubleCalls
from server.office.troubles import OVERDUE_DAYS, find_troubles
from server.page.sources import study_source
from server.run.run_directory import RunDirectory

BEGIN = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
DISK, LEDGER = "its disk is full or cannot be written", "it went back"
DAYS = (OVERDUE_DAYS + 1) * 86400


@pytest.fixture(scope="module")
def phases(tmp_path_factory, write_small_hospitals):
    """A coordinator's folder in each phase, made once: {phase: folder}."""
    folder = tmp_path_factory.mktemp("phases")
    write_small_hospitals(folder / "h", federation={"secure_aggregation": False, "min_sites": 2, "rounds": 4})
    patch = pytest.MonkeyPatch()
    federation = Federation(folder / "h", patch, SimpleNamespace(readouterr=lambda: SimpleNamespace(out="", err="")))
    made = {}

    def keep(phase):
        made[phase] = folder / phase
        shutil.copytree(federation.folder, made[phase])

    federation.initialise()
    for site in SITES[:2]:
        federation.request(site)
        federation.enroll(site)
    keep("enrolling")
    federation.request(SITES[2])
    federation.enroll(SITES[2])
    keep("approving")
    membership = federation.enrolments.membership()
    for site in SITES:
        federation.enrolments.record(sign_membership(membership, site, load_identity(federation.site(site).keys_folder)))
    keep("ready")
    RunDirectory.create(federation.folder / "runs/small", federation.enrolments.study, membership)
    keep("running")
    patch.undo()
    return made


@pytest.fixture
def scene(phases, tmp_path, monkeypatch, capsys):
    scene = Scene(phases, tmp_path, monkeypatch, capsys)
    yield scene
    scene.close()


class Scene:
    """A coordinator that is up, in a phase; its command appends lines to a file, its clock goes by hand."""

    def __init__(self, phases, path, monkeypatch, capsys):
        self.phases, self.path, self.monkeypatch, self.capsys = phases, path / "coordinator", monkeypatch, capsys
        self.heard, hook = path / "heard", path / "hook"
        hook.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> {self.heard}\n')
        hook.chmod(0o755)
        self.hook, self.now, self.lock = str(hook), BEGIN, None

    def begin(self, phase):
        """The folder as it is where nothing is wrong, with a coordinator that has been up for an hour."""
        self.close()
        told = (self.path / TOLD).read_bytes() if (self.path / TOLD).exists() else b""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.phases[phase], self.path)
        if told:
            (self.path / TOLD).write_bytes(told)
        if phase == "running":
            self.tell({"event": "train-started", "round": 1}, *(reply(site) for site in SITES))
        (self.path / SERVICE).write_text(Service(pid=os.getpid(), superlink_port=1).model_dump_json())
        self.age(SERVICE, 3600)
        self.lock = take_lock(self.path / LOCK)
        self.monkeypatch.undo()
        self.monkeypatch.setattr("server.office.troubles.sites_online", lambda _: dict.fromkeys(SITES, ""))

    def close(self):
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def age(self, name, seconds):
        """Makes a file so old."""
        os.utime(self.path / name, (time.time() - seconds,) * 2)

    def tell(self, *events, ago_s=0.0):
        """Adds events to the run's."""
        when = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
        with (self.path / "runs/small/events.jsonl").open("a") as file:
            file.writelines(json.dumps({"time": when} | event) + "\n" for event in events)

    @property
    def study_folder(self):
        return StudyFolder(Enrolments.open(self.path))

    def check(self):
        """What `server status --check` says; nothing where it is green."""
        code = run_here("server", "status", "--check", "--folder", str(self.path))
        said = self.capsys.readouterr().err
        assert code == (13 if said else 0)
        return said

    def page(self):
        """What the live page says that wants a person."""
        return study_source(self.path).show().sections["troubles"].striptags()

    def calls(self):
        return TroubleCalls(self.hook, print, timedelta(minutes=3), lambda: self.now)

    def wait(self, calls, minutes):
        """Time goes by, and the coordinator looks; all that was heard so far, once the programs that were called have ended."""
        self.now += timedelta(minutes=minutes)
        calls.tell(self.study_folder)
        for _ in range(100):
            if len(self.lines()) >= self.expected:
                break
            time.sleep(0.05)
        return self.lines()

    expected = 0

    def lines(self):
        return self.heard.read_text().splitlines() if self.heard.exists() else []


def reply(site, word="answered"):
    return {"event": "reply", "kind": "train", "round": 1, "site": site, "said": word}


def revoke(scene, *sites):
    for site in sites:
        Enrolments.open(scene.path).revoke(site)


def trained_for(scene, seconds, **events):
    """Round 1 took each site ten seconds, and it is at work on round 2 for so long."""
    scene.tell({"event": "train-started", "round": 1}, ago_s=seconds + 20)
    scene.tell(*(reply(site) for site in SITES), ago_s=seconds + 10)
    scene.tell({"event": "train-started", "round": 2}, ago_s=seconds)


def waits(scene, why, ago_s=90.0):
    scene.tell({"event": "train-started", "round": 1}, ago_s=ago_s)
    scene.tell(reply("centerA", "ready"), reply("centerC", "ready"), ago_s=ago_s)
    if why:
        scene.tell({"event": "waiting", "sites": {"centerB": why}}, ago_s=ago_s)


def away(scene):
    waits(scene, "")
    scene.monkeypatch.setattr("server.office.troubles.sites_online", lambda _: {"centerA": "", "centerC": ""})


def failed(scene):
    scene.tell({"event": "failed", "error": "centerB: refuses what it was sent"})
    (scene.path / "runs/small/report.json").write_text('{"status": "failed"}')


def other_version(scene):
    (scene.path / "seen").mkdir()
    (scene.path / "seen/centerB.json").write_text('{"site": "centerB", "time": 0.0, "software_version": "0.9.9"}')


def full(scene):
    usage = SimpleNamespace(free=5 << 20)
    scene.monkeypatch.setattr("csasn.platform.storage.shutil.disk_usage", lambda _: usage)


PARTIAL = {"event": "round-finished", "round": 1, "absent": {"centerB": DISK}}
PLANTED = {
    "never enrolled": ("enrolling", lambda s: s.age("study.yaml", DAYS), "centerC has not enrolled for 8 days"),
    "too few left": ("approving", lambda s: revoke(s, "centerB", "centerC"), "fewer sites are enrolled than the study needs"),
    "never approved": ("approving", lambda s: s.age("membership.json", DAYS), "centerB has not approved for 8 days"),
    "nobody runs it": ("ready", lambda s: [s.age(f"approvals/{site}.json", 90) for site in SITES], "no run begins: server start"),
    "refused": ("running", failed, "the run failed: centerB: refuses what it was sent"),
    "site's disk": ("running", lambda s: waits(s, DISK), f"UTC: {DISK}"),
    "away": ("running", away, "UTC: it is away"),
    "behind": ("running", lambda s: trained_for(s, 400), "centerB falls behind: at work since"),
    "partial": ("running", lambda s: s.tell(PARTIAL), f"round 1 was made without centerB: {DISK}"),
    "revoked": ("running", lambda s: revoke(s, "centerC"), "without centerC is proposed: centerA, centerB did not approve it yet"),
    "revoked to too few": ("running", lambda s: revoke(s, "centerB", "centerC"), "the run stands still: fewer sites are enrolled"),
    "own disk": ("running", full, "disk of the coordinator's folder is full: free 5 MiB"),
    "certificate": (
        "approving", lambda s: s.monkeypatch.setattr("server.office.study_folder.days_left", lambda _: 5), "expires within two",
    ),
    "not started": ("running", Scene.close, "the coordinator is not started"),
    "ledger": ("running", lambda s: s.tell({"event": "ledger-marked", "site": "centerB", "how": LEDGER}), f"centerB: {LEDGER}"),
    "version": ("approving", other_version, "centerB runs version 0.9.9"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_every_phase_with_its_trouble_planted_check_page_hook_and_all_clear_agree(scene, name):
    phase, plant, says = PLANTED[name]
    scene.begin(phase)
    calls = scene.calls()
    assert scene.check() == ""
    assert scene.page() == "Nothing."
    assert scene.wait(calls, 0) == []
    plant(scene)
    assert says in scene.check()
    assert says in scene.page()
    assert scene.wait(calls, 1) == []
    assert scene.wait(calls, 2) == []  # a minute and two, of three
    scene.expected = num = len(find_troubles(scene.study_folder))
    told = scene.wait(calls, 1)
    assert sum(says in line for line in told) == 1
    assert all(line.startswith("2026-11-30 12:04 UTC, study small: ") for line in told)
    assert scene.wait(calls, 60) == told  # once
    scene.begin(phase)
    assert scene.check() == ""
    assert scene.page() == "Nothing."
    assert scene.wait(calls, 0) == told  # it may come back at once
    scene.expected = 2 * num
    over = scene.wait(calls, 3)[num:]
    assert sum(says in line for line in over) == 1
    assert all(line.startswith("2026-11-30 13:07 UTC, study small: over, after 63 min: ") for line in over)
    assert json.loads((scene.path / TOLD).read_text()) == {"told": {}}


def test_a_start_is_no_alarm_and_a_restart_tells_nothing_twice(scene):
    scene.begin("running")
    away(scene)
    assert "it is away" in scene.check()
    scene.age(SERVICE, 1)  # the coordinator was just started
    assert scene.check() == ""
    calls = scene.calls()
    scene.age(SERVICE, 3600)
    scene.wait(calls, 0)
    scene.begin("running")  # they are back after two minutes
    scene.wait(calls, 2)
    away(scene)
    assert scene.wait(calls, 2) == []
    scene.expected = 1
    told = scene.wait(calls, 3)
    assert len(told) == 1
    again = scene.calls()  # another process
    scene.wait(again, 10)
    assert scene.wait(again, 10) == told
    scene.begin("running")
    scene.wait(again, 1)
    scene.expected = 2
    assert "over, after 23 min: the run waits for centerB" in scene.wait(again, 3)[1]


def test_a_reason_that_changes_is_the_same_wait(scene):
    scene.begin("running")
    waits(scene, DISK)
    calls = scene.calls()
    scene.wait(calls, 0)
    scene.expected = 1
    told = scene.wait(calls, 3)
    scene.tell({"event": "waiting", "sites": {"centerB": "no answer within the deadline"}}, ago_s=70)
    assert "no answer within the deadline" in scene.check()
    assert scene.wait(calls, 9) == told


def test_a_version_is_told_for_three_of_a_site(scene):
    scene.begin("approving")
    calls = scene.calls()
    other_version(scene)
    for number in range(6):
        facts = {"site": "centerB", "time": 0.0, "software_version": f"0.{number}"}
        (scene.path / "seen/centerB.json").write_text(json.dumps(facts))
        scene.wait(calls, 4)
        scene.wait(calls, 4)
    time.sleep(0.3)
    assert sum("over" not in line for line in scene.lines()) == 3


def shown(scene):
    """The status as a person sees it."""
    console = Console(file=io.StringIO(), width=110)
    console.print(status_view(read_status(scene.study_folder)))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("phase", "plant", "says"),
    [
        ("enrolling", lambda _: None, "): enrolling, 2 of 3 sites are; certificate"),
        ("approving", lambda _: None, "): approving, 0 of 3 sites did; certificate"),
        ("ready", lambda _: None, "): ready, every site has approved; certificate"),
        ("running", lambda _: None, "): running, round 1 of 4 is under way; certificate"),
        ("running", failed, "): failed, 0 of 4 rounds are done; certificate"),
    ],
)
def test_the_first_line_says_where_the_study_stands(scene, phase, plant, says):
    scene.begin(phase)
    plant(scene)
    assert says in shown(scene)


def test_the_status_shows_time_left_of_each_site_and_none_of_a_run_that_does_not_go_on(scene):
    scene.begin("running")
    scene.monkeypatch.setattr("server.office.status.sites_online", lambda _: {"centerA": ""})
    scene.tell({"event": "train-started", "round": 1}, ago_s=1500)
    scene.tell(*(reply(site) for site in SITES), ago_s=900)
    scene.tell({"event": "round-finished", "round": 1, "participants": list(SITES), "seconds": 600}, ago_s=900)
    scene.tell({"event": "train-started", "round": 2}, ago_s=120)
    scene.tell(reply("centerC"))
    text = shown(scene)
    assert "round 2 of 4 is under way, about 30 min left" in text
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "at work, 8 min left" in rows["centerA"]
    assert "10 min" in rows["centerB"]
    assert "at work" not in rows["centerC"]
    revoke(scene, "centerC")
    assert "left" not in shown(scene).splitlines()[0].partition("certificate")[0]


def test_a_site_that_is_large_is_not_behind_before_its_own_time(scene):
    scene.begin("running")
    trained_for(scene, 100)
    assert scene.check() == ""


def test_a_long_reason_stands_below_the_table_on_lines_of_its_own(scene):
    scene.begin("running")
    waits(scene, f"{DISK}: its ledger is broken or cannot be written: see its log, and client audit")
    text = shown(scene)
    assert "awaited, see below" in text
    assert max(map(len, text.splitlines())) <= 110
    assert len([line for line in text.splitlines() if line.startswith("│")]) == 3


def test_a_look_at_troubles_of_a_run_without_any_loads_no_flower_and_no_torch(scene):
    scene.begin("running")
    code = (
        "import sys; from server.office.enrolment import Enrolments; from server.office.study_folder import StudyFolder\n"
        "from server.office.troubles import find_troubles; from pathlib import Path\n"
        "assert find_troubles(StudyFolder(Enrolments.open(Path(sys.argv[1])))) == []\n"
        "print(sorted({'flwr', 'torch', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, scene.path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
