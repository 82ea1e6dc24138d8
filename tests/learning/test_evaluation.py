"""csasn/learning/evaluation.py: cases are averaged over their own images, counted once, and counts add up over sites.

N images, C cases, K classes.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.data.cases import TEST, TRAIN, VALIDATION, SiteData
from csasn.errors import TrainingError
from csasn.federated.weighting import ClassWeights, class_weights
from csasn.learning.central import pool
from csasn.learning.evaluation import BATCH_SIZE, case_logits, count_split, image_logits
from csasn.measures.counts import FIXED_POINT, NUM_BINS, case_layout, metrics_from_counts
from csasn.model.network import build_network
from csasn.platform.configuration import validate
from csasn.study import Study

SOME = settings(deadline=None, max_examples=20)
CLASSES = ("benign", "PTC", "FTC")


def make_study(**changes):
    values = {
        "name": "small",
        "classes": list(CLASSES),
        "malignant": ["PTC", "FTC"],
        "model": {"profile": "csasn-test", "image_size": 32},
        "federation": {"sites": ["centerA", "centerB"]},
        **changes,
    }
    return validate(Study, values, "study.yaml")


STUDY = make_study(class_weighting={"acts_on": "loss"})
WEIGHTS = class_weights(STUDY.class_weighting, np.array([60, 25, 15]), [])


def lively_network():
    """A random network whose logits differ from image to image, as a trained one's do: mean 0 and deviation 1.5 of each."""
    network = build_network(STUDY).eval()
    head = network.heads.heads["subtype"]
    with torch.no_grad():
        logits_NK = network(torch.from_numpy(synthetic(30).images_NHW)[:, None].float() / 255)["subtype"]
        scale_K = 1.5 / logits_NK.std(dim=0)
        head.weight.mul_(scale_K[:, None])
        head.bias.copy_((head.bias - logits_NK.mean(dim=0)) * scale_K)
    return network


def synthetic(num_cases=12, seed=0, splits=(TRAIN, VALIDATION, TEST), images_per_case=(1, 3, 2, 1)):
    random = np.random.default_rng(seed)
    case_N = np.repeat(np.arange(num_cases), np.resize(images_per_case, num_cases))
    images = np.kron(random.integers(0, 256, (len(case_N), 4, 4)), np.ones((8, 8), np.int64)).astype(np.uint8)
    class_C = random.integers(0, len(CLASSES), num_cases)
    split_C = np.resize(splits, num_cases).astype(np.int8)
    return SiteData(images, case_N, {"subtype": class_C[case_N]}, split_C, class_C, ())


NETWORK = lively_network()


def logits_one_by_one(data):
    """Logits (N, K), one image at a time."""
    with torch.no_grad():
        return np.concatenate([
            NETWORK.eval()(torch.from_numpy(picture)[None, None].float() / 255)["subtype"].double().numpy()
            for picture in data.images_NHW
        ])  # fmt: skip


def test_logits_are_those_of_each_image_alone_in_the_order_asked_for():
    data = synthetic()
    indices = np.array([5, 0, 11, 5])
    np.testing.assert_allclose(image_logits(NETWORK, data, indices), logits_one_by_one(data)[indices], rtol=1e-4, atol=1e-4)


def test_evaluation_is_without_dropout_and_leaves_running_statistics_alone():
    data, network = synthetic(), lively_network().train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    one, other = (image_logits(network, data, np.arange(8)) for _ in range(2))
    assert np.array_equal(one, other)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_more_images_than_a_batch_are_all_evaluated_and_progress_adds_up():
    data, done = synthetic(num_cases=80), []
    found = image_logits(NETWORK, data, np.arange(len(data.case_N)), on_batch=done.append)
    assert done == [BATCH_SIZE, BATCH_SIZE, len(data.case_N) - 2 * BATCH_SIZE]
    np.testing.assert_allclose(found, logits_one_by_one(data), rtol=1e-4, atol=1e-4)


DATA = synthetic()
EACH = logits_one_by_one(DATA)


