"""csasn/learning/training.py: epochs and steps, repeatability, learning rates, augmented batches.

B images, S pixels a side, N images and C cases of a site.
"""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.data.cases import TRAIN, load_site_data
from csasn.errors import TrainingError
from csasn.learning.augmentation import augment
from csasn.learning.loss import multitask_loss
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.rates import learning_rate
from csasn.learning.training import (
    LocalPlan,
    epoch_batches,
    load_images,
    load_labels,
    num_epoch_steps,
    train_locally,
)
from csasn.model.network import build_network
from csasn.model.state import StateLayout
from csasn.platform.randomness import generator
from csasn.site import find_site
from csasn.study import Augmentation, Optimiser, read_study
from training_scene import NO_CHANGE, LinearNetwork, assert_equal_states, seen_batches, state, study, synthetic, terms_of, train

SOME = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
CPU = torch.device("cpu")


# ---- epochs and steps


@pytest.mark.parametrize("images_per_case", ["one", "all"])
def test_an_epoch_visits_each_training_case_once_or_each_of_its_images_once(images_per_case):
    data = synthetic(num_cases=23, side=8)
    network = LinearNetwork()
    batches = seen_batches(network, data)
    result = train(network, data, study(images_per_case=images_per_case))
    images = [index for batch in batches for index in batch]
    training = data.cases(TRAIN)
    if images_per_case == "one":
        assert sorted(data.case_N[images]) == list(training)
        assert result.num_steps == num_epoch_steps(len(training), 4)
    else:
        assert sorted(images) == [index for index in range(len(data.case_N)) if data.case_N[index] in training]
        assert result.num_steps == num_epoch_steps(len(images), 4)
    assert result.num_steps == len(batches)


def test_over_epochs_every_image_of_a_training_case_is_seen_and_none_of_another_case():
    data = synthetic(num_cases=10, side=8)
    network = LinearNetwork()
    batches = seen_batches(network, data)
    train(network, data, study(federation={"local_epochs": 30}))
    seen = Counter(index for batch in batches for index in batch)
    training = set(data.cases(TRAIN))
    assert set(seen) == {index for index, case in enumerate(data.case_N) if case in training}
    assert all(sum(seen[index] for index in data.images_of(case)) == 30 for case in training)
    orders = [tuple(data.case_N[[i for batch in batches[2 * e : 2 * e + 2] for i in batch]]) for e in range(30)]
    assert len(set(orders)) > 20


@SOME
@given(st.integers(1, 40), st.integers(1, 20), st.sampled_from(["one", "all"]), SEEDS)
def test_batches_are_nearly_equal_and_never_above_the_batch_size(num_cases, batch_size, images_per_case, seed):
    data = synthetic(num_cases=num_cases, side=2)
    chosen = study(optimiser={"batch_size": batch_size}, images_per_case=images_per_case)
    sizes = [len(batch) for batch in epoch_batches(data, chosen, np.random.default_rng(seed))]
    assert max(sizes) - min(sizes) <= 1
    assert 0 < max(sizes) <= batch_size
    assert len(sizes) == num_epoch_steps(sum(sizes), batch_size)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 11])
def test_num_steps_is_respected_within_and_across_epochs(num_steps):
    data = synthetic(num_cases=15, side=8)  # nine training cases: three batches an epoch
    network, ticks = LinearNetwork(), []
    batches = seen_batches(network, data)
    chosen = study()
    plan = LocalPlan("centerA", 1, FedProx(proximal_mu=0.0), num_steps=num_steps)
    result = train_locally(network, data, chosen, terms_of(chosen), plan, on_step=lambda: ticks.append(1))
    assert result.num_steps == len(batches) == len(ticks) == num_steps
    training = list(data.cases(TRAIN))
    for start in range(0, num_steps - 2, 3):
        assert sorted(data.case_N[[index for batch in batches[start : start + 3] for index in batch]]) == training


def test_labels_follow_their_images():
    data = synthetic(num_cases=20, side=8)
    indices = np.array([7, 0, 31, 12])
    labels = load_labels(data, indices, CPU)
    images_B1SS = load_images(data, indices, CPU)
    assert images_B1SS.shape == (4, 1, 8, 8)
    for place, index in enumerate(indices):
        assert labels["subtype"][place] == data.class_C[data.case_N[index]]
        np.testing.assert_allclose(images_B1SS[place, 0].numpy(), data.images_NHW[index] / 255, rtol=1e-6)


