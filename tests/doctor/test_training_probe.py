"""A training step in a process of its own: out of memory is told from every other failure."""

import subprocess
import sys

import pytest
import torch

from client.doctor import training_probe
from csasn.errors import ConfigurationError


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), None])
def test_a_step_out_of_memory_ends_with_a_code_of_its_own(hospital, monkeypatch, error):
    def measure(*_):
        if error:
            raise error
        torch.empty(1 << 50)  # the error of a CPU without memory

    monkeypatch.setattr(training_probe, "_measure", measure)
    with pytest.raises(SystemExit, match=str(training_probe.OUT_OF_MEMORY)):
        training_probe._print_step(hospital.site_file, hospital.state / "kit/study.yaml", 8)


def test_a_step_that_fails_is_told_from_one_that_is_out_of_memory(hospital, monkeypatch):
    real = subprocess.run
    programs = iter(
        (
            f"raise SystemExit({training_probe.OUT_OF_MEMORY})",
            "import os; os.kill(os.getpid(), 9)",
            "import sys; sys.stderr.write('WARNING x: y\\nerror: no GPU: none\\nhint: buy one\\n'); sys.exit(3)",
        )
    )

    def run_another(command, **options):
        return real([sys.executable, "-c", next(programs)], **options)

    monkeypatch.setattr(training_probe.subprocess, "run", run_another)
    given = hospital.site_file, hospital.state / "kit/study.yaml", 8
    assert training_probe.take_step(*given) is None
    assert training_probe.take_step(*given) is None
    with pytest.raises(ConfigurationError, match="no GPU: none") as caught:
        training_probe.take_step(*given)
    assert caught.value.hint == "buy one"
