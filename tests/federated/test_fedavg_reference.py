"""The rounds against FedAvg written anew, without the product's loss, rounding and sums."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from csasn.data.cases import load_site_data
from csasn.learning.augmentation import augment
from csasn.learning.rates import learning_rate
from csasn.learning.training import epoch_batches
from csasn.model.initial_weights import initial_network
from csasn.model.profiles import image_size
from csasn.platform.randomness import derive_seed, fast_generator, generator


def federated_averaging(federation, rounds):
    """FedAvg written anew: torch and NumPy, own loss, own rounding, own sums; only the streams of random numbers are shared."""
    study = federation.study
    network = initial_network(study)
    data = {name: load_site_data(study, site, image_size(study.model)) for name, site in federation.sites.items()}
    shares = {member.site: member.weight_units for member in federation.directory.membership.members}
    names = sorted(name for name, parameter in network.named_parameters() if parameter.requires_grad)
    weights = {name: network.state_dict()[name].clone() for name in names}
    own_statistics = {site: {k: v.clone() for k, v in network.state_dict().items() if "running_" in k} for site in data}
    ranges = dict.fromkeys(names, 0.05)
    left_over = {site: {name: np.zeros(weights[name].shape, np.float32) for name in names} for site in data}
    most = 2 ** (study.federation.upload_bits - 1) - 1 - len(data)
    for current in range(1, rounds + 1):
        sums = {name: np.zeros(weights[name].shape, np.int64) for name in names}
        for site, cases in data.items():
            network.load_state_dict({**weights, **own_statistics[site]}, strict=False)
            train_plainly(network, cases, study, site, current)
            tensors = network.state_dict()
            own_statistics[site] = {k: v.clone() for k, v in tensors.items() if "running_" in k}
            rounding = fast_generator(study.seed, "rounding", site, current)
            for name in names:
                update = (tensors[name] - weights[name]).numpy().astype(np.float64)
                wanted = update * shares[site] / 64 + left_over[site][name]
                size = ranges[name] / most
                limit = most * shares[site] // 64
                noise = np.concatenate(
                    [rounding.random(len(part)) for part in np.split(wanted.ravel(), range(1 << 18, wanted.size, 1 << 18))]
                )
                whole = np.clip(np.floor(wanted.ravel() / size + noise), -limit, limit).reshape(wanted.shape)
                left_over[site][name] = (wanted - whole * size).astype(np.float32)
                sums[name] += whole.astype(np.int64)
        steps = {name: (sums[name] * (ranges[name] / most * 64 / sum(shares.values()))).astype(np.float32) for name in names}
        weights = {name: weights[name] + torch.from_numpy(steps[name]) for name in names}
        middle = np.median([float(np.abs(step).max()) for step in steps.values()])
        ranges = {name: max(4 * max(float(np.abs(steps[name]).max()), middle), ranges[name] / 4) for name in names}
    return np.concatenate([weights[name].numpy().ravel() for name in names])


def train_plainly(network, data, study, site, current):
    rate = learning_rate(study.optimiser, current, study.federation.rounds)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=study.optimiser.weight_decay, fused=True)
    random = generator(study.seed, "train", site, current)
    torch.manual_seed(derive_seed(study.seed, "dropout", site, current) % 2**63)
    network.train()
    for indices in epoch_batches(data, study, random):
        pixels = torch.from_numpy(np.asarray(data.images_NHW[indices]))[:, None].float() / 255
        images = augment(pixels, study.augmentation, random).contiguous(memory_format=torch.channels_last)
        losses = F.cross_entropy(network(images)["subtype"], torch.from_numpy(data.labels_N["subtype"][indices]), reduction="none")
        optimiser.zero_grad()
        (losses.sum() / len(losses)).backward()
        optimiser.step()


PLAINLY = {"proximal_mu": 0.0, "rounds": 3, "batchnorm": "silo"}  # all rounds by batches
PLAIN = {"tasks": {"subtype": {"weight": 1.0}}, "class_weighting": {"mode": "none"}, "malignant": []}


@pytest.mark.parametrize("bits", [16, 32])
def test_zero_mu_equals_an_independent_fedavg(federate, bits):
    federation = federate("run", **PLAIN, federation={**PLAINLY, "upload_bits": bits})
    reference = federated_averaging(federation, 3)
    federation.run()
    found = federation.directory.load().model[: federation.contract.state.num_shared]
    assert found.tobytes() == reference.tobytes()


def test_one_site_equals_an_independent_loop_with_the_same_quantiser(federate):
    federation = federate("run", **PLAIN, sites=("centerA",), federation=PLAINLY)
    reference = federated_averaging(federation, 3)
    federation.run()
    found = federation.directory.load().model[: federation.contract.state.num_shared]
    assert found.tobytes() == reference.tobytes()
