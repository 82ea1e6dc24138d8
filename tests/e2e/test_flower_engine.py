"""`server simulate --engine flower`: Flower's own simulation on Ray gives the local engine's bits, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from reports import read_lines

COMMAND = Path(sys.prefix) / "bin"
MARK = "CSASN_TEST_MARK"
pytestmark = pytest.mark.slow


class Simulation:
    """A command under way; its processes carry a mark in their environment, and its temporary files have a folder of their own."""

    def __init__(self, hospitals, out, *more):
        self.mark = uuid.uuid4().hex
        self.temporary = tempfile.TemporaryDirectory(prefix="t", dir="/tmp")  # short, as Ray's sockets want it
        command = [COMMAND / "server", "simulate", hospitals / "study.yaml", "--out", out, *more]
        environment = os.environ | {MARK: self.mark, "TMPDIR": self.temporary.name}
        self.process = subprocess.Popen(command, stdout=-1, stderr=-1, stdin=-3, text=True, env=environment)

    def end(self, timeout_s=400):
        self.stdout, self.stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode

    def processes(self):
        marked = f"{MARK}={self.mark}".encode()
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if marked in _read(path)]

    def check_nothing_is_left(self, files=True):
        deadline = time.monotonic() + 180  # after kill -9 two agents of Ray outlive the rest by a minute or two
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert self.processes() == []
        assert not files or list(Path(self.temporary.name).glob("ray*")) == []
        self.temporary.cleanup()


def _read(path):
    try:
        return path.read_bytes()
    except OSError:  # another user's, or just ended
        return b""


def run(hospitals, out, *more):
    simulation = Simulation(hospitals, out, *more)
    assert simulation.end() == 0, simulation.stderr
    simulation.check_nothing_is_left()
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("flower") / "hospitals"
    write_small_hospitals(folder, federation={"rounds": 3, "secure_aggregation": True})
    return folder


@pytest.fixture(scope="module")
def reference(small, tmp_path_factory):
    report = run(small, tmp_path_factory.mktemp("runs") / "local")
    assert report["engine"] == "local"
    return report


def test_flowers_runtime_gives_the_bits_of_the_local_engine(reference, small, tmp_path):
    report = run(small, tmp_path / "run", "--engine", "flower")
    assert (report["engine"], report["status"]) == ("flower", "complete")
    assert report["state_hash"] == reference["state_hash"]
    assert report["final"] == reference["final"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("engine", ["flower", "local"])
def test_stopped_on_flowers_runtime_a_run_goes_on_with_either_engine(reference, small, tmp_path, end, engine):
    out = tmp_path / "run"
    simulation = Simulation(small, out, "--engine", "flower")
    deadline = time.monotonic() + 240
    while not any(event["event"] == "train-started" and event["round"] == 2 for event in read_lines(out)):
        assert simulation.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(simulation.process.pid, end)
    code = simulation.end(60)
    assert code == (130 if end == signal.SIGINT else -signal.SIGKILL)
    if end == signal.SIGINT:
        assert "--engine flower --resume" in simulation.stderr
    simulation.check_nothing_is_left(files=end == signal.SIGINT)
    more = ["--engine", "flower"] if engine == "flower" else []
    report = run(small, out, *more, "--resume")
    assert report["engine"] == engine
    assert report["state_hash"] == reference["state_hash"]


def test_what_a_site_refuses_ends_the_command_with_its_code_and_a_fixed_word_alone(tmp_path, write_small_hospitals):
    hospitals = tmp_path / "hospitals"
    write_small_hospitals(hospitals)
    victim = hospitals / "centerB/images/004-0.png"
    victim.write_bytes(victim.read_bytes()[:200])
    simulation = Simulation(hospitals, tmp_path / "run", "--engine", "flower")
    assert simulation.end() == 8
    assert "centerB: its manifest or images cannot be used" in simulation.stderr
    assert "004-0" not in simulation.stderr + simulation.stdout
    simulation.check_nothing_is_left()
    assert json.loads((tmp_path / "run/report.json").read_text())["status"] == "failed"


def test_sixty_four_virtual_sites_share_the_weights_evenly(tmp_path, write_small_hospitals):
    names = [f"site{number:02}" for number in range(64)]
    hospitals = tmp_path / "hospitals"
    (hospitals / "sites").mkdir(parents=True)
    for name in names:
        write_small_hospitals(hospitals / "of" / name, [name], num_cases=6)
        (hospitals / "sites" / f"{name}.yaml").symlink_to(hospitals / "of" / name / "sites" / f"{name}.yaml")
    write_small_hospitals(tmp_path / "one", ["site00"], federation={"rounds": 1, "sites": names, "answer_deadline_s": 600.0})
    shutil.copy(tmp_path / "one/study.yaml", hospitals)
    report = run(hospitals, tmp_path / "run", "--engine", "flower")
    membership = json.loads((tmp_path / "run/membership.json").read_text())
    assert [member["weight_units"] for member in membership["members"]] == [1] * 64
    assert report["status"] == "complete"
    assert len(report["rounds"][0]["participants"]) == 64
