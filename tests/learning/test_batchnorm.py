"""The BatchNorm modes in rounds: what is shared, and with which statistics a model is validated, tested and released."""

import numpy as np
import pytest

from csasn.data.cases import TEST, VALIDATION, load_site_data
from csasn.errors import ProtocolError
from csasn.federated.messages import Kind, Moments
from csasn.federated.weighting import ClassWeights, class_weights
from csasn.finished.weights import load_model
from csasn.learning.evaluation import count_split, labelled_logits, right_cases
from csasn.learning.normalisation import apply_moments, measure_moments, num_measured
from csasn.model.initial_weights import initial_network
from csasn.model.profiles import image_size
from csasn.model.state import normalisation_layers, read_tensors, statistics_of
from server.run.outcome import write_outcome
from server.run.run_directory import RunDirectory


def test_shared_statistics_are_averaged_and_silo_ones_are_measured_anew(federate):
    silo, shared = federate("silo"), federate("shared", federation={"batchnorm": "shared"})
    names = {kind: {s.name for s in f.contract.state.shared} for kind, f in (("silo", silo), ("shared", shared))}
    assert not any("running_" in name for name in names["silo"])
    assert any(name.endswith("running_var") for name in names["shared"])
    for federation in (shared, silo):
        federation.run()
        state = federation.contract.state
        moved = federation.directory.load().model != state.read(federation.network)
        running = [s for s in (*state.shared, *state.fixed) if "running_" in s.name]
        assert all(moved[s.start : s.stop].any() for s in running)
    kinds = [event.event for event in silo.directory.events() if event.event.endswith("-started")]
    rounds = silo.study.federation.rounds
    assert kinds == [
        "hello-started",
        *["measure-started", "train-started"] * rounds,
        "measure-started",
        "validate-started",
        "finish-started",
    ]
    assert "measure-started" not in [event.event for event in shared.directory.events()]


def measured(federation, model):
    """The network with this model, and the statistics that all sites together measure of it."""
    network, study = initial_network(federation.study), federation.study
    federation.contract.state.write(network, model)
    sums, units = [], federation.contract.membership.weight_units
    for site, of_site in federation.sites.items():
        data = load_site_data(study, of_site, image_size(study.model))
        sums.append(measure_moments(network, data, study, site, num_measured(units[site])))
    apply_moments(network, {name: sum(blocks[name] for blocks in sums) for name in sums[0]})
    return network


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.VALIDATE, Kind.FINISH])
def test_what_sites_judge_is_the_model_with_the_statistics_of_all_sites_that_it_is_released_with(federate, kind):
    """Not with those that a site's own training left, and not with those of its own cases."""
    answered = {}

    def listen(site, request, answer):
        if request.kind is kind:  # of training, the last round
            answered[site] = request, answer, federation.workers[site].learner._model.copy()
        return answer

    federation = federate("run", tamper=listen)
    federation.run()
    for site, (request, answer, model) in answered.items():
        network, study = measured(federation, model), federation.study
        assert federation.contract.state.read(network).tobytes() == model.tobytes()
        data = load_site_data(study, federation.sites[site], image_size(study.model))
        weights = class_weights(study.class_weighting, request.weighting.histogram_K, list(request.weighting.history_R3K))
        found = federation.contract.counts[kind].unpack(answer.counts)
        split = TEST if kind is Kind.FINISH else VALIDATION
        for name, expected in count_split(network, data, split, study, weights).items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert len(answered) == 3


@pytest.mark.parametrize("mode", ["fixbn", "silo", "shared", "group", "frozen"])
def test_the_final_figures_are_those_of_the_released_files(federate, mode, monkeypatch):
    """With class weights that differ, which are in the bias of the released head."""
    monkeypatch.setattr("csasn.federated.class_weightings.dynamic.MIN_VALIDATION_CASES", 1)
    federation = federate("run", federation={"rounds": 2, "batchnorm": mode})
    finished = federation.run()
    directory = RunDirectory(federation.path)
    write_outcome(directory, federation.contract, federation.network, finished)
    network, info = load_model(federation.path)
    study, as_it_is = info.study, ClassWeights.finished(np.array(info.adjustment))
    counted = [
        count_split(network, load_site_data(study, site, info.image_size), TEST, study, as_it_is)
        for site in federation.sites.values()
    ]
    for name in counted[0]:
        np.testing.assert_array_equal(finished.counts[name], sum(blocks[name] for blocks in counted), err_msg=name)
    assert info.statistics
    assert np.ptp(info.adjustment) > 0.01


def test_beside_them_stand_figures_with_statistics_of_the_sites_own_on_the_same_cases(federate):
    federation = federate("run", federation={"rounds": 2})
    finished = federation.run()
    counts, rights = finished.counts, np.zeros((2, 2), np.int64)
    for site, of_site in federation.sites.items():
        study = federation.study
        network, _ = load_released(federation, finished)
        data = load_site_data(study, of_site, image_size(study.model))
        released, classes = labelled_logits(network, data, TEST, study)
        apply_moments(network, measure_moments(network, data, study, site))
        own, _ = labelled_logits(network, data, TEST, study)
        for a, b in zip(right_cases(released, classes), right_cases(own, classes), strict=True):
            rights[int(a), int(b)] += 1
    assert counts["paired"].tolist() == [rights[0, 1], rights[1, 0]]
    assert np.array_equal(counts["own_confusion"].sum(axis=1), counts["confusion"].sum(axis=1))
    assert np.trace(counts["own_confusion"]) - np.trace(counts["confusion"]) == rights[0, 1] - rights[1, 0]


def load_released(federation, finished):
    """The released model of a run, written where nothing is yet."""
    if not (federation.path / "model.json").exists():
        write_outcome(RunDirectory(federation.path), federation.contract, federation.network, finished)
    return load_model(federation.path)


@pytest.mark.parametrize("sums", [np.zeros(0, np.int64), np.ones(5, np.int64)])
def test_moments_that_nobody_asked_for_are_refused(federate, sums):
    federation = federate("run", federation={"batchnorm": "frozen"})
    with pytest.raises(ProtocolError, match="no model of this study is measured"):
        federation.contract.move_(federation.contract.state.read(federation.network), Moments(sums))
    federation.directory.close()


def test_frozen_statistics_never_move(federate):
    federation = federate("run", federation={"batchnorm": "frozen"})
    federation.run()
    before = read_tensors(initial_network(federation.study), statistics_of(federation.network))
    after = read_tensors(federation.workers["centerA"].learner.network, before)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_group_normalisation_has_no_statistics_and_keeps_the_pretrained_affine_parameters(federate):
    federation = federate("run", federation={"batchnorm": "group"})
    assert not list(normalisation_layers(federation.network))
    assert not any("running_" in name for name in federation.network.state_dict())
    federation.directory.close()