@SOME
@given(st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True))
def test_logits_of_a_case_are_the_mean_over_its_own_images(cases):
    found = case_logits(NETWORK, DATA, np.array(cases))
    for place, case in enumerate(cases):
        own = np.flatnonzero(DATA.case_N == case)
        np.testing.assert_allclose(found[place], EACH[own].mean(axis=0), rtol=1e-4, atol=1e-4)


def test_images_of_another_case_do_not_matter():
    data = synthetic()
    changed = data.images_NHW.copy()
    changed[data.case_N != 5] = 255 - changed[data.case_N != 5]
    found = case_logits(NETWORK, replace(data, images_NHW=changed), np.array([4, 5, 6]))
    plain = case_logits(NETWORK, data, np.array([4, 5, 6]))
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-4, atol=1e-4)
    assert np.abs(found[[0, 2]] - plain[[0, 2]]).min() > 1e-3


# ---- counts


@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
def test_counts_follow_from_the_logits_of_the_cases_of_the_split(split):
    data = synthetic(40)
    blocks = count_split(NETWORK, data, split, STUDY, WEIGHTS)
    cases = np.flatnonzero(data.split_C == split)
    each = logits_one_by_one(data)
    logits_CK = np.stack([each[data.case_N == case].mean(axis=0) for case in cases])
    confusion, loss = np.zeros((3, 3), np.int64), 0.0
    for truth, logits_K in zip(data.class_C[cases], logits_CK, strict=True):
        confusion[truth, logits_K.argmax()] += 1
        adjusted_K = logits_K + 0.5 * np.log([0.6, 0.25, 0.15])
        loss += np.log(np.exp(adjusted_K).sum()) - adjusted_K[truth]
    assert np.array_equal(blocks["confusion"], confusion)
    assert (confusion.sum(axis=0) > 0).sum() > 1  # the network does not decide for one class throughout
    assert blocks["loss"][0] / FIXED_POINT == pytest.approx(loss, rel=1e-3)
    assert blocks["scores"].sum() == 3 * len(cases)
    assert blocks["malignancy"].sum() == len(cases)


def test_the_decision_is_unadjusted_though_scores_are_adjusted():
    data = synthetic(40)
    strong = replace(WEIGHTS, adjustment_K=np.array([30.0, 0.0, 0.0]))
    plain, adjusted = (count_split(NETWORK, data, TEST, STUDY, weights) for weights in (WEIGHTS, strong))
    assert np.array_equal(plain["confusion"], adjusted["confusion"])
    assert not np.array_equal(plain["scores"], adjusted["scores"])


@pytest.mark.parametrize("mode", ["dynamic", "static", "balanced"])
def test_a_weighting_of_the_decision_moves_decisions_and_no_score(mode):
    data, histogram_K = synthetic(40), np.array([60, 25, 15])
    history = [np.array([[20, 9, 1], [12, 9, 2], [8, 9, 10]])] * 5
    chosen = make_study(class_weighting={"mode": mode, "tau": 1.5})
    weights = class_weights(chosen.class_weighting, histogram_K, history)
    plain = count_split(NETWORK, data, TEST, STUDY, ClassWeights.finished(np.zeros(3)))
    moved = count_split(NETWORK, data, TEST, chosen, weights)
    assert not np.array_equal(plain["confusion"], moved["confusion"])
    assert all(np.array_equal(plain[name], moved[name]) for name in ("scores", "malignancy", "loss"))


def test_a_finished_model_decides_as_the_network_did_with_its_offset():
    data, weights = synthetic(40), class_weights(make_study().class_weighting, np.array([60, 25, 15]), [])
    expected = count_split(NETWORK, data, TEST, STUDY, weights)
    finished = copy.deepcopy(NETWORK)
    finished.finish_subtype_logits(weights.offset_K)
    assert_counts_close(count_split(finished, data, TEST, STUDY, ClassWeights.finished(weights.adjustment_K)), expected)


