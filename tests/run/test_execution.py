"""What a run's events say of how its execution ended, on every engine."""

from types import SimpleNamespace

import pytest

from csasn.errors import RunError, StorageError
from server.run import execution
from server.run.execution import carry_out


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A run directory without files: `done` is what was done to it, in order."""
    done = []
    monkeypatch.setattr(execution, "write_report", lambda _, engine: done.append(f"report of {engine}") or {"status": "x"})
    event = lambda name, **facts: done.append((name, *facts.values()))  # noqa: E731 - as RunDirectory.event
    return SimpleNamespace(
        path=tmp_path, done=done, event=event, drop_report=lambda: done.append("dropped"), close=lambda: done.append("closed")
    )


def test_a_run_that_comes_to_its_end_says_so_and_has_a_report(directory):
    assert carry_out(directory, "local", lambda: directory.done.append("federated"), lambda: directory.done.append("finished")) == {
        "status": "x"
    }
    assert directory.done == ["dropped", "federated", "finished", ("run-finished",), "report of local", "closed"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunError("it cannot go on", "why"), [("failed", "it cannot go on")]),
        (ValueError("a foreign text"), [("failed", "ValueError")]),
        (KeyboardInterrupt(), [("stopped",)]),
        (StorageError("cannot write x: no space left on device", "free some"), []),  # it goes on once there is room
    ],
)
def test_however_it_ends_there_is_a_report_and_the_lock_is_given_back(directory, error, said):
    def federate():
        raise error

    with pytest.raises(type(error)):
        carry_out(directory, "deployment", federate)
    assert directory.done == ["dropped", *said, "report of deployment", "closed"]


def test_a_run_with_an_outcome_asks_no_site_again(directory, monkeypatch):
    monkeypatch.setattr(execution, "has_outcome", lambda _: True)
    carry_out(directory, "local", lambda: pytest.fail("it federated"))
