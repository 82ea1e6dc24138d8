"""csasn/platform/plain_text.py: what the coordinator says never reaches a terminal as it is."""

import io
import sys
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from client.commands.agent import StatusLine
from client.doctor.doctor import Result
from client.doctor.findings import Finding
from csasn import __version__
from csasn.errors import NetworkError
from csasn.platform.command import print_error
from csasn.platform.terminal import say
from csasn.trust.enrolment import Kit
from csasn.trust.facts import CoordinatorFacts

HOSTILE = "\x1b]0;x\x07\x1b[31mred\x9b2J\u202eend\n"
GOOD = {
    "study_name": "thyroid",
    "study_hash": "a" * 64,
    "software_version": __version__,
    "time": datetime.now(UTC),
    "phase": "ready",
}


@pytest.mark.parametrize("key", ["study_name", "software_version", "run", "run_status"])
@pytest.mark.parametrize("value", [HOSTILE, "\x1b[31m", "a\nb", "a\u202eb", "a\u2028b", "x" * 300])
def test_what_a_coordinator_says_of_itself_is_refused_where_a_terminal_would_act_on_it(key: str, value: str) -> None:
    CoordinatorFacts(**GOOD)
    with pytest.raises(ValidationError):
        CoordinatorFacts(**{**GOOD, key: value})


def test_a_run_may_be_called_as_a_folder_may() -> None:
    assert CoordinatorFacts(**GOOD, run="Läufe 2026 (β)", run_status="complete").run == "Läufe 2026 (β)"


def test_a_kit_of_a_version_that_is_none_is_refused() -> None:
    kit = {"site": "centerA", "address": "10.1.2.3:9443", "study_hash": "a" * 64, "files": {}}
    Kit(**kit, software_version=__version__)
    with pytest.raises(ValidationError):
        Kit(**kit, software_version="1.0\x1b[31m")


def test_the_doctor_prints_no_command_to_the_terminal() -> None:
    for status in ("ok", "warning", "failed", "skipped"):
        for line in Result("study", Finding(status, f"runs {HOSTILE}", HOSTILE)).lines():
            assert line.isprintable()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_line_of_a_site_is_one_line(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", out)
    StatusLine()(f"the study is finished: {HOSTILE}")
    said = out.getvalue().removeprefix("\r\x1b[2K").removesuffix("\n")
    assert said.isprintable()


def test_an_error_is_two_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(NetworkError(f"it said {HOSTILE}", HOSTILE))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_what_is_approved_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"study {HOSTILE}", "second")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
