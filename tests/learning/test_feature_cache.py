"""Frozen branches: they never move, and their maps are computed once where no augmentation changes the images."""

import numpy as np
import pytest
import torch

from csasn.data.cases import load_site_data
from csasn.federated.weighting import class_weights
from csasn.learning.evaluation import image_logits
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.loss import LossTerms
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.training import LocalPlan, train_locally
from csasn.model.initial_weights import initial_network
from csasn.model.state import StateLayout

STILL = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}
BOTH = ["efficientnet", "vit"]


def prepared(federate, frozen, **changes):
    federation = federate("run", model={"frozen": frozen}, **changes)
    federation.directory.close()
    study = federation.study
    data = load_site_data(study, federation.sites["centerA"], 32)
    return study, initial_network(study), data


def train(study, network, data):
    terms = LossTerms.of(study, class_weights(study.class_weighting, np.array([9, 9, 9]), []))
    train_locally(network, data, study, terms, LocalPlan("centerA", 1, FedProx(proximal_mu=0.01)))
    return network


@pytest.mark.parametrize("frozen", [["efficientnet"], ["vit"], BOTH])
def test_known_maps_give_the_network_that_images_give(federate, frozen):
    study, network, data = prepared(federate, frozen, augmentation=STILL)
    other = initial_network(study)
    known = with_frozen_maps(network, data, study)
    assert set(known.maps_N) == set(frozen)
    indices = np.arange(len(data.images_NHW))
    np.testing.assert_allclose(image_logits(network, known, indices), image_logits(network, data, indices), atol=2e-5)
    layout = StateLayout.of(network, "silo")
    trained = [layout.read(train(study, *pair)) for pair in ((network, known), (other, data))]
    moved = np.linalg.norm(trained[1] - layout.read(initial_network(study)))
    assert np.linalg.norm(trained[0] - trained[1]) < 0.02 * moved  # Adam enlarges differences of the last digit


@pytest.mark.parametrize("frozen", [["efficientnet"], ["vit"]])
def test_a_frozen_branch_never_moves_and_is_never_sent(federate, frozen):
    study, network, data = prepared(federate, frozen)
    branch = getattr(network, frozen[0])
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    train(study, network, data)
    assert all(torch.equal(before[name], tensor) for name, tensor in branch.state_dict().items())
    shared = {segment.name for segment in StateLayout.of(network, "shared").shared}
    assert not [name for name in shared if name.startswith(f"{frozen[0]}.")]


def test_augmentation_keeps_the_images(federate):
    study, network, data = prepared(federate, BOTH)
    assert with_frozen_maps(network, data, study) is data


def test_a_federation_of_frozen_branches_runs_and_never_computes_a_map_twice(federate, monkeypatch):
    federation = federate("run", model={"frozen": BOTH}, augmentation=STILL, federation={"rounds": 3})
    calls = []
    branch = type(federation.network.vit)  # of both
    forward = branch.forward
    monkeypatch.setattr(branch, "forward", lambda self, x: (calls.append(len(x)), forward(self, x))[1])
    finished = federation.run()
    assert sum(calls) == 2 * sum(len(worker.learner.load_data().images_NHW) for worker in federation.workers.values())
    assert finished.whole
