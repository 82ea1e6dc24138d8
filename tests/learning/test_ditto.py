"""Ditto: against a plain loop, and where personal models are worth more than a global one, own heads, or training alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from csasn.data.cases import TEST, TRAIN, SiteData
from csasn.errors import ConfigurationError
from csasn.learning.evaluation import case_logits
from csasn.learning.loss import multitask_loss
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.personal import train_ditto, tune_heads
from csasn.learning.training import LocalPlan, epoch_batches, load_images, load_labels, train_locally
from csasn.model.heads import TaskHeads
from csasn.model.network import build_network
from csasn.platform.randomness import generator
from training_scene import LinearNetwork, assert_equal_states, state, study, synthetic, terms_of

CPU = torch.device("cpu")
LAMBDA = 0.2


def ditto(schedule="cosine", **federation):
    federation = {"personal": "ditto", "personal_lambda": LAMBDA, **federation}
    return study(federation=federation, optimiser={"learning_rate": 0.01, "schedule": schedule})


def test_two_rounds_are_those_of_a_plain_loop():
    data, chosen = synthetic(num_cases=15, side=8), ditto("constant")
    theirs, last = LinearNetwork(), {}
    for current in (1, 2):
        received = LinearNetwork()
        received.body[1].weight.data += 0.1 * current  # another model in each round
        anchor = [parameter.detach().clone() for parameter in received.parameters()]
        if current == 1:
            theirs.load_state_dict(received.state_dict())
        optimiser = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=chosen.optimiser.weight_decay)
        for indices in epoch_batches(data, chosen, generator(chosen.seed, "train", "personal/centerA", current)):
            loss = multitask_loss(theirs(load_images(data, indices, CPU)), load_labels(data, indices, CPU), terms_of(chosen))
            for ours, w in zip(theirs.parameters(), anchor, strict=True):
                loss = loss + LAMBDA / 2 * ((ours - w) ** 2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        last = train_ditto(received, data, chosen, terms_of(chosen), LocalPlan("centerA", current, FedProx()), last)
        assert last.keys() == theirs.state_dict().keys()
        for name, tensor in theirs.state_dict().items():
            np.testing.assert_allclose(last[name], tensor.numpy(), rtol=1e-4, atol=1e-6)


def test_with_lambda_0_the_model_is_one_of_the_site_s_own_and_with_a_large_one_the_global_one():
    data, plan = synthetic(num_cases=15), LocalPlan("centerA", 1, FedProx())
    moved = []
    for strength in (0.0, 1e4):
        chosen = ditto(personal_lambda=strength)
        network, alone = build_network(chosen), build_network(chosen)
        start = state(network)
        found = train_ditto(network, data, chosen, terms_of(chosen), plan, {})
        train_locally(alone, data, chosen, terms_of(chosen), LocalPlan("personal/centerA", 1, FedProx()))
        if not strength:
            assert_equal_states(state(network), state(alone))
            assert all(np.array_equal(tensor, alone.state_dict()[name].numpy()) for name, tensor in found.items())
            assert any(name.endswith("running_mean") for name in found)
        moved.append(max(float((tensor.detach() - start[name]).abs().max()) for name, tensor in network.named_parameters()))
    assert moved[1] < moved[0]


class SmallNetwork(nn.Module):
    """A body of seven features, and heads that can be trained by themselves."""

    def __init__(self):
        super().__init__()
        self.body = LinearNetwork().body
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.heads = TaskHeads(7, {"subtype": 3, "malignancy": 2})

    def forward_classifier(self, x_B1SS, known=None):
        return self.body(x_B1SS)

    def forward(self, x_B1SS):
        return self.heads(self.body(x_B1SS))


def few_cases(number, turned, num_train=9, num_test=300):
    """A site with few training cases; where `turned`, it calls the second class by the name of the third."""
    random, patterns = np.random.default_rng(10 + number), np.random.default_rng(0).normal(0, 18, (3, 8, 8))
    look = np.arange(num_train + num_test) % 3
    pixels = (128 + patterns[look] + random.normal(0, 60, (len(look), 8, 8))).clip(0, 255).astype(np.uint8)
    classes = np.array([[0, 1, 2], [0, 2, 1]][turned])[look]
    split = np.where(np.arange(len(look)) < num_train, TRAIN, TEST).astype(np.int8)
    labels = {"subtype": classes, "malignancy": (classes > 0).astype(np.int64)}
    return SiteData(pixels, np.arange(len(look)), labels, split, classes, ())


def test_where_sites_differ_and_have_few_cases_each_ditto_decides_best():
    chosen = ditto(rounds=12, local_epochs=2)
    sites = {f"site{n}": few_cases(n, turned=n >= 4) for n in range(6)}
    terms, network = terms_of(chosen), SmallNetwork()
    alone = {name: copy.deepcopy(network) for name in sites}
    personal, last = {}, {name: {} for name in sites}
    for current in range(1, 13):
        trained = []
        for name, data in sites.items():
            plan = LocalPlan(name, current, FedProx())
            personal[name], local = copy.deepcopy(network), copy.deepcopy(network)
            last[name] = train_ditto(personal[name], data, chosen, terms, plan, last[name])
            train_locally(local, data, chosen, terms, plan)
            train_locally(alone[name], data, chosen, terms, plan)
            trained.append(state(local))
        network.load_state_dict({key: sum(one[key] for one in trained) / len(trained) for key in trained[0]})
    heads = {name: copy.deepcopy(network) for name in sites}
    for name, data in sites.items():
        tune_heads(heads[name], data, chosen, terms, name)

    def share_right(networks):
        cases = {name: data.cases(TEST) for name, data in sites.items()}
        found = [case_logits(networks[n], data, cases[n]).argmax(1) == data.class_C[cases[n]] for n, data in sites.items()]
        return np.mean(found)

    best = share_right(personal)
    for others in (dict.fromkeys(sites, network), heads, alone):
        assert best > share_right(others) + 0.01


def test_a_strength_without_ditto_is_refused():
    with pytest.raises(ConfigurationError, match="personal_lambda goes with personal ditto, not with heads"):
        study(federation={"personal": "heads", "personal_lambda": 0.5})
