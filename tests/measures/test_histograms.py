"""csasn/measures/curves.py against scikit-learn on the cases that were counted.

N cases, T thresholds. A histogram knows no order within a bin, so a curve is compared at thresholds on edges of bins.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from csasn.measures.counts import LOGIT_LIMIT, NUM_BINS, auroc, score_histogram
from csasn.measures.curves import (
    MAX_POINTS,
    CalibrationBin,
    calibration_error,
    precision_recall_curve,
    reliability,
    roc_curve,
)
from csasn.platform.randomness import generator

BIN_WIDTH = 2 * LOGIT_LIMIT / NUM_BINS
SOME = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**31)
NONE = np.zeros((2, NUM_BINS), dtype=np.int64)


def scored(seed, num_cases, separation=1.5, share=0.3):
    """(logits, whether positive) of a model better than chance, with at least one case on each side."""
    random = generator(seed, "scored")
    positive_N = np.concatenate([[True, False], random.random(num_cases - 2) < share])
    return random.normal(-1, 1.5, num_cases) + separation * positive_N, positive_N


def on_edges(scores_N):
    """Scores moved down to the edge of their bin, whose order a histogram knows exactly."""
    return np.floor(scores_N / BIN_WIDTH) * BIN_WIDTH


def area(points):
    x_T, y_T = np.array(points).T
    return float(reference.auc(x_T, y_T))


# ---- ROC


@SOME
@given(SEEDS, st.integers(2, 60))
def test_a_roc_curve_of_few_cases_is_scikit_learns(seed, num_cases):
    scores_N, positive_N = scored(seed, num_cases)
    false_T, recall_T, _ = reference.roc_curve(positive_N, on_edges(scores_N), drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(score_histogram(scores_N, positive_N)), np.stack([false_T, recall_T], axis=1))


@pytest.mark.parametrize("num_cases", [300, 5000])
def test_a_thinned_roc_curve_runs_through_points_of_scikit_learns_from_corner_to_corner(num_cases):
    scores_N, positive_N = scored(1, num_cases)
    found = roc_curve(score_histogram(scores_N, positive_N))
    false_T, recall_T, _ = reference.roc_curve(positive_N, on_edges(scores_N), drop_intermediate=False)
    assert len(found) <= MAX_POINTS
    assert (found[0], found[-1]) == ((0, 0), (1, 1))
    assert {(round(x, 9), round(y, 9)) for x, y in found} <= {
        (round(x, 9), round(y, 9)) for x, y in zip(false_T, recall_T, strict=True)
    }
    largest_jump = np.diff(false_T + recall_T).max()
    assert np.diff(np.sum(found, axis=1)).max() <= 2 / (MAX_POINTS - 1) + largest_jump


@pytest.mark.parametrize("num_cases", [40, 300, 5000])
def test_the_area_under_the_roc_curve_is_the_auroc(num_cases):
    scores_N, positive_N = scored(2, num_cases)
    histogram_2B = score_histogram(scores_N, positive_N)
    found = area(roc_curve(histogram_2B))
    assert found == pytest.approx(auroc(histogram_2B), abs=1e-9 if num_cases < MAX_POINTS else 0.002)
    assert found == pytest.approx(reference.roc_auc_score(positive_N, scores_N), abs=0.005)


def test_the_roc_curve_of_a_perfect_model_has_its_corner():
    positive_N = np.arange(1000) < 400
    points = roc_curve(score_histogram(np.where(positive_N, 2.0, -2.0) + np.linspace(-1, 1, 1000), positive_N))
    assert (0.0, 1.0) in points
    assert area(points) == 1


@pytest.mark.parametrize("positive", [[], [True, True], [False, False]])
def test_there_is_no_roc_curve_where_a_side_is_empty(positive):
    assert roc_curve(score_histogram(np.zeros(len(positive)), np.array(positive, dtype=bool))) is None


# ---- precision and recall


@SOME
@given(SEEDS, st.integers(2, 400))
def test_points_of_precision_and_recall_are_scikit_learns_where_recall_rises(seed, num_cases):
    scores_N, positive_N = scored(seed, num_cases)
    found = precision_recall_curve(score_histogram(scores_N, positive_N))
    precision_T, recall_T, _ = reference.precision_recall_curve(positive_N, on_edges(scores_N))
    rising = {(round(r, 9), round(p, 9)) for p, r, below in zip(precision_T, recall_T, recall_T[1:], strict=False) if r > below}
    ours = {(round(r, 9), round(p, 9)) for r, p in found}
    assert ours <= rising
    assert ours == rising or len(rising) > MAX_POINTS >= len(found)
    assert found[-1][0] == 1
    assert (np.diff(np.array(found)[:, 0]) > 0).all()


@pytest.mark.parametrize("num_cases", [100, 5000])
def test_the_points_sum_to_the_average_precision(num_cases):
    scores_N, positive_N = scored(3, num_cases)
    recall_T, precision_T = np.array(precision_recall_curve(score_histogram(scores_N, positive_N))).T
    found = float(np.diff(recall_T, prepend=0) @ precision_T)
    assert found == pytest.approx(reference.average_precision_score(positive_N, scores_N), abs=0.01)


def test_a_curve_of_precision_needs_a_positive_and_no_negative():
    assert precision_recall_curve(score_histogram(np.zeros(2), np.array([False, False]))) is None
    assert precision_recall_curve(score_histogram(np.zeros(2), np.array([True, True]))) == ((1.0, 1.0),)


# ---- calibration


def calibration_of_cases(probability_N, positive_N):
    """Expected calibration error and bins from the cases themselves."""
    tenth_N = np.minimum((probability_N * 10).astype(int), 9)
    rows = [(probability_N[tenth_N == n].mean(), positive_N[tenth_N == n].mean(), int((tenth_N == n).sum())) for n in set(tenth_N)]
    return sum(n * abs(share - mean) for mean, share, n in rows) / len(probability_N), sorted(rows)


@SOME
@given(SEEDS, st.integers(2, 500), st.floats(0, 4))
def test_calibration_is_that_of_the_cases(seed, num_cases, separation):
    scores_N, positive_N = scored(seed, num_cases, separation)
    clear_N = np.abs(expit(scores_N) * 10 % 1 - 0.5) < 0.48  # away from the edges of tenths, which bins straddle
    scores_N, positive_N = scores_N[clear_N], positive_N[clear_N]
    bins = reliability(score_histogram(scores_N, positive_N))
    if not len(scores_N):
        assert bins == ()
        return
    error, rows = calibration_of_cases(expit(scores_N), positive_N)
    np.testing.assert_allclose([(b.probability, b.share, b.num_cases) for b in bins], rows, atol=0.0015)
    assert calibration_error(bins) == pytest.approx(error, abs=0.0015)


@pytest.mark.parametrize("num_cases", [200, 20_000])
def test_the_reliability_curve_is_close_to_scikit_learns(num_cases):
    scores_N, positive_N = scored(5, num_cases)
    bins = reliability(score_histogram(scores_N, positive_N))
    share_T, probability_T = calibration_curve(positive_N, expit(scores_N), n_bins=10)
    np.testing.assert_allclose([b.probability for b in bins], probability_T, atol=0.005)
    np.testing.assert_allclose([b.share for b in bins], share_T, atol=0.03)
    assert sum(b.num_cases for b in bins) == num_cases


def test_a_calibrated_model_has_almost_no_error_and_an_overconfident_one_has():
    random = generator(6, "calibrated")
    scores_N = random.normal(0, 2, 100_000)
    positive_N = random.random(len(scores_N)) < expit(scores_N)
    assert calibration_error(reliability(score_histogram(scores_N, positive_N))) < 0.01
    assert calibration_error(reliability(score_histogram(3 * scores_N, positive_N))) > 0.08


def test_calibration_of_a_few_bins_by_hand():
    bins = (CalibrationBin(0.1, 0.0, 30), CalibrationBin(0.9, 0.5, 10))
    assert calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.4) / 40)
    assert calibration_error(()) is None
    assert reliability(NONE) == ()


def test_probabilities_beyond_the_outermost_bins_are_zero_and_one():
    bins = reliability(score_histogram(np.array([-100.0, 100.0]), np.array([False, True])))
    assert [(round(b.probability, 9), b.share, b.num_cases) for b in bins] == [(0, 0, 1), (1, 1, 1)]


@SOME
@given(SEEDS, st.integers(2, 100), st.integers(2, 100))
def test_bins_of_summed_counts_are_those_of_the_union(seed, here, there):
    parts = [score_histogram(*scored(seed + n, size)) for n, size in enumerate((here, there))]
    union = score_histogram(*(np.concatenate(both) for both in zip(scored(seed, here), scored(seed + 1, there), strict=True)))
    assert reliability(parts[0] + parts[1]) == reliability(union)
    assert roc_curve(parts[0] + parts[1]) == roc_curve(union)
