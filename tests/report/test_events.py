"""Events as types and the schemas of what is written; and that old files are read."""

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from csasn.report.events import RoundFinished
from csasn.report.schemas import FOLDER, SCHEMAS, schema_text
from reports import BASELINES_OF_TWO, told, whole_report
from sample_reports import sample_report
from server.run.outcome import write_outcome, write_report
from server.run.run_directory import read_events


@pytest.fixture
def finished(federate):
    federation = federate("run", federation={"rounds": 2})
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    federation.directory.event("run-finished")
    write_report(federation.directory, "local")
    return federation.path


def schema(name):
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_files_are_those_of_the_types(name):
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == schema_text(name), "python -m csasn.report.schemas"
    Draft202012Validator.check_schema(json.loads(schema_text(name)))


def test_the_files_of_a_real_run_hold_to_the_schemas_and_are_read_as_they_were_written(finished):
    schema("report").validate(json.loads((finished / "report.json").read_text()))
    lines = (finished / "events.jsonl").read_text().splitlines()
    assert {"hello-started", "hello", "train-started", "round-finished", "evaluated", "finish", "outcome", "run-finished"} <= {
        json.loads(line)["event"] for line in lines
    }
    for line in lines:
        schema("event").validate(json.loads(line))
    assert [json.dumps(event.as_json()) for event in read_events(finished)] == lines


def test_the_schema_of_the_report_refuses_what_is_none():
    report = whole_report(BASELINES_OF_TWO)
    schema("report").validate(report)
    assert not schema("report").is_valid(report | {"status": "splendid"})
    assert not schema("report").is_valid({key: value for key, value in report.items() if key != "study_hash"})
    assert not schema("event").is_valid({"event": "round-finished", "round": "one"})
    assert schema("report").is_valid(sample_report())


def test_an_event_of_an_unknown_kind_or_without_its_facts_is_never_written(federate):
    directory = federate("run").directory
    for name, facts in (("round-forgotten", {}), ("round-undone", {"round": 1}), ("waiting", {"sites": {"centerA": 3}})):
        with pytest.raises(ValidationError):
            directory.event(name, **facts)
    assert read_events(directory.path) == []


def test_lines_of_older_and_newer_versions_are_read_as_far_as_they_are_known(tmp_path):
    lines = [
        {"event": "round-finished", "round": 1, "later": [1]},
        {"event": "from-the-future"},
        {"event": "hello", "histogram": [5]},
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "fin')
    assert [event.event for event in read_events(tmp_path)] == ["round-finished", "hello"]
    (finished,) = told([{"event": "round-finished", "round": 1}])
    assert isinstance(finished, RoundFinished)
    assert (finished.absent, finished.steps, finished.train_loss) == ({}, 0, None)


def test_a_text_that_is_no_unicode_is_written_all_the_same(federate):
    """As of the name of a file: an error that names it must not hide behind another error."""
    directory = federate("run").directory
    directory.event("failed", error=b"cannot read \xff.png".decode("utf-8", "surrogateescape"))
    (failed,) = read_events(directory.path)
    assert failed.error == "cannot read ?.png"
