"""csasn/learning/central.py: training without a federation learns, takes the steps it is given, and keeps its best round."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from csasn.data.cases import TEST, TRAIN, VALIDATION, load_site_data
from csasn.errors import DataError
from csasn.federated.weighting import ClassWeights
from csasn.learning.central import federation_steps, logits_of_tests, pool, train_centrally
from csasn.learning.evaluation import count_logits, count_split
from csasn.measures.counts import metrics_from_counts
from csasn.model.state import normalisation_layers
from csasn.site import find_site
from csasn.study import read_study

ROUNDS = 3
SETTINGS = (f"federation.rounds={ROUNDS}", "optimiser.schedule=constant", "optimiser.learning_rate=0.003", "model.dropout=0.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("central") / "hospitals"
    write_small_hospitals(folder)
    return folder


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder / "study.yaml", SETTINGS)


@pytest.fixture(scope="module")
def sites(folder, study):
    return {name: load_site_data(study, find_site(name, folder=folder / "sites"), 32) for name in study.federation.sites}


@pytest.fixture(scope="module")
def trained(study, sites):
    """The pooled training with ten steps a round, and the number of steps it took."""
    steps = []
    result = train_centrally(study, pool(sites), "pooled", 10, on_step=lambda: steps.append(1))
    return result, len(steps)


# ---- pooling


def rows_of(data):
    """Every image with its labels, split, class, and the images of its case: what must stay together."""
    whole_case = [data.images_NHW[data.images_of(int(case))].tobytes() for case in data.case_N]
    labels = [tuple(int(data.labels_N[task][i]) for task in sorted(data.labels_N)) for i in range(len(data.case_N))]
    splits, classes = data.split_C[data.case_N].tolist(), data.class_C[data.case_N].tolist()
    return list(zip([picture.tobytes() for picture in data.images_NHW], labels, splits, classes, whole_case, strict=True))


def test_pooling_keeps_images_labels_splits_and_cases_together(sites):
    pooled = pool(sites)
    assert rows_of(pooled) == [row for name in sorted(sites) for row in rows_of(sites[name])]
    assert len(pooled.split_C) == len(pooled.class_C) == sum(len(data.split_C) for data in sites.values())
    assert (np.diff(pooled.case_N) >= 0).all()
    for split in (TRAIN, VALIDATION, TEST):
        assert len(pooled.cases(split)) == sum(len(data.cases(split)) for data in sites.values()) > 0


def test_pooling_does_not_depend_on_the_order_of_the_sites(sites):
    other = pool({name: sites[name] for name in reversed(sites)})
    assert rows_of(other) == rows_of(pool(sites))
    assert np.array_equal(other.case_N, pool(sites).case_N)


def test_pooling_keeps_the_notes_of_every_site(sites):
    noted = {name: replace(data, notes=(f"note of {name}",)) for name, data in sites.items()}
    assert pool(noted).notes == ("note of centerA", "note of centerB", "note of centerC")


def test_one_site_pooled_is_that_site(sites):
    assert pool({"centerB": sites["centerB"]}) is sites["centerB"]


# ---- training


def test_training_on_pooled_cases_beats_chance_on_validation_and_test_cases(study, sites, trained):
    result, _ = trained
    assert result.validation[result.round].macro_auroc > 0.8
    weights = ClassWeights.finished(result.adjustment_K)
    tests = metrics_from_counts(count_logits(*logits_of_tests(result.network, study, sites), study, weights))
    assert tests.macro_auroc > 0.7
    assert sum(map(sum, tests.confusion)) == sum(len(data.cases(TEST)) for data in sites.values())


def test_one_site_alone_beats_chance(study, sites):
    alone = train_centrally(study, sites["centerC"], "centerC", 6)
    assert max(metrics.macro_auroc for metrics in alone.validation[1:]) > 0.7


def test_training_takes_the_given_steps_in_each_round_and_validates_before_and_after(trained):
    result, num_steps = trained
    assert num_steps == ROUNDS * 10
    assert len(result.validation) == ROUNDS + 1


def test_the_best_round_is_kept_the_earliest_of_equals(trained):
    result, _ = trained
    scores = [metrics.macro_auroc for metrics in result.validation]
    assert result.round == scores.index(max(scores)) > 0


def test_the_network_returned_is_the_one_of_the_round_that_was_chosen(study, sites):
    """Trained until later rounds are no better: what comes back must give the metrics of its own round again."""
    federation = study.federation.model_copy(update={"batchnorm": "shared", "rounds": 5})
    static = study.class_weighting.model_copy(update={"mode": "static"})  # a dynamic one would decide otherwise at the end
    chosen = study.model_copy(update={"federation": federation, "class_weighting": static})
    data = sites["centerC"]
    best = train_centrally(chosen, data, "centerC", 8)
    last = train_centrally(chosen.model_copy(update={"model_selection": "last"}), data, "centerC", 8)
    assert best.validation == last.validation
    assert last.round == 5 > best.round
    for result in (best, last):
        weights = ClassWeights.finished(result.adjustment_K)
        found = metrics_from_counts(count_split(result.network, data, VALIDATION, chosen, weights))
        assert found.confusion == result.validation[result.round].confusion
        assert found.macro_auroc == result.validation[result.round].macro_auroc
    assert not torch.equal(best.network.classifier.skip.weight, last.network.classifier.skip.weight)


def test_with_silo_the_finished_model_carries_measured_statistics(study, sites):
    data, networks = sites["centerA"], []
    for batchnorm in ("silo", "shared"):
        federation = study.federation.model_copy(update={"batchnorm": batchnorm})
        chosen = study.model_copy(update={"federation": federation, "model_selection": "last"})
        networks.append(train_centrally(chosen, data, "centerA", 2).network)
    assert all(torch.equal(a, b) for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True))
    for (name, measured), (_, running) in zip(*(normalisation_layers(network) for network in networks), strict=True):
        assert not torch.equal(measured.running_mean, running.running_mean), name
        assert bool(measured.running_mean.isfinite().all())


def test_with_fixbn_training_in_one_place_is_that_of_silo(study, sites):
    states = []
    for batchnorm in ("silo", "fixbn"):
        chosen = study.model_copy(update={"federation": study.federation.model_copy(update={"batchnorm": batchnorm})})
        states.append(train_centrally(chosen, sites["centerA"], "centerA", 2).network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_same_training_gives_the_same_bits(study, sites):
    one, other = (train_centrally(study, sites["centerA"], "centerA", 2).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_test_cases_do_not_move_the_weights(study, sites):
    data = sites["centerA"]
    other = data.images_NHW.copy()
    held_out = np.isin(data.case_N, data.cases(TEST))
    other[held_out] = 255 - other[held_out]
    one, changed = (train_centrally(study, d, "centerA", 2).network for d in (data, replace(data, images_NHW=other)))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), changed.parameters(), strict=True))


def test_a_site_without_a_training_case_is_refused(study, sites):
    data = sites["centerA"]
    with pytest.raises(DataError, match="no training case"):
        train_centrally(study, replace(data, split_C=np.full_like(data.split_C, TEST)), "centerA", 1)


def test_without_validation_cases_training_still_ends(study, sites):
    data = sites["centerA"]
    split_C = np.where(data.split_C == VALIDATION, TRAIN, data.split_C).astype(np.int8)
    result = train_centrally(study, replace(data, split_C=split_C), "centerA", 1)
    assert result.round == study.federation.rounds
    assert all(metrics.macro_auroc is None for metrics in result.validation)


# ---- steps of the federation


@pytest.mark.parametrize(("images_per_case", "epochs"), [("one", 1), ("one", 3), ("all", 2)])
def test_federation_steps_are_those_that_the_sites_take_together(study, sites, images_per_case, epochs):
    federation = study.federation.model_copy(update={"local_epochs": epochs})
    chosen = study.model_copy(update={"federation": federation, "images_per_case": images_per_case})
    expected = 0
    for data in sites.values():
        training = data.cases(TRAIN)
        num_images = len(training) if images_per_case == "one" else int(np.isin(data.case_N, training).sum())
        expected += epochs * int(np.ceil(num_images / chosen.optimiser.batch_size))
    assert federation_steps(chosen, sites) == expected


def test_logits_of_tests_are_those_of_all_sites(study, sites, trained):
    result, _ = trained
    weights = ClassWeights.finished(result.adjustment_K)
    parts = [count_split(result.network, data, TEST, study, weights) for data in sites.values()]
    found = count_logits(*logits_of_tests(result.network, study, sites), study, weights)
    assert set(found) == {"confusion", "loss", "scores", "malignancy"}
    for name, block in found.items():
        assert np.array_equal(block, sum(part[name] for part in parts))


def test_a_weighting_of_the_decision_trains_the_same_network_and_moves_its_logits_by_the_prior(study, sites):
    data, results = sites["centerA"], []
    for mode in ("none", "static"):
        weighting = study.class_weighting.model_copy(update={"mode": mode, "tau": 1.0})
        chosen = study.model_copy(update={"class_weighting": weighting, "model_selection": "last"})
        results.append(train_centrally(chosen, data, "centerA", 3))
    plain, static = results
    counts = np.maximum(np.bincount(data.class_C[data.cases(TRAIN)], minlength=3), 10)
    np.testing.assert_allclose(static.adjustment_K, np.log(counts / counts.sum()))
    assert not plain.adjustment_K.any()
    bias = "heads.heads.subtype.bias"
    before, after = (result.network.state_dict() for result in results)
    np.testing.assert_allclose(after[bias].numpy(), before[bias].numpy() - static.adjustment_K, rtol=1e-5)
    assert all(torch.equal(before[name], after[name]) for name in before if name != bias)
