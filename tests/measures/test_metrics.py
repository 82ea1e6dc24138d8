"""csasn/measures/counts.py against scikit-learn, and its properties.

K classes, N cases. Scores are logits of a probability. A histogram cannot order two cases that fall into one bin, so AUROC is exact
where different scores lie a bin apart, within half the share of such pairs everywhere, and within .002 on the scores of a model.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn import metrics as reference

from csasn.errors import TrainingError
from csasn.measures.counts import (
    FIXED_POINT,
    LOGIT_LIMIT,
    MAX_CASE_LOSS,
    NUM_BINS,
    auroc,
    case_layout,
    count_cases,
    macro_auroc_interval,
    metrics_from_counts,
    one_against_rest,
    resample_aurocs,
    score_histogram,
)
from csasn.platform.randomness import generator

SOME = settings(deadline=None, max_examples=40)
BIN_WIDTH = 2 * LOGIT_LIMIT / NUM_BINS
SEEDS = st.integers(0, 2**31)


def auroc_of(scores_N, positive_N):
    return auroc(score_histogram(np.asarray(scores_N, dtype=np.float64), np.asarray(positive_N, dtype=bool)))


def simulated(seed, num_cases, num_classes, separation=2.0):
    """(logits, classes) of a model that is better than chance; every class has cases, the last few are rare."""
    random = generator(seed, "simulated")
    shares = 0.5 ** np.arange(num_classes)
    classes_N = np.concatenate(
        [np.arange(num_classes), random.choice(num_classes, num_cases - num_classes, p=shares / shares.sum())]
    )
    logits_NK = random.normal(0, 1.5, (num_cases, num_classes))
    logits_NK[np.arange(num_cases), classes_N] += separation
    return logits_NK, classes_N


@st.composite
def decided_cases(draw):
    """(true classes, decided classes, K), also where a class is never true or never decided."""
    num_classes, num_cases = draw(st.integers(2, 6)), draw(st.integers(1, 60))
    values = arrays(np.int64, num_cases, elements=st.integers(0, num_classes - 1))
    return draw(values), draw(values), num_classes


def deciding_logits(decided_N, num_classes):
    return 4.0 * np.eye(num_classes)[decided_N]


# ---- AUROC


def well_spread(random, num_positive, num_negative):
    return random.normal(0, 2, num_positive) + 2, random.normal(0, 2, num_negative)


def crowded_at_zero(random, num_positive, num_negative):
    """Probabilities from 1e-10 to 1e-6."""
    return random.normal(-17.5, 1.6, num_positive), random.normal(-19, 1.6, num_negative)


def crowded_at_one(random, num_positive, num_negative):
    """One minus probabilities from 1e-10 to 1e-6."""
    return random.normal(19, 1.6, num_positive), random.normal(17.5, 1.6, num_negative)


def crowded_at_both(random, num_positive, num_negative):
    """A model that is sure of every case, and wrong on one in five."""
    signs = [np.where(random.random(number) < share, 1, -1) for number, share in ((num_positive, 0.8), (num_negative, 0.2))]
    return tuple(sign * 19.5 + random.normal(0, 1.5, sign.size) for sign in signs)


def tied(random, num_positive, num_negative):
    """Scores in steps of a twentieth of a logit, so that every score is shared by many."""
    return tuple(np.round(20 * scores) / 20 for scores in well_spread(random, num_positive, num_negative))


def mostly_one_score(random, num_positive, num_negative):
    positives, negatives = well_spread(random, num_positive, num_negative)
    return np.where(random.random(num_positive) < 0.7, -3.0, positives), np.where(
        random.random(num_negative) < 0.9, -3.0, negatives
    )


MODELS = [well_spread, crowded_at_zero, crowded_at_one, crowded_at_both, tied, mostly_one_score]


@pytest.mark.parametrize(("num_positive", "num_negative"), [(400, 1600), (1000, 1000), (20, 6000), (3000, 30)])
@pytest.mark.parametrize("model", MODELS)
def test_auroc_of_a_histogram_is_within_two_thousandths_of_scikit_learn(model, num_positive, num_negative):
    positive_N = np.arange(num_positive + num_negative) < num_positive
    for seed in range(4):
        scores_N = np.concatenate(model(generator(seed, model.__name__), num_positive, num_negative))
        assert abs(auroc_of(scores_N, positive_N) - reference.roc_auc_score(positive_N, scores_N)) <= 0.002


SCORES = st.one_of(st.floats(-30, 30), st.floats(-0.2, 0.2), st.floats(-1e4, 1e4), st.sampled_from([-20.7, 0.0, 20.7]))


@SOME
@given(st.lists(SCORES, min_size=1, max_size=30), st.lists(SCORES, min_size=1, max_size=30))
def test_auroc_is_off_by_at_most_half_the_share_of_pairs_that_a_bin_cannot_order(positives, negatives):
    scores_N, positive_N = np.array(positives + negatives), np.arange(len(positives) + len(negatives)) < len(positives)
    histogram_2B = score_histogram(scores_N, positive_N)
    in_one_bin = int((histogram_2B[0] * histogram_2B[1]).sum())
    equal = int((np.array(positives)[:, None] == np.array(negatives)[None]).sum())
    error = abs(auroc(histogram_2B) - reference.roc_auc_score(positive_N, scores_N))
    assert error <= (in_one_bin - equal) / 2 / (len(positives) * len(negatives)) + 1e-12


PLACES = st.integers(-NUM_BINS // 2, NUM_BINS // 2 - 1)


@SOME
@given(st.lists(PLACES, min_size=1, max_size=25), st.lists(PLACES, min_size=1, max_size=25))
def test_auroc_is_exact_where_scores_are_equal_or_a_bin_apart_however_few(positives, negatives):
    scores_N = (np.array(positives + negatives) + 0.5) * BIN_WIDTH
    positive_N = np.arange(scores_N.size) < len(positives)
    assert auroc_of(scores_N, positive_N) == pytest.approx(reference.roc_auc_score(positive_N, scores_N), abs=1e-12)


@SOME
@given(st.lists(SCORES, min_size=1, max_size=20), st.lists(SCORES, min_size=1, max_size=20))
def test_auroc_of_the_other_side_is_its_complement(positives, negatives):
    scores_N, positive_N = np.array(positives + negatives), np.arange(len(positives) + len(negatives)) < len(positives)
    assert auroc_of(scores_N, ~positive_N) == pytest.approx(1 - auroc_of(scores_N, positive_N), abs=1e-12)


def test_auroc_by_hand():
    assert auroc_of([3, 2, 1, 0], [1, 1, 0, 0]) == 1
    assert auroc_of([0, 1, 2, 3], [1, 1, 0, 0]) == 0
    assert auroc_of([5, 5, 5], [1, 0, 0]) == 0.5
    assert auroc_of([3, 1, 2, 1], [1, 1, 0, 0]) == 0.625  # of four pairs two are won, one lost, one tied
    assert auroc_of([99, 1e4], [1, 0]) == 0.5  # both beyond the limit: the outermost bin is open


@pytest.mark.parametrize("positive", [[], [1, 1, 1], [0, 0]])
def test_auroc_is_none_where_a_side_is_empty(positive):
    assert auroc_of(np.zeros(len(positive)), positive) is None


@SOME
@given(st.lists(st.tuples(SCORES, st.booleans()), max_size=40))
def test_a_histogram_holds_every_case_once_on_its_side(cases):
    scores_N, positive_N = np.array([score for score, _ in cases]), np.array([side for _, side in cases], dtype=bool)
    histogram_2B = score_histogram(scores_N, positive_N)
    assert histogram_2B.shape == (2, NUM_BINS)
    assert histogram_2B.dtype == np.int64
    assert histogram_2B.sum(axis=1).tolist() == [int((~positive_N).sum()), int(positive_N.sum())]


# ---- one against the rest


@SOME
@given(st.integers(2, 6).flatmap(lambda k: arrays(np.float64, (5, k), elements=st.floats(-8, 8))), st.data())
def test_one_against_rest_is_the_logit_of_the_summed_probability(logits_NK, data):
    num_classes = logits_NK.shape[1]
    chosen = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=num_classes - 1, unique=True))
    share_N = softmax(logits_NK, axis=1)[:, chosen].sum(axis=1)
    np.testing.assert_allclose(one_against_rest(logits_NK, chosen), np.log(share_N) - np.log1p(-share_N), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_one_against_rest_is_finite_and_ordered_where_probabilities_round_to_zero_and_one(size):
    logits_NK = np.array([[size, -size, 0.0], [-size, size, 0.0], [size, size, size], [-size, -size, -size], [0.0, 1.0, size]])
    scores_N = one_against_rest(logits_NK, (0,))
    np.testing.assert_allclose(scores_N, [size, -2 * size, -np.log(2), -np.log(2), -size], rtol=1e-12)
    np.testing.assert_allclose(one_against_rest(logits_NK, (1, 2)), -scores_N, rtol=1e-12)


def test_probabilities_of_a_billionth_stay_apart():
    tiny = np.log(1e-9)
    logits_NK = np.array([[0, tiny], [0, tiny - 0.5], [tiny, 0], [tiny - 0.5, 0]])
    assert len(set(np.nonzero(score_histogram(one_against_rest(logits_NK, (0,)), np.ones(4, dtype=bool))[1])[0])) == 4


# ---- counting cases


@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_aurocs_of_counted_cases_agree_with_scikit_learn(num_classes):
    logits_NK, classes_N = simulated(3, 3000, num_classes)
    malignant = (1,) if num_classes == 2 else (1, 2)
    found = metrics_from_counts(count_cases(logits_NK, logits_NK, classes_N, malignant))
    shares_NK = softmax(logits_NK, axis=1)
    of_class = [reference.roc_auc_score(classes_N == c, shares_NK[:, c]) for c in range(num_classes)]
    np.testing.assert_allclose([item.auroc for item in found.per_class], of_class, atol=0.002)
    assert found.macro_auroc == pytest.approx(np.mean(of_class), abs=0.002)
    of_malignancy = reference.roc_auc_score(np.isin(classes_N, malignant), shares_NK[:, malignant].sum(axis=1))
    assert found.malignancy_auroc == pytest.approx(of_malignancy, abs=0.002)


def test_two_classes_have_the_same_auroc():
    logits_NK, classes_N = simulated(4, 500, 2)
    found = metrics_from_counts(count_cases(logits_NK, logits_NK, classes_N, (1,)))
    assert found.per_class[0].auroc == pytest.approx(found.per_class[1].auroc, abs=1e-3)
    assert found.malignancy_auroc == found.per_class[1].auroc


@SOME
@given(SEEDS, st.integers(1, 40), st.integers(2, 5))
def test_loss_is_the_log_loss_of_the_reported_probabilities(seed, num_cases, num_classes):
    logits_NK, classes_N = simulated(seed, max(num_cases, num_classes), num_classes)
    adjusted_NK = logits_NK + generator(seed, "prior").normal(0, 1, num_classes)
    found = metrics_from_counts(count_cases(logits_NK, adjusted_NK, classes_N, ()))
    expected = reference.log_loss(classes_N, softmax(adjusted_NK, axis=1), labels=range(num_classes))
    assert found.loss == pytest.approx(expected, abs=1 / FIXED_POINT)


def test_the_loss_of_one_case_is_bounded():
    sure_and_wrong = np.array([[1e4, -1e4], [0.0, 0.0]])
    found = metrics_from_counts(count_cases(sure_and_wrong, sure_and_wrong, np.array([1, 0]), ()))
    assert found.loss == pytest.approx((MAX_CASE_LOSS + np.log(2)) / 2, abs=1e-4)


def test_the_unadjusted_logits_decide_and_the_adjusted_ones_are_scored():
    decision_NK, adjusted_NK = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[5.0, 0.0], [3.0, 0.0]])
    counts = count_cases(decision_NK, adjusted_NK, np.array([0, 1]), ())
    assert counts["confusion"].tolist() == [[0, 1], [0, 1]]
    assert metrics_from_counts(counts).per_class[0].auroc == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["decision", "adjusted"])
def test_logits_that_are_not_finite_are_refused(broken, which):
    finite_NK, broken_NK = np.zeros((2, 2)), np.array([[0.0, 1.0], [broken, 0.0]])
    pair = (broken_NK, finite_NK) if which == "decision" else (finite_NK, broken_NK)
    with pytest.raises(TrainingError, match="logits are not finite"):
        count_cases(*pair, np.array([0, 1]), ())


@SOME
@given(SEEDS, st.integers(5, 60), st.integers(2, 5), st.lists(st.integers(0, 60), max_size=4), st.randoms())
def test_summed_counts_of_sites_are_the_counts_of_the_union_in_any_order(seed, num_cases, num_classes, cuts, shuffle):
    logits_NK, classes_N = simulated(seed, num_cases, num_classes)
    adjusted_NK, layout = logits_NK - np.arange(num_classes), case_layout(num_classes, malignancy=True)

    def packed(cases):
        return layout.pack(count_cases(logits_NK[cases], adjusted_NK[cases], classes_N[cases], (1,)))

    sites = [packed(cases) for cases in np.split(generator(seed, "cases").permutation(num_cases), sorted(cuts))]
    shuffle.shuffle(sites)
    union = packed(np.arange(num_cases))
    assert sum(sites).tolist() == union.tolist()
    assert metrics_from_counts(layout.unpack(sum(sites))) == metrics_from_counts(layout.unpack(union))


def test_a_site_without_cases_counts_nothing():
    nothing = case_layout(3, malignancy=True).pack(
        count_cases(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, dtype=np.int64), (2,))
    )
    assert nothing.dtype == np.int64
    assert not nothing.any()


@pytest.mark.parametrize("malignancy", [False, True])
def test_counted_cases_fit_their_layout(malignancy):
    logits_NK, classes_N = simulated(9, 20, 4)
    counts = count_cases(logits_NK, logits_NK, classes_N, (1, 2, 3) if malignancy else ())
    assert case_layout(4, malignancy).pack(counts).sum() == sum(block.sum() for block in counts.values())


# ---- metrics from counts


@SOME
@given(decided_cases())
def test_rates_agree_with_scikit_learn(drawn):
    classes_N, decided_N, num_classes = drawn
    logits_NK = deciding_logits(decided_N, num_classes)
    found = metrics_from_counts(count_cases(logits_NK, logits_NK, classes_N, ()))
    every, present = list(range(num_classes)), sorted(set(classes_N.tolist()))
    options = {"labels": every, "average": None, "zero_division": np.nan}
    as_floats = [[np.nan if rate is None else rate for rate in (c.precision, c.recall, c.f1)] for c in found.per_class]
    expected = reference.precision_recall_fscore_support(classes_N, decided_N, **options)
    np.testing.assert_allclose(np.array(as_floats)[:, 0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(np.array(as_floats)[:, 1], expected[1], rtol=1e-12)
    np.testing.assert_allclose(np.array(as_floats)[:, 2], expected[2], rtol=1e-12)
    assert [c.support for c in found.per_class] == expected[3].tolist()
    assert found.confusion == tuple(map(tuple, reference.confusion_matrix(classes_N, decided_N, labels=every).tolist()))
    of_present = {"labels": present, "average": "macro", "zero_division": 0}
    assert found.balanced_accuracy == pytest.approx(reference.recall_score(classes_N, decided_N, **of_present), rel=1e-12)
    assert found.macro_f1 == pytest.approx(reference.f1_score(classes_N, decided_N, **of_present), rel=1e-12)


def test_balanced_accuracy_is_scikit_learns():
    logits_NK, classes_N = simulated(5, 400, 4)
    found = metrics_from_counts(count_cases(logits_NK, logits_NK, classes_N, ()))
    expected = reference.balanced_accuracy_score(classes_N, logits_NK.argmax(axis=1))
    assert found.balanced_accuracy == pytest.approx(expected, rel=1e-12)


def test_rates_are_none_where_they_are_undefined():
    logits_NK = deciding_logits(np.array([0, 0, 1]), 4)
    found = metrics_from_counts(count_cases(logits_NK, logits_NK, np.array([0, 2, 2]), ()))
    undecided_without_cases, decided_without_cases, never_decided = found.per_class[3], found.per_class[1], found.per_class[2]
    rates = [
        undecided_without_cases.recall,
        undecided_without_cases.precision,
        undecided_without_cases.f1,
        undecided_without_cases.auroc,
    ]
    assert rates == [None] * 4
    assert (decided_without_cases.recall, decided_without_cases.precision, decided_without_cases.f1) == (None, 0, 0)
    assert (never_decided.recall, never_decided.precision, never_decided.f1) == (0, None, 0)
    assert found.balanced_accuracy == 0.5  # of the two classes that have cases
    assert found.malignancy_auroc is None


def test_metrics_of_no_case_are_none():
    layout = case_layout(3, malignancy=True)
    found = metrics_from_counts(layout.unpack(np.zeros(layout.size, dtype=np.int64)))
    assert (found.macro_auroc, found.balanced_accuracy, found.macro_f1, found.loss, found.malignancy_auroc) == (None,) * 5
    assert [item.support for item in found.per_class] == [0, 0, 0]


# ---- interval


def interval(scores_K2B, seed=0, **options):
    return macro_auroc_interval(scores_K2B, resample_aurocs(scores_K2B, generator(seed, "interval"), **options))


def bootstrap_over_cases(logits_NK, classes_N, seed=0, num_samples=300):
    random, found = generator(seed, "bootstrap"), []
    for _ in range(num_samples):
        cases = random.integers(0, len(classes_N), len(classes_N))
        found.append(metrics_from_counts(count_cases(logits_NK[cases], logits_NK[cases], classes_N[cases], ())).macro_auroc)
    return np.percentile(found, [2.5, 97.5])


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_the_interval_is_close_to_the_bootstrap_over_cases(num_classes):
    logits_NK, classes_N = simulated(num_classes, 400, num_classes, separation=1.5)
    low, high = interval(count_cases(logits_NK, logits_NK, classes_N, ())["scores"])
    expected_low, expected_high = bootstrap_over_cases(logits_NK, classes_N)
    assert (high - low) / (expected_high - expected_low) == pytest.approx(1, abs=0.17)
    np.testing.assert_allclose([low, high], [expected_low, expected_high], atol=0.2 * (expected_high - expected_low))


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(6, 80), st.integers(2, 5))
def test_the_interval_covers_the_estimate_and_stays_within_zero_and_one(seed, num_cases, num_classes):
    logits_NK, classes_N = simulated(seed, num_cases, num_classes)
    counts = count_cases(logits_NK, logits_NK, classes_N, ())
    low, high = interval(counts["scores"], num_samples=200)
    assert 0 <= low <= metrics_from_counts(counts).macro_auroc + 1e-12
    assert metrics_from_counts(counts).macro_auroc - 1e-12 <= high <= 1


def test_the_interval_is_the_same_for_the_same_generator():
    logits_NK, classes_N = simulated(6, 120, 4)
    scores_K2B = count_cases(logits_NK, logits_NK, classes_N, ())["scores"]
    assert interval(scores_K2B, seed=1) == interval(scores_K2B, seed=1)
    assert interval(scores_K2B, seed=1) != interval(scores_K2B, seed=2)


def test_the_interval_narrows_with_the_square_root_of_the_cases():
    logits_NK, classes_N = simulated(7, 150, 3)
    scores_K2B = count_cases(logits_NK, logits_NK, classes_N, ())["scores"]
    few, many = interval(scores_K2B), interval(16 * scores_K2B)
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(4, rel=0.15)


def test_the_interval_of_a_perfect_model_is_one():
    logits_NK, classes_N = deciding_logits(np.arange(30) % 3, 3), np.arange(30) % 3
    assert interval(count_cases(logits_NK, logits_NK, classes_N, ())["scores"]) == (1, 1)


def test_the_interval_leaves_out_a_class_without_cases_and_is_none_where_none_has():
    logits_NK, classes_N = simulated(8, 100, 3)
    scores_K2B = count_cases(logits_NK, logits_NK, classes_N, ())["scores"]
    without = np.concatenate([scores_K2B, np.stack([scores_K2B[0].sum(axis=0), np.zeros(NUM_BINS, dtype=np.int64)])[None]])
    assert interval(without) == interval(scores_K2B)
    assert interval(without[3:]) is None
