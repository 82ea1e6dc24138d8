"""A study goes on from the model of a finished run: what goes on, what does not, and what is refused."""

import json

import numpy as np
import pytest

from csasn.errors import ModelError
from csasn.federated.messages import Kind
from csasn.federated.weighting import class_weights
from csasn.model.network import build_network
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.storage import file_sha256
from csasn.study import Continues, Study
from kills import KilledError, kill_at
from server.run.continuation import CONTINUATION, continued, find_start
from server.run.outcome import write_outcome, write_report

MOMENTUM = {"server_rule": "fedavgm", "rounds": 2}


@pytest.fixture(scope="module")
def parent(tmp_path_factory, write_small_hospitals, local_federation):
    """A finished run whose rule remembers, with its report."""
    folder = tmp_path_factory.mktemp("parent")
    write_small_hospitals(folder / "hospitals", num_cases=12, federation=MOMENTUM)
    run = local_federation(folder / "hospitals", folder / "run")
    finished = run.run()
    write_outcome(run.directory, run.contract, run.network, finished)
    write_report(run.directory, "local")
    return run, finished


@pytest.fixture
def child(parent, federate):
    """child(**changes of the study) -> a run that goes on from it."""

    def make(name="child", of=None, **changes):
        run = of or parent[0]
        model = continued(run.study, run.path).continues.model
        federation = MOMENTUM | changes.pop("federation", {})
        return federate(
            name, start=run.path / CONTINUATION, num_cases=12, continues={"model": model}, federation=federation, **changes
        )

    return make


def test_model_memory_and_class_weights_go_on(parent, child):
    (before, finished), run = parent, child()
    run.run()
    asked = [request for _, request in run.requests if request.kind in (Kind.MEASURE, Kind.TRAIN)]
    np.testing.assert_array_equal(asked[0].model.whole, finished.chosen.model)
    weighting = next(each.weighting for each in asked if each.kind is Kind.TRAIN)
    np.testing.assert_array_equal(weighting.history_R3K, np.stack(finished.chosen.history))
    expected = class_weights(before.study.class_weighting, finished.chosen.histogram_K, finished.chosen.history).omega_K
    np.testing.assert_array_equal(weighting.omega_K, expected)
    beginning = run.beginning()
    assert beginning.memory.keys() == finished.chosen.memory.keys()
    assert all(np.array_equal(beginning.memory[name], array) for name, array in finished.chosen.memory.items())
    assert run.state_hash() != before.state_hash()


def test_another_rule_of_the_server_begins_with_nothing_remembered(child):
    assert child(federation={"server_options": {"momentum": 0.5}}).beginning().memory == {}
    assert child("plain", federation={"server_rule": "fedavg"}).beginning().memory == {}


def test_report_and_model_tell_all_runs_before_oldest_first(parent, child):
    before, run = parent[0], child()
    write_outcome(run.directory, run.contract, build_network(run.study), run.run())
    report = write_report(run.directory, "local")
    assert [(each.study_hash, each.rounds) for each in report.lineage] == [(before.study.study_hash, parent[1].chosen.round)]
    assert json.loads((run.path / "model.json").read_text())["lineage"] == [each.model_dump() for each in report.lineage]
    grandchild = child("grandchild", of=run)
    grandchild.run()
    hashes = [each.study_hash for each in grandchild.directory.events()[0].lineage]
    assert hashes == [before.study.study_hash, run.study.study_hash]


def test_a_run_that_is_resumed_does_not_begin_anew(child, federate):
    run = child("whole")
    run.run()
    killed = child("killed", tamper=kill_at(Kind.TRAIN, 2))
    with pytest.raises(KilledError):
        killed.run()
    resumed = federate("killed")
    resumed.run()
    assert resumed.state_hash() == run.state_hash()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": ["benign", "FTC", "PTC"]}, "classes are"),
        ({"tasks": {"subtype": {"weight": 1.0}}}, "tasks are"),
        ({"model": {"profile": "csasn-test", "image_size": 32, "multiscale": False}}, "another network"),
    ],
)
def test_a_model_of_other_classes_tasks_or_network_is_refused(parent, tmp_path, changes, says):
    run = parent[0]
    study = continued(run.study, run.path)
    other = Study.model_validate_json(json.dumps(study.model_dump(mode="json") | changes))
    with pytest.raises(ModelError, match=says):
        find_start(other, tmp_path / "study.yaml", run.path)


def test_a_file_that_is_missing_another_or_damaged_is_refused(parent, tmp_path):
    run = parent[0]
    study = continued(run.study, run.path)
    with pytest.raises(ModelError, match="does not exist") as caught:
        find_start(study, tmp_path / "study.yaml")
    assert "--continue RUN" in caught.value.hint
    arrays, facts = load_arrays(run.path / CONTINUATION)
    save_arrays(tmp_path / "start.safetensors", arrays | {"model": arrays["model"] + 1}, facts)
    with pytest.raises(ModelError, match="the study continues"):
        find_start(study, tmp_path / "study.yaml")
    forged = study.model_copy(update={"continues": Continues(model=file_sha256(tmp_path / "start.safetensors"))})
    with pytest.raises(ModelError, match="another network"):  # its hash is not that of its values
        find_start(forged, tmp_path / "study.yaml")
    assert find_start(study.of_survey, tmp_path / "nowhere/study.yaml") is None
    with pytest.raises(ModelError, match="holds no continuation"):
        continued(run.study, tmp_path)
