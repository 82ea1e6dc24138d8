"""Threads that wait for each other sleep in the processes of `csasn`, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

HELP_THEN_TORCH = """
import sys
from csasn.commands import cli
sys.argv = ["csasn", "--help"]
try:
    cli.main()
except SystemExit:
    import torch
"""


@pytest.mark.parametrize(("said", "sleep"), [({}, True), ({"OMP_WAIT_POLICY": "ACTIVE"}, False)])
def test_the_runtime_of_torch_has_its_threads_sleep(said, sleep):
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env = kept | {"OMP_DISPLAY_ENV": "verbose"} | said
    done = subprocess.run([sys.executable, "-c", HELP_THEN_TORCH], capture_output=True, text=True, timeout=300, check=True, env=env)
    assert "GOMP_SPINCOUNT = " in done.stderr
    assert ("GOMP_SPINCOUNT = '0'" in done.stderr) == sleep
