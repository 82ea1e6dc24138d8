"""A coordinator killed again and again, at random instants, and resumed each time: the same bits in the end."""

import json
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from reports import read_lines

SERVER = Path(sys.prefix) / "bin" / "server"
KILLS, ROUNDS = 12, 24
pytestmark = pytest.mark.slow


def begin(hospitals, out):
    more = ["--resume"] if (out / "study.yaml").exists() else []
    return subprocess.Popen([SERVER, "simulate", hospitals / "study.yaml", "--out", out, *more], stdout=-3, stderr=-3)


def seconds_of_a_round(out):
    times = [datetime.fromisoformat(event["time"]) for event in read_lines(out) if event["event"] == "round-finished"]
    return (times[-1] - times[0]).total_seconds() / (len(times) - 1)


def num_replies(out):
    return sum(event["event"] == "reply" for event in read_lines(out))


def test_twelve_kills_at_random_instants_lose_nothing(tmp_path, write_small_hospitals):
    hospitals, undisturbed, out = (tmp_path / name for name in ("hospitals", "undisturbed", "killed"))
    write_small_hospitals(hospitals, federation={"rounds": ROUNDS}, num_cases=60)
    assert begin(hospitals, undisturbed).wait(600) == 0
    longest_s, chance = 2 * seconds_of_a_round(undisturbed), random.Random(5)
    for number in range(KILLS):
        process, before = begin(hospitals, out), num_replies(out)
        deadline = time.monotonic() + 120
        while number % 4 and num_replies(out) == before:  # each fourth is killed while it starts
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(chance.uniform(0, longest_s))
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert any(event["event"] == "round-finished" for event in read_lines(out))
    assert begin(hospitals, out).wait(600) == 0
    reports = [json.loads((path / "report.json").read_text()) for path in (undisturbed, out)]
    assert reports[0]["state_hash"] == reports[1]["state_hash"]
    assert [report["status"] for report in reports] == ["complete", "complete"]
