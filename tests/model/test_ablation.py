"""Every switch of the study file trains: the ablation of the paper and its single-stream rivals are one-line studies."""

import numpy as np
import pytest

from csasn.measures.counts import metrics_from_counts
from csasn.study import read_study
from variants import SWITCHES

EVERY = SWITCHES | {"no dropout": {"dropout": 0.0}}
TASKS = {
    "subtype alone": {"subtype": {}},
    "subtype and malignancy": {"subtype": {}, "malignancy": {"weight": 0.5}},
    "a descriptor without any label": {"subtype": {}, "shape": {"weight": 0.1, "values": ["wider", "taller"]}},
}


def check_trained(federation):
    finished = federation.run()
    metrics = metrics_from_counts(finished.counts)
    assert metrics.macro_auroc is not None
    state = federation.contract.state
    before, after = state.read(federation.network), federation.directory.load().model
    moved = [np.abs(after[s.start : s.stop] - before[s.start : s.stop]).max() > 0 for s in state.shared]
    assert np.mean(moved) > 0.95


@pytest.mark.parametrize("name", EVERY)
def test_every_switch_trains(federate, name):
    check_trained(federate("run", model=EVERY[name], federation={"rounds": 1}))


@pytest.mark.parametrize("name", TASKS)
def test_every_set_of_tasks_trains(federate, name):
    check_trained(federate("run", tasks=TASKS[name], federation={"rounds": 1}))


@pytest.mark.parametrize("mode", ["none", "balanced", "static", "dynamic"])
def test_every_class_weighting_trains_and_only_dynamic_moves(federate, mode):
    federation = federate(
        "run", num_cases=60, class_weighting={"mode": mode}, federation={"rounds": 3}
    )  # five validation cases a class
    check_trained(federation)
    weights = [event["class_weights"] for event in federation.events("train-started")]
    assert (len({tuple(row) for row in weights}) > 1) == (mode == "dynamic")


def test_a_switch_is_one_word_on_the_command_line(tmp_path, write_small_hospitals):
    path = write_small_hospitals(tmp_path / "h")
    changed = read_study(path, ("model.vit=false", "tasks={subtype: {}}", "class_weighting.mode=static"))
    assert (changed.model.vit, list(changed.tasks), changed.class_weighting.mode) == (False, ["subtype"], "static")
