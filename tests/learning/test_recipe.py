"""How a site trains: mixup, balanced sampling, rates of rounds and layers (csasn/learning). B images."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.data.cases import TRAIN
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.loss import multitask_loss
from csasn.learning.mixup import mix
from csasn.learning.normalisation import measure_moments
from csasn.learning.rates import layer_groups, learning_rate
from csasn.learning.sampling import balanced_cases
from csasn.learning.training import epoch_batches
from csasn.model.network import build_network
from csasn.platform.randomness import generator
from csasn.study import Optimiser
from training_scene import LinearNetwork, assert_equal_states, state, study, synthetic, terms_of, train

SOME = settings(deadline=None, max_examples=25)


# ---- mixup


def batch(num=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(num, 1, 8, 8, generator=random)
    labels = {"subtype": torch.tensor([0, 2, -1, 1, 1, -1]), "malignancy": torch.tensor([0, 1, 1, -1, -1, 0])}
    return images, labels


@SOME
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 4))
def test_mixed_images_are_of_two_each_with_the_labels_of_both(seed, alpha):
    images, labels = batch()
    mixed, targets = mix(images, labels, alpha, np.random.default_rng(seed))
    (share, first), (rest, second) = targets
    assert share + rest == 1
    assert first is labels
    order = np.random.default_rng(seed)
    assert order.beta(alpha, alpha) == share
    partners = order.permutation(6)
    torch.testing.assert_close(mixed, share * images + rest * images[partners])
    assert all(torch.equal(second[task], labels[task][partners]) for task in labels)


def test_shares_of_mixup_follow_beta():
    images, labels = batch()
    random = np.random.default_rng(0)
    shares = np.array([mix(images, labels, 0.4, random)[1][0][0] for _ in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.07)


@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_a_step_with_mixup_has_the_gradient_of_both_losses_also_in_parts(micro_batch, monkeypatch):
    """Adam hides a scale: the gradient that it is given is compared, with missing labels in two tasks."""
    chosen = study(loss={"mixup": 0.7}, optimiser={"batch_size": 6})
    data = synthetic(num_cases=12, side=8)
    data.labels_N["malignancy"][::3] = -1
    network = LinearNetwork()
    start = state(network)
    seen = {}
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda _: seen.update({n: p.grad.clone() for n, p in network.named_parameters()})
    )
    train(network, data, chosen, num_steps=1, micro_batch=micro_batch)
    random = generator(chosen.seed, "train", "centerA", 1)
    indices = next(epoch_batches(data, chosen, random))
    images = torch.from_numpy(data.images_NHW[indices])[:, None].float() / 255
    labels = {task: torch.from_numpy(values[indices]) for task, values in data.labels_N.items()}
    share, order = random.beta(0.7, 0.7), random.permutation(len(indices))
    assert 0.02 < share < 0.98
    network.load_state_dict(start)
    network.zero_grad()
    logits = network(share * images + (1 - share) * images[order])
    moved = {task: values[order] for task, values in labels.items()}
    terms = terms_of(chosen)
    (share * multitask_loss(logits, labels, terms) + (1 - share) * multitask_loss(logits, moved, terms)).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad, rtol=1e-4, atol=1e-6)
        assert parameter.grad.any()


def test_maps_of_frozen_branches_are_not_kept_where_mixup_changes_the_images():
    plain, mixed = study(model={"frozen": ["vit"]}), study(model={"frozen": ["vit"]}, loss={"mixup": 0.2})
    data = synthetic()
    assert with_frozen_maps(build_network(plain), data, plain) is not data
    assert with_frozen_maps(build_network(mixed), data, mixed) is data


# ---- sampling


def skewed(num_cases=120):
    data = synthetic(num_cases=num_cases, images_per_case=(1, 2), side=2, splits=(TRAIN,))
    classes = np.where(np.arange(num_cases) % 12 == 0, 2, 0)
    classes[::20] = -1
    return replace(data, class_C=classes)


def test_balanced_sampling_draws_each_class_of_the_site_as_often_and_leaves_out_what_it_lacks():
    data, random = skewed(), np.random.default_rng(1)
    cases = data.cases(TRAIN)
    drawn = np.concatenate([balanced_cases(data, cases, random) for _ in range(100)])
    assert len(drawn) == 100 * len(cases)
    shares = {value: float((data.class_C[drawn] == value).mean()) for value in (-1, 0, 1, 2)}
    unlabelled = float((data.class_C[cases] == -1).mean())
    assert shares[-1] == pytest.approx(unlabelled, abs=0.01)
    assert shares[0] == pytest.approx((1 - unlabelled) / 2, abs=0.02)
    assert shares[2] == pytest.approx((1 - unlabelled) / 2, abs=0.02)
    assert shares[1] == 0
    assert set(np.unique(drawn)) == set(cases)


@pytest.mark.parametrize("unit", ["case", "patient"])
def test_a_balanced_epoch_is_as_long_as_a_plain_one_and_trains_otherwise(unit):
    data = replace(skewed(), patient_C=np.arange(120) // 2)
    chosen = study(sampling="balanced", unit=unit)
    random = np.random.default_rng(2)
    of_plain, of_balanced = (np.concatenate(list(epoch_batches(data, chosen, random, balanced))) for balanced in (False, True))
    assert len(of_plain) == len(of_balanced) == (120 if unit == "case" else 60)
    rare = [(data.class_C[data.case_N[images]] == 2).mean() for images in (of_plain, of_balanced)]
    assert rare[1] > 2 * rare[0]


def test_training_samples_as_the_study_says_and_measuring_normalisation_does_not():
    data = synthetic(num_cases=9)
    skew = replace(data, class_C=np.where(np.arange(9) == 3, 2, 0))
    results = []
    for sampling in ("plain", "balanced"):
        chosen = study(sampling=sampling)
        network = build_network(chosen)
        moments = measure_moments(network, skew, chosen, "centerA")
        train(network, skew, chosen)
        results.append((moments["moments"].tolist(), state(network)["heads.heads.subtype.weight"]))
    assert results[0][0] == results[1][0]
    assert not torch.equal(results[0][1], results[1][1])


# ---- rates


@SOME
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(["constant", "cosine"]))
def test_warm_up_rises_evenly_to_the_rate_and_the_schedule_runs_over_the_rest(warmup, more, schedule):
    settings_ = Optimiser(learning_rate=0.3, schedule=schedule, warmup_rounds=warmup)
    rates = [learning_rate(settings_, r, warmup + more) for r in range(1, warmup + more + 1)]
    assert np.diff([0.0, *rates[: warmup + 1]]) == pytest.approx(0.3 / (warmup + 1))
    without = Optimiser(learning_rate=0.3, schedule=schedule)
    assert rates[warmup:] == [learning_rate(without, r, more) for r in range(1, more + 1)]


def test_layers_of_branches_learn_more_slowly_the_nearer_they_are_to_the_image():
    network = build_network(study())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = layer_groups(network, list(network.parameters()), 0.5, 0.1)
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == set(names.values())  # each once
    assert len(rates) == sum(len(group["params"]) for group in groups)
    for name, rate in rates.items():
        if not name.startswith(("efficientnet.", "vit.")):
            assert rate == 0.1, name
    blocks = [rates[f"vit.net.blocks.{number}.attn.qkv.weight"] for number in range(len(network.vit.net.blocks))]
    order = [rates["vit.net.patch_embed.proj.weight"], *blocks]
    assert rates["vit.net.norm.weight"] == order[-1]  # timm counts it with the last block
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(order))
    assert order[-1] == pytest.approx(0.05)
    assert rates["efficientnet.net.conv_stem.weight"] < rates["efficientnet.net.blocks.0.0.conv.weight"] < 0.05
    assert rates["efficientnet.net.conv_head.weight"] == pytest.approx(0.05)


def test_a_step_moves_each_layer_by_its_own_rate():
    """Adam's first step moves a value by the rate, whatever the gradient's scale."""
    chosen = study(optimiser={"layer_decay": 0.5, "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant"})
    network = build_network(chosen)
    start = state(network)
    train(network, synthetic(), chosen, num_steps=1)
    moved = {name: float((tensor - start[name]).abs().max()) for name, tensor in network.state_dict().items() if name in start}
    assert moved["heads.heads.subtype.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["vit.net.norm.weight"] == pytest.approx(5e-4, rel=0.01)
    assert moved["efficientnet.net.conv_head.weight"] == pytest.approx(5e-4, rel=0.01)


def test_a_study_without_decay_trains_to_the_same_bits_in_one_group():
    chosen = study()
    one, groups = build_network(chosen), layer_groups(build_network(chosen), list(build_network(chosen).parameters()), 1.0, 0.1)
    assert len(groups) == 1
    other = build_network(chosen)
    train(one, synthetic(), chosen)
    train(other, synthetic(), study(optimiser={"layer_decay": 1.0, "warmup_rounds": 0}, loss={"mixup": 0.0}))
    assert_equal_states(state(one), state(other))
