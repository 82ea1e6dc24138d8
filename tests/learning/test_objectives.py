"""Local objectives that remember: on a toy where FedAvg is known to miss the optimum, and what they cannot go together with."""

import numpy as np
import pytest
import torch
from torch import nn

from csasn.errors import ConfigurationError
from csasn.federated.server_rules.feddyn import FEDDYN_RULE
from csasn.federated.server_rules.rule import server_rule
from csasn.learning.objectives.feddyn import FedDyn
from csasn.learning.objectives.objective import LocalObjective, Remembered, local_objective
from csasn.learning.objectives.scaffold import SCAFFOLD
from csasn.learning.training import LocalPlan
from csasn.model.network import build_network
from csasn.model.state import StateLayout
from csasn.study import Optimiser
from training_scene import LinearNetwork, state, study, synthetic, terms_of, train, train_locally

SHARES = np.array([0.5, 0.25, 0.25])
CURVES_KD = np.array([[1.0, 4.0, 0.3], [5.0, 0.5, 1.0], [0.2, 1.0, 3.0]])
CENTRES_KD = np.array([[3.0, -1.0, 0.0], [-2.0, 4.0, 1.0], [0.0, 2.0, -5.0]])
OPTIMUM_D = (SHARES[:, None] * CURVES_KD * CENTRES_KD).sum(0) / (SHARES[:, None] * CURVES_KD).sum(0)


