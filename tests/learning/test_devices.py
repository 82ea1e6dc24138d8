"""Training and evaluation keep all tensors on the device of the network: seen on a machine without a GPU (fake_gpu.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_gpu import CASES, PLANTED

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def outcomes():
    """What came of each case, by its name."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, str(TESTS / "fake_gpu.py"), *CASES]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    return dict(line.split(": ", 1) for line in ran.stdout.splitlines())


@pytest.mark.parametrize("case", sorted(CASES.keys() - {PLANTED}))
def test_a_training_step_and_evaluation_stay_on_one_device(outcomes, case):
    assert outcomes[case] == "passed"


def test_a_tensor_that_is_left_on_the_cpu_is_found(outcomes):
    assert outcomes[PLANTED].startswith("FakeTensorDeviceMismatchError")