def test_counts_of_a_split_without_cases_are_zeros_of_the_layout():
    data = synthetic(splits=(TRAIN, VALIDATION))
    blocks = count_split(NETWORK, data, TEST, STUDY, WEIGHTS)
    vector = case_layout(3, malignancy=True).pack(blocks)
    assert vector.dtype == np.int64
    assert not vector.any()
    metrics = metrics_from_counts(blocks)
    assert metrics.macro_auroc is None
    assert metrics.loss is None


@pytest.mark.parametrize("malignant", [[], list(CLASSES)], ids=["none", "all"])
def test_without_benign_and_malignant_classes_no_malignancy_is_counted(malignant):
    chosen = make_study(malignant=malignant)
    blocks = count_split(NETWORK, synthetic(), TEST, chosen, WEIGHTS)
    assert set(blocks) == {"confusion", "loss", "scores"}
    assert blocks["scores"].shape == (3, 2, NUM_BINS)


def test_unlabelled_cases_are_not_counted_and_change_nothing_of_the_others():
    data = synthetic(15)
    test_cases = data.cases(TEST)
    hidden = data.class_C.copy()
    hidden[test_cases[:2]] = -1
    found = count_split(NETWORK, replace(data, class_C=hidden), TEST, STUDY, WEIGHTS)
    dropped = data.split_C.copy()
    dropped[test_cases[:2]] = TRAIN
    expected = count_split(NETWORK, replace(data, split_C=dropped), TEST, STUDY, WEIGHTS)
    assert found["confusion"].sum() == len(test_cases) - 2
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_split_whose_cases_are_all_unlabelled_counts_nothing():
    data = replace(synthetic(), class_C=np.full(12, -1))
    assert not any(block.any() for block in count_split(NETWORK, data, TEST, STUDY, WEIGHTS).values())


def reordered(data, order):
    """The same cases under other numbers: case `order[i]` becomes case i, and its images change places too."""
    images = np.concatenate([data.images_of(int(case))[::-1] for case in order])
    case_N = np.repeat(np.arange(len(order)), [len(data.images_of(int(case))) for case in order])
    labels_N = {task: labels[images] for task, labels in data.labels_N.items()}
    return SiteData(data.images_NHW[images], case_N, labels_N, data.split_C[order], data.class_C[order], ())


def assert_counts_close(found, expected):
    """Sums of float32 in another order: equal decisions, losses within a rounding each, and no score further than a bin."""
    num_cases = int(expected["confusion"].sum())
    assert np.array_equal(found["confusion"], expected["confusion"])
    assert abs(int(found["loss"][0]) - int(expected["loss"][0])) <= 2 * num_cases
    for name in ("scores", "malignancy"):
        apart = np.cumsum(found[name] - expected[name], axis=-1)
        assert np.abs(apart).sum() <= 1
        assert not apart[..., -1].any()


@SOME
@given(st.permutations(range(12)))
def test_the_order_of_cases_and_of_their_images_does_not_matter(order):
    data = synthetic()
    expected = count_split(NETWORK, data, TEST, STUDY, WEIGHTS)
    assert_counts_close(count_split(NETWORK, reordered(data, np.array(order)), TEST, STUDY, WEIGHTS), expected)


@pytest.mark.parametrize("split", [VALIDATION, TEST])
def test_counts_of_sites_add_up_to_those_of_their_pooled_cases(split):
    sites = {"centerB": synthetic(17, seed=1), "centerA": synthetic(12, seed=2), "centerC": synthetic(1, seed=3)}
    parts = [count_split(NETWORK, data, split, STUDY, WEIGHTS) for data in sites.values()]
    pooled = count_split(NETWORK, pool(sites), split, STUDY, WEIGHTS)
    assert pooled["confusion"].sum() > 5
    assert_counts_close({name: sum(part[name] for part in parts) for name in pooled}, pooled)


def test_logits_that_are_not_finite_are_refused_not_counted():
    network = build_network(STUDY)
    with torch.no_grad():
        network.heads.heads["subtype"].bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="not finite"):
        count_split(network, synthetic(), TEST, STUDY, WEIGHTS)