def test_the_reported_loss_is_the_mean_over_the_steps():
    data, chosen = synthetic(num_cases=12, side=8), study(optimiser={"learning_rate": 1e-12, "schedule": "constant"})
    network = LinearNetwork()
    batches = seen_batches(network, data)
    result = train(network, data, chosen)
    with torch.no_grad():
        losses = [
            float(
                multitask_loss(network(load_images(data, np.array(b), CPU)), load_labels(data, np.array(b), CPU), terms_of(chosen))
            )
            for b in list(batches)
        ]
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_loss_falls_over_the_epochs(write_small_hospitals, tmp_path):
    path = write_small_hospitals(tmp_path / "hospitals")
    chosen = read_study(path, ("optimiser.schedule=constant", "model.dropout=0.0"))
    chosen = chosen.model_copy(update={"augmentation": Augmentation(**NO_CHANGE)})
    data = load_site_data(chosen, find_site("centerB", folder=path.parent / "sites"), 32)
    network = build_network(chosen)
    losses = [train(network, data, chosen, site="centerB", current_round=epoch, mu=0.01).loss for epoch in range(1, 11)]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


# ---- micro batches


def test_micro_batches_give_the_same_gradient_to_a_network_without_batch_normalisation():
    data, chosen = synthetic(num_cases=20), study(model={"efficientnet": False, "dropout": 0.0}, optimiser={"batch_size": 100})
    gradients, losses = [], []
    for micro_batch in (None, 1, 5, 100):
        network = build_network(chosen)
        losses.append(train(network, data, chosen, mu=0.01, micro_batch=micro_batch).loss)
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for other, loss in zip(gradients[1:], losses[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_micro_batches_leave_the_gradient_of_the_whole_batch():
    data, chosen = synthetic(num_cases=10, side=8), study(optimiser={"learning_rate": 1e-12, "batch_size": 100})
    gradients = []
    for micro_batch in (None, 1, 4):
        network = LinearNetwork()
        train(network, data, chosen, micro_batch=micro_batch)
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-5, atol=1e-7)


def test_a_micro_batch_bounds_what_the_network_is_given():
    data = synthetic(num_cases=23, side=8)
    network = LinearNetwork()
    parts = seen_batches(network, data)
    result = train(network, data, study(optimiser={"batch_size": 5}), micro_batch=2)
    assert max(len(part) for part in parts) == 2
    assert result.num_steps < len(parts)


def test_training_with_micro_batches_is_close_even_with_batch_statistics():
    data, chosen = synthetic(num_cases=20), study(model={"dropout": 0.0, "image_size": 64}, optimiser={"batch_size": 8})
    data = replace(data, images_NHW=np.kron(data.images_NHW, np.ones((1, 2, 2), np.uint8)))
    start, ends, losses = state(build_network(chosen)), [], []
    for micro_batch in (None, 3):
        network = build_network(chosen)
        losses.append(train(network, data, chosen, micro_batch=micro_batch).loss)
        ends.append(state(network))
    moved, apart = (
        sum(float((a[name].double() - b[name].double()).square().sum()) for name, _ in network.named_parameters())
        for a, b in ((ends[0], start), (ends[1], ends[0]))
    )
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    assert 0 < apart < 2 * moved


# ---- randomness


def test_equal_seed_site_and_round_give_equal_bits_whatever_torchs_generator_holds():
    data, chosen, states = synthetic(), study(augmentation={}), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is what must not matter
        network = build_network(chosen)
        train(network, data, chosen, mu=0.01)
        states.append(state(network))
    assert_equal_states(*states)


@pytest.mark.parametrize(
    ("seed", "site", "current_round"), [(2, "centerA", 1), (1, "centerB", 1), (1, "centerA", 2)], ids=["seed", "site", "round"]
)
def test_another_seed_site_or_round_gives_other_batches_and_other_dropout(seed, site, current_round):
    data, orders, masks = synthetic(num_cases=30, side=8), [], []
    for chosen_seed, chosen_site, chosen_round in ((1, "centerA", 1), (seed, site, current_round)):
        network = LinearNetwork(dropout=0.5)
        orders.append(seen_batches(network, data))
        network.body[3].register_forward_hook(lambda _, inputs, output: masks.append((output == 0).tolist()))
        train(network, data, study(seed=chosen_seed), site=chosen_site, current_round=chosen_round, num_steps=1)
    assert orders[0] != orders[1]
    assert masks[0] != masks[1]


def test_the_global_random_states_are_untouched():
    data, chosen = synthetic(), study(augmentation={})
    torch.manual_seed(5)
    before, of_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(build_network(chosen), data, chosen)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002


def test_no_state_of_the_optimiser_survives_a_round():
    """Training from a written state equals training a fresh network from it: nothing but the state vector is carried on."""
    data, chosen = synthetic(), study()
    layout = StateLayout.of(build_network(chosen), "shared")
    used, fresh = build_network(chosen), build_network(replace_seed(chosen, 9))
    start = layout.read(used)
    train(used, data, chosen)
    for network in (used, fresh):
        layout.write(network, start)
        train(network, data, chosen, current_round=2, mu=0.1)
    assert np.array_equal(layout.read(used), layout.read(fresh))


def replace_seed(chosen, seed):
    return chosen.model_copy(update={"seed": seed})


# ---- what is trained, and how fast


def test_the_optimiser_does_not_see_frozen_parameters():
    chosen = study(model={"initial_weights": {"vit": {"source": "hub"}}}, optimiser={"weight_decay": 0.5})
    network = build_network(chosen)
    start = state(network)
    train(network, synthetic(), chosen, mu=0.1)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, start[name]), name
        else:
            assert torch.equal(parameter, start[name]), name
            assert parameter.grad is None
    assert sum(not parameter.requires_grad for parameter in network.parameters()) == 3


