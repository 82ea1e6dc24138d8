"""`client import` in this process, and a small hospital's export."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from client.commands.cli import command_parser
from csasn.platform.command import run_command
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
            parsed = command_parser().parse_args(["import", *site, *map(str, arguments)])
            code = run_command(lambda: parsed.command(parsed))
            return Done(code, *capfd.readouterr())

        yield start


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return make_hospital(tmp_path / "hospital", THINGS, ROWS)
