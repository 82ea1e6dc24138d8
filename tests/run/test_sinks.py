"""Sinks of events: programs from outside the package that see each event of a run, on every engine."""

import json
import logging
import sys

import pytest

from csasn.errors import ConfigurationError
from server.run.run_directory import RunDirectory
from server.run.sinks import VARIABLE

TOY = '''
def count(path):
    """Keeps how often each kind of event was told, beside the run."""
    seen = {}

    def tell(event):
        seen[event.event] = seen.get(event.event, 0) + 1
        (path.parent / "seen.txt").write_text(repr(seen))

    return tell


def break_at_once(path):
    raise OSError("secret of the sink")


def break_later(path):
    def tell(event):
        raise ValueError("secret of the sink")

    return tell
'''


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A package of someone else, with three sinks, installed."""
    folder = tmp_path / "installed"
    (folder / "toy_sinks-1.0.dist-info").mkdir(parents=True)
    (folder / "toy_sinks.py").write_text(TOY)
    (folder / "toy_sinks-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: toy-sinks\nVersion: 1.0\n")
    names = {"counted": "count", "broken-at-once": "break_at_once", "broken-later": "break_later"}
    points = "".join(f"{name} = toy_sinks:{function}\n" for name, function in names.items())
    (folder / "toy_sinks-1.0.dist-info/entry_points.txt").write_text(f"[csasn.event_sinks]\n{points}")
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("toy_sinks", None)


@pytest.fixture
def reopen(federate, toys, monkeypatch):
    """Opens the directory of a run anew, as the operator's environment says."""

    def reopen(names):
        federation = federate("run", federation={"rounds": 1})
        federation.directory.close()
        monkeypatch.setenv(VARIABLE, names)
        federation.directory = federation.coordinator.directory = RunDirectory(federation.path)
        return federation

    return reopen


def test_a_sink_from_outside_sees_every_event_of_a_run(reopen):
    federation = reopen("counted")
    federation.run()
    lines = [json.loads(line)["event"] for line in (federation.path / "events.jsonl").read_text().splitlines()]
    seen = (federation.path.parent / "seen.txt").read_text()
    assert seen == repr({kind: lines.count(kind) for kind in dict.fromkeys(lines)})
    assert "round-finished" in lines


def test_a_sink_that_raises_is_told_of_once_and_ends_no_run(reopen, caplog):
    with caplog.at_level(logging.WARNING):
        federation = reopen("broken-later, broken-at-once,counted")
        federation.run()
    assert federation.events("round-finished")
    assert (federation.path.parent / "seen.txt").exists()
    told = [record.getMessage() for record in caplog.records if record.name == "server.run.sinks"]
    assert told == [
        "event sink broken-at-once raised OSError, and gets no more events of this run",
        "event sink broken-later raised ValueError, and gets no more events of this run",
    ]


def test_a_sink_that_nobody_offers_is_refused_with_those_that_are_there(reopen):
    with pytest.raises(ConfigurationError, match="there is no event sink 'count'") as refused:
        reopen("count")
    assert "broken-at-once, broken-later, counted, mlflow, tensorboard" in refused.value.message


def test_without_the_variable_no_sink_is_asked(reopen):
    federation = reopen("")
    federation.run()
    assert not (federation.path.parent / "seen.txt").exists()