def test_a_loss_that_is_not_finite_stops_training_and_names_the_key_to_lower():
    chosen = study(optimiser={"learning_rate": 1e30, "schedule": "constant"})
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d+ of round 3, expected a finite number") as caught:
        train(LinearNetwork(), synthetic(num_cases=30, side=8), chosen, current_round=3, num_steps=20)
    assert "optimiser.learning_rate" in caught.value.hint
    assert "lower" in caught.value.hint


def test_a_loss_that_is_not_finite_leaves_torchs_generator_as_it_was():
    network = LinearNetwork()
    with torch.no_grad():
        network.heads["subtype"].weight.fill_(torch.nan)
    before = torch.random.get_rng_state()
    with pytest.raises(TrainingError, match="step 1 of round 1"):
        train(network, synthetic(side=8), study())
    assert torch.equal(torch.random.get_rng_state(), before)


@SOME
@given(st.integers(1, 200), st.floats(1e-6, 1))
def test_cosine_schedule_starts_at_the_rate_falls_each_round_and_stays_above_five_percent(num_rounds, rate):
    rates = [learning_rate(Optimiser(learning_rate=rate, schedule="cosine"), r, num_rounds) for r in range(1, num_rounds + 1)]
    assert rates[0] == pytest.approx(rate)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert rates[-1] >= 0.05 * rate * (1 - 1e-12)


def test_cosine_schedule_is_half_way_in_the_middle_and_near_five_percent_at_the_end():
    settings_ = Optimiser(learning_rate=1.0, schedule="cosine")
    assert learning_rate(settings_, 51, 100) == pytest.approx(0.525)
    assert learning_rate(settings_, 1000, 1000) == pytest.approx(0.05, abs=1e-5)


def test_constant_schedule_is_constant():
    settings_ = Optimiser(learning_rate=0.003, schedule="constant")
    assert {learning_rate(settings_, r, 9) for r in range(1, 10)} == {0.003}


def test_a_round_is_trained_with_its_own_rate():
    """Adam's first step moves a value by the rate, whatever the gradient's scale."""
    data = synthetic(num_cases=9, side=8)
    chosen = study(optimiser={"learning_rate": 0.01, "weight_decay": 0.0, "schedule": "cosine"})
    for current_round in (1, 4):
        network = LinearNetwork()
        start = state(network)
        train(network, data, chosen, current_round=current_round, num_steps=1)
        moved = max(float((tensor - start[name]).abs().max()) for name, tensor in network.state_dict().items())
        assert moved == pytest.approx(learning_rate(chosen.optimiser, current_round, 4), rel=1e-3)


def test_training_augments_each_batch_as_the_study_says():
    data, chosen = synthetic(), study(augmentation=NO_CHANGE | {"contrast": 0.5})
    given_B = []
    network = build_network(chosen)
    network.register_forward_pre_hook(lambda _, inputs: given_B.append(inputs[0].clone()))
    train(network, data, chosen, num_steps=1)
    random = generator(chosen.seed, "train", "centerA", 1)
    indices = next(epoch_batches(data, chosen, random))
    plain = load_images(data, indices, CPU)
    assert torch.equal(given_B[0], augment(plain, chosen.augmentation, random))
    assert (given_B[0] - plain).abs().max() > 0.05


# ---- normalisation


@pytest.mark.parametrize(("current_round", "as_mode"), [(1, "silo"), (2, "silo"), (3, "frozen"), (4, "frozen")])
def test_with_fixbn_batches_normalise_themselves_until_half_of_the_rounds_are_done_and_the_model_does_after_that(
    current_round, as_mode
):
    """As in Zhong et al. 2023: what is trained last is normalised as it is released."""

    def trained(mode):
        chosen = study(federation={"batchnorm": mode, "rounds": 4})
        network = build_network(chosen)
        before = state(network)
        train(network, synthetic(), chosen, current_round=current_round)
        assert [name for name, tensor in state(network).items() if not torch.equal(tensor, before[name])]
        return state(network)

    found, other = trained("fixbn"), trained("silo" if as_mode == "frozen" else "frozen")
    assert_equal_states(found, trained(as_mode))
    assert [name for name in found if "weight" in name and not torch.equal(found[name], other[name])]


def test_of_one_round_all_is_trained_by_batches():
    assert study(federation={"rounds": 1}).federation.trains_by_batches(1)
