"""A coordinator killed again and again, at random instants, and resumed each time: the same bits in the end."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERVER = Path(sys.prefix) / "bin" / "server"
pytestmark = pytest.mark.slow


def finish(hospitals, out, *more):
    command = [SERVER, "simulate", hospitals / "study.yaml", "--out", out, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)


def test_twelve_kills_at_random_instants_lose_nothing(tmp_path, write_small_hospitals):
    hospitals = tmp_path / "hospitals"
    write_small_hospitals(hospitals, federation={"rounds": 6}, num_cases=60)
    started = time.monotonic()
    finish(hospitals, tmp_path / "undisturbed")
    seconds = time.monotonic() - started
    out, kills, chance = tmp_path / "killed", 0, random.Random(5)
    while kills < 12:
        more = ["--resume"] if (out / "study.yaml").exists() else []
        process = subprocess.Popen([SERVER, "simulate", hospitals / "study.yaml", "--out", out, *more], stdout=-3, stderr=-3)
        try:
            process.wait(timeout=chance.uniform(0.2, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            break
    if not (out / "report.json").exists():
        finish(hospitals, out, "--resume")
    reports = [json.loads((path / "report.json").read_text()) for path in (tmp_path / "undisturbed", out)]
    assert kills >= 3
    assert reports[0]["state_hash"] == reports[1]["state_hash"]
    assert [report["status"] for report in reports] == ["complete", "complete"]
