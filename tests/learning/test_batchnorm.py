"""The BatchNorm modes in rounds: what is shared, what stays at a site, and with which statistics a model is validated."""

import numpy as np
import pytest

from csasn.data.cases import VALIDATION, load_site_data
from csasn.federated.messages import Kind
from csasn.federated.weighting import class_weights
from csasn.finished.weights import load_model
from csasn.learning.evaluation import count_split, image_logits
from csasn.learning.normalisation import apply_moments, measure_moments
from csasn.model.initial_weights import initial_network
from csasn.model.profiles import image_size
from csasn.model.state import normalisation_layers, own_tensors, read_tensors
from server.run.outcome import write_outcome
from server.run.run_directory import RunDirectory


def test_shared_statistics_are_averaged_and_silo_ones_never_leave(federate):
    silo, shared = federate("silo"), federate("shared", federation={"batchnorm": "shared"})
    names = {kind: {s.name for s in f.contract.state.shared} for kind, f in (("silo", silo), ("shared", shared))}
    assert not any("running_" in name for name in names["silo"])
    assert any(name.endswith("running_var") for name in names["shared"])
    shared.run()
    state = shared.contract.state
    moved = shared.directory.load().model != state.read(shared.network)
    assert all(moved[s.start : s.stop].any() for s in state.shared if s.name.endswith("running_mean"))
    silo.run()
    fixed = slice(silo.contract.state.num_shared, None)
    assert silo.directory.load().model[fixed].tobytes() == silo.contract.state.read(silo.network)[fixed].tobytes()


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.VALIDATE])
def test_a_site_validates_what_it_received_with_statistics_of_those_weights(federate, kind):
    """Not with those that its own training left, which are of other weights."""
    answered = {}

    def listen(site, request, answer):
        if request.kind is kind:  # of training, the last round
            answered[site] = request, answer, federation.workers[site].learner._model.copy()
        return answer

    federation = federate("run", tamper=listen)
    federation.run()
    for site, (request, answer, model) in answered.items():
        network, study = initial_network(federation.study), federation.study
        federation.contract.state.write(network, model)
        data = load_site_data(study, federation.sites[site], image_size(study.model))
        apply_moments(network, measure_moments(network, data, study, site))
        weights = class_weights(study.class_weighting, request.weighting.histogram_K, list(request.weighting.history_R3K))
        found = federation.contract.counts[kind].unpack(answer.counts)
        for name, expected in count_split(network, data, VALIDATION, study, weights).items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert len(answered) == 3


@pytest.mark.parametrize("mode", ["silo", "shared", "fedbn", "group", "frozen"])
def test_every_batchnorm_mode_trains_and_finishes_with_a_model_that_evaluates(federate, mode):
    federation = federate("run", federation={"rounds": 2, "batchnorm": mode})
    finished = federation.run()
    write_outcome(RunDirectory(federation.path), federation.contract, federation.network, finished)
    network, info = load_model(federation.path)
    data = federation.workers["centerA"].learner.load_data()
    assert np.isfinite(image_logits(network, data, np.arange(len(data.images_NHW)))).all()
    assert info.statistics


@pytest.mark.parametrize(
    ("mode", "kept"), [("silo", ("running_mean", "running_var")), ("fedbn", ("running_mean", "running_var", "weight", "bias"))]
)
def test_what_a_mode_keeps_at_a_site_differs_between_sites_and_never_leaves(federate, mode, kept):
    federation = federate("run", federation={"rounds": 2, "batchnorm": mode})
    federation.run()
    accepted = federation.directory.load().accepted
    own = {site: worker.kept.left(accepted).own for site, worker in federation.workers.items()}
    layers = {name for name, _ in normalisation_layers(federation.network)}
    assert set(own["centerA"]) == {f"{layer}.{name}" for layer in layers for name in kept}
    assert not {segment.name for segment in federation.contract.state.shared} & set(own["centerA"])
    assert any((own["centerA"][name] != own["centerB"][name]).any() for name in own["centerA"])


def test_frozen_statistics_never_move(federate):
    federation = federate("run", federation={"batchnorm": "frozen"})
    federation.run()
    before = read_tensors(initial_network(federation.study), own_tensors(federation.network, "silo"))
    after = read_tensors(federation.workers["centerA"].learner.network, before)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_group_normalisation_has_no_statistics_and_keeps_the_pretrained_affine_parameters(federate):
    federation = federate("run", federation={"batchnorm": "group"})
    assert not list(normalisation_layers(federation.network))
    assert not any("running_" in name for name in federation.network.state_dict())
    federation.directory.close()