class Point(nn.Module):
    """A model of three values, in two tensors that are not in the order of their names."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))


def quadratic_rounds(objective, move, rounds, num_steps, rate):
    """Sites with F_k(w) = ½ Σ a (w - b)², whose optima are far apart; w after so many rounds of SGD."""
    network = Point()
    layout = StateLayout.of(network, "silo", controls=objective.controls)
    model, kept, memory = layout.read(network), [None] * 3, {}
    for _ in range(rounds):
        updates = []
        for site in range(3):
            layout.write(network, model)
            remembered = Remembered.of(objective, layout, model, kept[site])
            corrections = remembered.corrections(network) if remembered else ()
            parameters = list(network.parameters())
            received = [parameter.detach().clone() for parameter in parameters]
            curves, centres = torch.tensor(CURVES_KD[site]), torch.tensor(CENTRES_KD[site])
            for _ in range(num_steps):
                network.zero_grad()
                values = torch.cat([network.first, network.second])
                (curves / 2 * (values - centres).square()).sum().backward()
                objective.add_gradient(parameters, received)
                with torch.no_grad():
                    for index, parameter in enumerate(parameters):
                        parameter.sub_(rate * (parameter.grad + (corrections[index] if corrections else 0)))
            update = layout.read(network) - model
            if remembered:
                kept[site] = remembered.finish(update, num_steps * rate)
            updates.append(update)
        mean = (SHARES[:, None] * np.stack(updates)).sum(0).astype(np.float32)
        moved, memory = move(mean, memory)
        model = model + moved
    return model[:3]


def mean_alone(mean_P, memory):
    return mean_P, memory


def test_where_sites_drift_apart_feddyn_and_scaffold_reach_the_optimum_that_fedavg_misses():
    fedavg = quadratic_rounds(LocalObjective(), mean_alone, 200, 20, 0.05)
    scaffold = quadratic_rounds(SCAFFOLD, mean_alone, 200, 20, 0.05)
    feddyn = quadratic_rounds(FedDyn(alpha=1.0), FEDDYN_RULE.move, 200, 20, 0.05)
    assert np.abs(fedavg - OPTIMUM_D).max() > 0.5
    assert np.abs(scaffold - OPTIMUM_D).max() < 1e-4
    assert np.abs(feddyn - OPTIMUM_D).max() < 1e-4


def test_a_site_that_kept_nothing_begins_with_the_mean_so_that_the_controls_still_add_up():
    layout = StateLayout.of(Point(), "silo", controls=True)
    model = np.array([0, 0, 0, 1, 2, 3], np.float32)
    remembered = Remembered.of(SCAFFOLD, layout, model, None)
    assert remembered.memory_P.tolist() == [1, 2, 3]
    assert not torch.cat([part.ravel() for part in remembered.corrections(Point())]).any()


def test_controls_are_behind_the_weights_in_no_network_and_in_the_hash():
    network = build_network(study())
    plain, double = StateLayout.of(network, "silo"), StateLayout.of(network, "silo", controls=True)
    assert double.num_shared == 2 * plain.num_shared
    assert double.weights == plain.shared
    vector = double.read(network)
    assert not vector[plain.num_shared : double.num_shared].any()
    changed = vector.copy()
    changed[plain.num_shared : double.num_shared] = np.random.default_rng(1).normal(size=plain.num_shared)
    double.write(network, changed)
    assert double.read(network).tobytes() == vector.tobytes()
    assert double.hash(changed) != double.hash(vector)


def test_corrections_are_a_part_of_every_gradient_also_of_a_head_without_a_label():
    data, chosen = synthetic(num_cases=20, side=8), study(optimiser={"kind": "sgd", "learning_rate": 0.1, "schedule": "constant"})
    data.labels_N["malignancy"][:] = -1
    ends = []
    for amount in (0.0, 2.0):
        network = LinearNetwork()
        corrections = tuple(torch.full_like(parameter, amount) for parameter in network.parameters())
        plan = LocalPlan("centerA", 1, LocalObjective(), num_steps=1, corrections=corrections)
        result = train_locally(network, data, chosen, terms_of(chosen), plan)
        assert result.total_rate == pytest.approx(0.1)
        ends.append(state(network))
    for name in ends[0]:
        torch.testing.assert_close(ends[1][name], ends[0][name] - 0.2, rtol=1e-5, atol=1e-6)


def test_sgd_steps_by_the_rate_times_the_gradient_with_its_weight_decay():
    data = synthetic(num_cases=20, side=8)
    options = {"kind": "sgd", "learning_rate": 0.05, "schedule": "constant"}
    ends = {}
    for decay in (0.0, 0.3):
        network = LinearNetwork()
        start = state(network)
        train(network, data, study(optimiser={**options, "weight_decay": decay}), num_steps=1)
        ends[decay] = state(network)
    for name, first in start.items():
        torch.testing.assert_close(ends[0.0][name] - ends[0.3][name], 0.05 * 0.3 * first, rtol=1e-4, atol=1e-7)


def test_the_optimiser_that_was_there_before_leaves_the_study_as_it_was():
    assert study(optimiser={"kind": "adamw"}).study_hash == study().study_hash != study(optimiser={"kind": "sgd"}).study_hash
    assert "kind" not in Optimiser().model_dump()


SECURE = {"sites": ["a", "b", "c"], "secure_aggregation": True}
DYN = {"server_rule": "feddyn", "local_objective": "feddyn"}
SGD = {"kind": "sgd"}


@pytest.mark.parametrize(
    ("federation", "optimiser", "said"),
    [
        ({"local_objective": "feddyn"}, {}, "write server_rule: feddyn"),
        ({**DYN, "secure_aggregation": False}, {}, "write secure_aggregation: true"),
        ({**DYN, "batchnorm": "shared"}, {}, "write batchnorm: fixbn"),
        ({"local_objective": "scaffold"}, SGD | {"layer_decay": 0.9}, "leave layer_decay out"),
        ({"local_objective": "scaffold"}, {}, "write optimiser.kind: sgd"),
        ({"local_objective": "scaffold", "server_rule": "fedavgm"}, SGD, "write server_rule: fedavg in"),
        ({"local_objective": "scaffold", "secure_aggregation": False}, SGD, "write secure_aggregation: true"),
    ],
)
def test_what_cannot_go_together_is_refused_and_said_what_to_write(federation, optimiser, said):
    chosen = study(federation=SECURE | federation, optimiser=optimiser)
    with pytest.raises(ConfigurationError) as caught:
        local_objective(chosen.federation).check(chosen)
    assert said in caught.value.hint


def test_the_rule_of_feddyn_is_refused_without_its_objective():
    with pytest.raises(ConfigurationError, match="server_rule feddyn with local_objective fedprox, expected feddyn"):
        server_rule(study(federation=SECURE | {"server_rule": "feddyn"}).federation)


def test_what_goes_together_is_not_refused():
    for federation, optimiser in (({}, {}), (DYN, {}), ({"local_objective": "scaffold"}, SGD)):
        chosen = study(federation=SECURE | federation, optimiser=optimiser)
        local_objective(chosen.federation).check(chosen)
        server_rule(chosen.federation)
