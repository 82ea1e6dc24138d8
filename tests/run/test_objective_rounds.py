"""FedDyn and SCAFFOLD through real rounds with masked sums: against a plain loop of their equations, and over crashes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from client.worker.kept import read_left
from csasn.data.cases import load_site_data
from csasn.errors import ConfigurationError, ProtocolError
from csasn.federated.aggregate import check_bound
from csasn.federated.messages import Answer, Kind, Train
from csasn.learning.training import epoch_batches
from csasn.model.initial_weights import initial_network
from csasn.platform.randomness import generator
from csasn.privacy.contract import Contract
from kills import KilledError, kill_at

NO_CHANGE = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}
PLAIN = {"tasks": {"subtype": {"weight": 1.0}}, "class_weighting": {"mode": "none"}, "malignant": [], "augmentation": NO_CHANGE}
RATE, DECAY, ALPHA, ROUNDS = 0.02, 0.01, 0.5, 4
SGD = {"kind": "sgd", "learning_rate": RATE, "weight_decay": DECAY, "schedule": "constant"}
SECURE = {"secure_aggregation": True, "local_epochs": 2, "rounds": ROUNDS, "loss_guard": None, "proximal_mu": 0.0}
NAMES = {
    "fedprox": {},
    "feddyn": {"local_objective": "feddyn", "server_rule": "feddyn", "local_options": {"alpha": ALPHA}},
    "scaffold": {"local_objective": "scaffold"},
}
REMEMBER = ["feddyn", "scaffold"]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.001)


def begun(federate, objective, name="run", tamper=None):
    study = {**PLAIN, "optimiser": SGD, "model": {"dropout": 0.0, "efficientnet": False}, "federation": SECURE | NAMES[objective]}
    return federate(name, tamper=tamper, **study)


class Plain:
    """The equations anew, with tensors by name, and without rounding, masks or sums of integers."""

    def __init__(self, federation, objective):
        self.study, self.objective = federation.study, objective
        self.network = initial_network(self.study)
        self.shares = {member.site: member.weight_units / 64 for member in federation.directory.membership.members}
        self.data = {name: load_site_data(self.study, site, 32) for name, site in federation.sites.items()}
        self.w = {name: p.detach().clone() for name, p in self.network.named_parameters() if p.requires_grad}
        zeros = {name: torch.zeros_like(value) for name, value in self.w.items()}
        self.local = {site: dict(zeros) for site in self.data}  # h_k, or c_k
        self.shared = dict(zeros)  # h, or c

    def train(self, site, current):
        """Weights and number of steps after the local steps of a site."""
        self.network.load_state_dict(self.w, strict=False)
        self.network.train()
        random, steps, parameters = generator(self.study.seed, "train", site, current), 0, dict(self.network.named_parameters())
        for _ in range(2):
            for indices in epoch_batches(self.data[site], self.study, random):
                pixels = torch.from_numpy(np.asarray(self.data[site].images_NHW[indices]))[:, None].float() / 255
                logits = self.network(pixels.contiguous(memory_format=torch.channels_last))["subtype"]
                loss = F.cross_entropy(logits, torch.from_numpy(self.data[site].labels_N["subtype"][indices]))
                gradients = torch.autograd.grad(loss, [parameters[name] for name in self.w])
                with torch.no_grad():
                    for name, gradient in zip(self.w, gradients, strict=True):
                        step = gradient + DECAY * parameters[name] + self.added(site, name, parameters[name])
                        parameters[name] -= RATE * step
                steps += 1
        return {name: parameters[name].detach().clone() for name in self.w}, steps

    def added(self, site, name, value):
        if self.objective == "feddyn":
            return ALPHA * (value - self.w[name]) - self.local[site][name]
        return self.shared[name] - self.local[site][name]  # 0 of FedAvg

    def round(self, current):
        came = {site: self.train(site, current) for site in self.data}
        for name, w in list(self.w.items()):
            mean = sum(self.shares[site] * weights[name] for site, (weights, _) in came.items())
            if self.objective == "feddyn":
                for site, (weights, _) in came.items():
                    self.local[site][name] = self.local[site][name] - ALPHA * (weights[name] - w)
                self.shared[name] = self.shared[name] - ALPHA * (mean - w)
                mean = mean - self.shared[name] / ALPHA
            if self.objective == "scaffold":
                moved = 0
                for site, (weights, steps) in came.items():
                    after = self.local[site][name] - self.shared[name] + (w - weights[name]) / (steps * RATE)
                    moved = moved + self.shares[site] * (after - self.local[site][name])
                    self.local[site][name] = after
                self.shared[name] = self.shared[name] + moved
            self.w[name] = mean

    @staticmethod
    def vector(values):
        return np.concatenate([values[name].numpy().ravel() for name in sorted(values)])


def left_of(federation, site):
    (path,) = (federation.path / "sites" / site).glob(f"study-*/left-{federation.directory.load().accepted.hex()}.safetensors")
    return read_left(path)


def distance(one, other):
    return np.linalg.norm(one - other)


def is_near(found, expected, share):
    return distance(found, expected) < share * np.linalg.norm(expected)


@pytest.mark.parametrize("objective", REMEMBER)
def test_rounds_with_masked_sums_are_those_of_a_plain_loop_within_rounding(federate, objective):
    federation = begun(federate, objective)
    plain, averaging = Plain(federation, objective), Plain(federation, "fedavg")
    start = plain.vector(plain.w)
    federation.run()
    for current in range(1, ROUNDS + 1):
        plain.round(current)
        averaging.round(current)
    state, expected = federation.directory.load(), plain.vector(plain.w)
    model, num = state.model, start.size
    assert distance(model[:num], expected) < 5e-3 * distance(expected, start)
    assert distance(averaging.vector(averaging.w), expected) > 5e-2 * distance(expected, start)
    for site in federation.sites:
        assert is_near(left_of(federation, site).memory["objective"], plain.vector(plain.local[site]), 1e-3)
    shared = model[num : 2 * num] if objective == "scaffold" else -ALPHA * state.memory["drift"]
    assert is_near(shared, plain.vector(plain.shared), 2e-2)


@pytest.mark.parametrize("objective", REMEMBER)
def test_killed_and_resumed_with_every_site_the_bits_are_the_same(federate, objective):
    undisturbed = begun(federate, objective, "undisturbed")
    undisturbed.run()
    disturbed = begun(federate, objective, "disturbed", tamper=kill_at(Kind.TRAIN, 3, "centerB"))
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = begun(federate, objective, "disturbed")
    resumed.run()
    assert resumed.state_hash() == undisturbed.state_hash()
    for site in resumed.sites:
        ours, theirs = left_of(resumed, site), left_of(undisturbed, site)
        assert ours.memory["objective"].tobytes() == theirs.memory["objective"].tobytes()


@pytest.mark.parametrize("objective", REMEMBER)
def test_a_site_that_lost_what_it_remembers_has_all_begin_anew_and_both_sides_still_add_up(federate, objective):
    """Else the mean would carry the lost part in every round to come."""

    def lose(site, request, answer):
        if request.kind is Kind.COLLECT and request.of is Kind.TRAIN and request.header.round == 2 and site == "centerB":
            lost.append(site)
        if isinstance(request, Train) and request.header.round == 3 and site == "centerA" and lost:
            lost.clear()
            for path in (federation.path / "sites" / "centerB").glob("study-*/left-*.safetensors"):
                path.unlink()
            federation.restart_worker("centerB")
        return answer

    lost = []
    federation = begun(federate, objective, tamper=lose)
    federation.run()
    asked = [request for site, request in federation.requests if isinstance(request, Train) and site == "centerA"]
    assert [request.accepted is None for request in asked] == [True, False, False, True, False]
    shares = {member.site: member.weight_units / 64 for member in federation.directory.membership.members}
    mean = sum(shares[site] * left_of(federation, site).memory["objective"] for site in shares)
    state = federation.directory.load()
    theirs = state.model[mean.size : 2 * mean.size] if objective == "scaffold" else -ALPHA * state.memory["drift"]
    assert is_near(theirs, mean, 2e-2)


def test_controls_leave_a_site_within_the_masked_update_and_the_contract_bounds_them(federate):
    plain, double = begun(federate, "fedprox", "plain").contract, begun(federate, "scaffold", "double").contract
    num = plain.upload(Kind.TRAIN, 2)[1]
    assert double.upload(Kind.TRAIN, 2) == (np.dtype("<i2"), 2 * num)
    assert double.counts == plain.counts
    largest = double.largest_upload("centerA", 2)
    update_P = np.zeros(2 * num, np.int16)
    update_P[-1] = largest + 1
    with pytest.raises(ProtocolError, match="beyond"):
        double.check_values(Kind.TRAIN, "centerA", 2, Answer(np.zeros(double.counts[Kind.TRAIN].size, np.int64), update_P))
    check_bound(np.minimum(update_P, largest), largest)


def test_a_study_that_cannot_be_is_refused_when_its_contract_is_made(federate):
    federation = begun(federate, "scaffold")
    changed = federation.study.federation.model_copy(update={"server_rule": "fedavgm"})
    with pytest.raises(ConfigurationError, match="local_objective scaffold with server_rule fedavgm"):
        Contract.of_study(federation.study.model_copy(update={"federation": changed}), federation.directory.membership)
