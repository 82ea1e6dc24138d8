"""A coordinator's folder, and who asks its page."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from csasn.trust.identity import load_identity
from csasn.trust.membership import sign_membership
from enrolling import SITES, Federation
from page_visitor import Visitor


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory, write_small_hospitals):
    """A coordinator's folder in which every site has approved."""
    folder = tmp_path_factory.mktemp("page")
    write_small_hospitals(folder / "h", federation={"secure_aggregation": False, "min_sites": 2, "rounds": 20})
    patch = pytest.MonkeyPatch()
    federation = Federation(folder / "h", patch, SimpleNamespace(readouterr=lambda: SimpleNamespace(out="", err="")))
    federation.initialise()
    for site in SITES:
        federation.request(site)
        federation.enroll(site)
    membership = federation.enrolments.membership()
    for site in SITES:
        federation.enrolments.record(sign_membership(membership, site, load_identity(federation.site(site).keys_folder)))
    patch.undo()
    return federation.folder


@pytest.fixture
def visit():
    """visit(source) -> who asks its page."""
    return Visitor


@pytest.fixture
def start_command():
    """start_command(program, ...) -> a command as a process of its own, which is ended with the test."""
    processes = []

    def start(program, *words):
        code = f"from {program}.commands.cli import main; main()"
        command = [sys.executable, "-c", code, *map(str, words)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
