"""`client import` in this process, and a small hospital's export."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from command_line import run_here
from import_scene import ROWS, THINGS, Done, Hospital, make_hospital


class Run(Protocol):
    def __call__(self, hospital: Hospital, *arguments: object) -> Done: ...


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """run(hospital, *arguments): `client import` at its site, without a terminal."""
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)

        def start(hospital: Hospital, *arguments: object) -> Done:
            site = ("--site", "centerA", "--config", str(hospital.folder / "site.yaml"))
            return Done(run_here("client", "import", *site, *arguments), *capfd.readouterr())

        yield start


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return make_hospital(tmp_path / "hospital", THINGS, ROWS)
