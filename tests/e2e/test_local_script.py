"""deploy/local.sh, from hospitals on disk to a report."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from e2e.deployment import BIN

SCRIPT = Path(__file__).parents[2] / "deploy/local.sh"
SITES = ("centerA", "centerB", "centerC", "centerD")
pytestmark = pytest.mark.slow


def test_one_command_brings_up_a_coordinator_and_four_sites_and_ends_with_a_report(tmp_path, write_small_hospitals):
    write_small_hospitals(tmp_path / "hospitals", SITES, num_cases=60, federation={"rounds": 2})
    out = tmp_path / "out"
    begun = time.monotonic()
    commands = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}  # that are there: nothing is installed
    words = [SCRIPT, tmp_path / "hospitals", out]
    said = subprocess.run(words, env=commands, stdout=-1, stderr=-2, text=True, timeout=600, check=False)
    assert said.returncode == 0, said.stdout
    assert time.monotonic() - begun < 300
    (path,) = out.glob("coordinator/runs/*/report.json")
    assert str(path) in said.stdout
    report = json.loads(path.read_text())
    assert (report["engine"], report["status"]) == ("deployment", "complete")
    assert all("the study is finished" in (out / f"client-{site}.log").read_text() for site in SITES)
