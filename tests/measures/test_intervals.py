"""csasn/measures/intervals.py: against scipy, the bootstrap over cases, and how often an interval holds the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from csasn.measures.counts import auroc, resample_aurocs, score_histogram
from csasn.measures.intervals import auroc_interval, balanced_accuracy_interval, newcombe, wilson
from csasn.platform.randomness import generator

SOME = settings(deadline=None, max_examples=40)
SHARES = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# ---- Wilson


@SOME
@given(SHARES)
def test_wilson_is_scipys(drawn):
    hits, cases = drawn
    expected = stats.binomtest(hits, cases).proportion_ci(0.95, method="wilson")
    low, high = wilson(hits, cases)
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-7)
    assert 0 <= low <= hits / cases <= high <= 1


def test_a_share_of_no_case_has_no_interval():
    assert wilson(0, 0) is None


# ---- balanced accuracy


def confusion(hits_K, support_K):
    """Counts with these hits; misses are decided for the class before."""
    return np.diag(hits_K) + np.roll(np.diag(np.subtract(support_K, hits_K)), -1, axis=1)


def test_the_interval_of_one_class_is_wilsons():
    assert balanced_accuracy_interval(np.array([[7, 3], [0, 0]])) == pytest.approx(wilson(7, 10))


def test_no_case_gives_no_interval():
    assert balanced_accuracy_interval(np.zeros((3, 3), dtype=np.int64)) is None


def test_with_many_cases_the_interval_is_that_of_the_bootstrap_over_cases():
    random = generator(1, "balanced")
    classes_N = np.repeat([0, 1, 2], [300, 150, 60])
    right_N = random.random(len(classes_N)) < np.array([0.85, 0.7, 0.6])[classes_N]
    found = []
    for _ in range(1000):
        cases = random.integers(0, len(classes_N), len(classes_N))
        found.append(np.mean([right_N[cases][classes_N[cases] == c].mean() for c in range(3)]))
    low, high = np.percentile(found, [2.5, 97.5])
    counts = confusion([int(right_N[classes_N == c].sum()) for c in range(3)], [300, 150, 60])
    np.testing.assert_allclose(balanced_accuracy_interval(counts), [low, high], atol=0.12 * (high - low))


def test_with_few_cases_the_interval_of_balanced_accuracy_holds_the_truth_where_resampling_does_not():
    random, support_K, recalls_K = generator(2, "coverage"), np.array([40, 40, 8, 6]), np.array([0.95, 0.95, 0.9, 0.9])
    held = {"combined": 0, "resampled": 0}
    for _ in range(400):
        hits_K = random.binomial(support_K, recalls_K)
        resampled = np.percentile((random.binomial(support_K, hits_K / support_K, (400, 4)) / support_K).mean(axis=1), [2.5, 97.5])
        for name, (low, high) in {
            "combined": balanced_accuracy_interval(confusion(hits_K, support_K)),
            "resampled": resampled,
        }.items():
            held[name] += low <= recalls_K.mean() <= high
    assert held["combined"] > 0.88 * 400
    assert held["resampled"] < 0.83 * 400


# ---- AUROC of a class


def interval(histogram_2B, seed, num_samples=1000):
    (resampled_S,) = resample_aurocs(histogram_2B[None], generator(seed, "interval"), num_samples)
    return auroc_interval(histogram_2B, resampled_S)


def drawn_scores(random, positives, negatives, truth):
    """A histogram of normal scores whose true AUROC is `truth`."""
    positive_N = np.repeat([True, False], [positives, negatives])
    return score_histogram(random.normal(0, 1, len(positive_N)) + positive_N * stats.norm.ppf(truth) * np.sqrt(2), positive_N)


@SOME
@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_newcombes_edges_are_where_the_estimate_is_z_standard_errors_off(point, positives, negatives):
    low, high = newcombe(point, positives, negatives)
    assert 0 <= low <= point <= high <= 1
    mean = (positives + negatives) / 2 - 1
    for edge in (low, high):
        spread = 1 + mean * ((1 - edge) / (2 - edge) + edge / (1 + edge))
        deviation = np.sqrt(edge * (1 - edge) * spread / (positives * negatives))
        assert abs(point - edge) == pytest.approx(1.959964 * deviation, abs=1e-6)


def test_the_interval_of_perfect_separation_is_not_a_point():
    positive_N = np.repeat([True, False], [4, 60])
    low, high = interval(score_histogram(np.where(positive_N, 3.0, -3.0), positive_N), 3)
    assert 0.5 < low < 0.9
    assert high == 1


def test_the_interval_is_no_narrower_than_by_resampling_and_is_the_same_for_the_same_generator():
    histogram_2B = drawn_scores(generator(4, "scores"), 40, 90, 0.8)
    (resampled_S,) = resample_aurocs(histogram_2B[None], generator(4, "interval"))
    low, high = interval(histogram_2B, 4)
    assert low <= np.percentile(resampled_S, 2.5) < auroc(histogram_2B) < np.percentile(resampled_S, 97.5) <= high
    assert (low, high) == interval(histogram_2B, 4)


def test_with_many_cases_the_interval_of_auroc_is_close_to_the_bootstrap_over_cases():
    random = generator(5, "auroc")
    positive_N = np.repeat([True, False], [100, 250])
    scores_N = random.normal(0, 1, 350) + 1.4 * positive_N
    found = []
    for _ in range(600):
        cases = random.integers(0, 350, 350)
        found.append(auroc(score_histogram(scores_N[cases], positive_N[cases])))
    low, high = np.percentile(found, [2.5, 97.5])
    ours = interval(score_histogram(scores_N, positive_N), 5)
    np.testing.assert_allclose(ours, [low, high], atol=0.25 * (high - low))


def test_with_few_positives_the_interval_of_auroc_holds_the_truth_where_resampling_does_not():
    random, held, resampled = generator(6, "coverage"), 0, 0
    for _ in range(200):
        histogram_2B = drawn_scores(random, 6, 94, 0.9)
        (samples_S,) = resample_aurocs(histogram_2B[None], random, num_samples=200)
        low, high = auroc_interval(histogram_2B, samples_S)
        held += low <= 0.9 <= high
        low, high = np.percentile(samples_S, [2.5, 97.5])
        resampled += low <= 0.9 <= high
    assert held > 0.9 * 200
    assert resampled < 0.88 * 200


@pytest.mark.parametrize("positive", [[], [True, True], [False, False]])
def test_there_is_no_interval_where_a_side_is_empty(positive):
    histogram_2B = score_histogram(np.zeros(len(positive)), np.array(positive, dtype=bool))
    assert interval(histogram_2B, 7) is None
