"""A small site, networks to train on it, and what they were given."""

import numpy as np
import torch
from torch import nn

from csasn.data.cases import TEST, TRAIN, VALIDATION, SiteData
from csasn.federated.weighting import class_weights
from csasn.learning.loss import LossTerms
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.training import LocalPlan, train_locally
from csasn.platform.configuration import validate
from csasn.study import Study

CLASSES = ("benign", "PTC", "FTC")
NO_CHANGE = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}


def study(model=None, federation=None, optimiser=None, **changes):
    values = {
        "name": "small",
        "classes": list(CLASSES),
        "malignant": ["PTC", "FTC"],
        "tasks": {"subtype": {}, "malignancy": {"weight": 0.5}},
        "model": {"profile": "csasn-test", "image_size": 32, **(model or {})},
        "federation": {"sites": ["centerA", "centerB"], "rounds": 4, **(federation or {})},
        "optimiser": {"batch_size": 4, **(optimiser or {})},
        "augmentation": NO_CHANGE,
        **changes,
    }
    return validate(Study, values, "study.yaml")


def synthetic(num_cases=9, images_per_case=(1, 3, 2), side=32, seed=0, splits=(TRAIN, TRAIN, VALIDATION, TRAIN, TEST)):
    """A site whose images all differ; splits and numbers of images repeat over the cases."""
    counts = np.resize(images_per_case, num_cases)
    class_C = np.arange(num_cases) % len(CLASSES)
    case_N = np.repeat(np.arange(num_cases), counts)
    images = np.random.default_rng(seed).integers(1, 256, (len(case_N), side, side)).astype(np.uint8)
    labels = {"subtype": class_C[case_N], "malignancy": (class_C[case_N] > 0).astype(np.int64)}
    return SiteData(images, case_N, labels, np.resize(splits, num_cases).astype(np.int8), class_C, ())


class LinearNetwork(nn.Module):
    """Two linear layers and two heads: small enough to train beside an independent loop."""

    def __init__(self, dropout=0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Tanh(), nn.Dropout(dropout))
            self.heads = nn.ModuleDict({"subtype": nn.Linear(7, 3), "malignancy": nn.Linear(7, 2)})

    def forward(self, x_B1SS):
        features_BD = self.body(x_B1SS)
        return {task: head(features_BD) for task, head in self.heads.items()}


def terms_of(chosen, histogram=(20, 30, 15)):
    return LossTerms.of(chosen, class_weights(chosen.class_weighting, np.array(histogram), []))


def train(network, data, chosen, site="centerA", current_round=1, mu=0.0, **plan):
    return train_locally(network, data, chosen, terms_of(chosen), LocalPlan(site, current_round, FedProx(proximal_mu=mu), **plan))


def state(network):
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def assert_equal_states(one, other):
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def seen_batches(network, data):
    """What the network is given from now on: for each call, the indices of its images, found by their pixels."""
    known = {picture.tobytes(): index for index, picture in enumerate(data.images_NHW)}
    batches = []

    def record(_, inputs):
        pixels = (inputs[0][:, 0] * 255).round().to(torch.uint8).numpy()
        batches.append([known[picture.tobytes()] for picture in pixels])

    network.register_forward_pre_hook(record)
    return batches
