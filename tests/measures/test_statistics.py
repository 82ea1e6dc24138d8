"""Case-level statistics: against scikit-learn, with weights and ties, and against cases that can be worked out by hand."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from csasn.errors import DataError
from csasn.measures.cases import (
    Cases,
    Classes,
    auroc,
    bootstrap_counts,
    case_weights,
    confusion,
    confusion_at_recall,
    decision_measures,
    measure_names,
    measures,
    percentile_interval,
    t_interval,
)
from server.evidence.estimation import Drawing, compare, compare_at_equal_rare_recall, estimate, require_same_cases
from server.evidence.predictions import Predictions

NAMES = ("benign", "PTC", "FTC", "MTC")
CLASSES = Classes(NAMES, malignant=(1, 2, 3), rare=(2, 3))


def cases_of(labels, logits, adjustment=(0.0, 0.0, 0.0, 0.0)):
    adjusted = np.asarray(logits, float) + adjustment
    log_probability = adjusted - np.log(np.exp(adjusted).sum(axis=1, keepdims=True))
    return Cases(np.asarray(labels, np.int64), np.asarray(logits).argmax(axis=1), log_probability, np.array(adjustment))


def drawn_cases(seed=0, num_cases=200, strength=1.5, adjustment=(-0.3, 0.2, -0.9, -1.2)):
    random = np.random.default_rng(seed)
    labels = random.choice(4, num_cases, p=(0.4, 0.35, 0.15, 0.1))
    logits = random.normal(0, 1, (num_cases, 4)) + strength * np.eye(4)[labels]
    return cases_of(labels, logits, adjustment)


def as_predictions(cases, places=None):
    places = np.arange(len(cases.class_N)) if places is None else places
    return Predictions(cases, np.zeros(len(cases.class_N), np.int64), np.asarray(places, np.int64))


def measured(predictions, drawing):
    return [measures(part.cases, CLASSES, drawing.weights(part)) for part in predictions]


def once(cases):
    return np.ones((1, len(cases.class_N)))


def test_auroc_with_weights_and_ties_equals_scikit_learn():
    random = np.random.default_rng(1)
    scores = random.integers(0, 12, 150).astype(float)  # many ties
    positive = random.random(150) < 0.3
    weights = random.integers(0, 4, (6, 150)) * random.random((6, 1))
    expected = [roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auroc(scores, positive, weights), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([4, 3, 2, 1], [0, 0, 1, 1], 0.0), ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
     ([1, 2, 2, 3], [0, 1, 0, 1], 0.875), ([1, 2], [1, 1], np.nan), ([], [], np.nan)],
)  # fmt: skip
def test_auroc_is_the_share_of_pairs_in_order_and_undefined_without_pairs(scores, positive, expected):
    found = auroc(np.array(scores, float), np.array(positive, bool), np.ones((1, len(scores))))
    np.testing.assert_allclose(found, [expected])


def test_measures_with_weights_equal_scikit_learn():
    cases = drawn_cases()
    weights = np.random.default_rng(2).random((3, len(cases.class_N)))
    found = measures(cases, CLASSES, weights)
    probability = np.exp(cases.log_probability_NK)
    for row, weight in enumerate(weights):
        given = {"y_true": cases.class_N, "y_pred": cases.decision_N, "sample_weight": weight}
        for kind, score in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
            np.testing.assert_allclose([found[f"{kind}.{name}"][row] for name in NAMES], score(**given, average=None))
        np.testing.assert_allclose(found["balanced_accuracy"][row], balanced_accuracy_score(**given))
        np.testing.assert_allclose(found["macro_f1"][row], f1_score(**given, average="macro"))
        np.testing.assert_allclose(
            found["rare_recall"][row], recall_score(**given, labels=[2, 3], average="macro"), err_msg="rare recall"
        )
        each = [roc_auc_score(cases.class_N == c, probability[:, c], sample_weight=weight) for c in range(4)]
        np.testing.assert_allclose([found[f"auroc.{name}"][row] for name in NAMES], each)
        np.testing.assert_allclose(found["macro_auroc"][row], np.mean(each))
        malignant = roc_auc_score(cases.class_N > 0, 1 - probability[:, 0], sample_weight=weight)
        np.testing.assert_allclose(found["malignancy_auroc"][row], malignant)
        benign = recall_score(**given, labels=[0], average=None)
        np.testing.assert_allclose(found["benign_specificity"][row], benign[0])
        brier = sum(brier_score_loss(cases.class_N == c, probability[:, c], sample_weight=weight) for c in range(4))
        np.testing.assert_allclose(found["brier"][row], brier)


def test_calibration_error_of_hand_made_bins():
    """Of ten cases told .85 for class 0 six are of it: |.85 - .6|; the same for class 1, told .15 of which four are."""
    cases = cases_of([0] * 6 + [1] * 4, np.log([[0.85, 0.15]] * 10), (0.0, 0.0))
    np.testing.assert_allclose(measures(cases, Classes(("a", "b")), once(cases))["ece"], 0.25)
    weights = np.array([[1.0] * 6 + [1.5] * 4])  # weighted, half of the cases are of class 0
    np.testing.assert_allclose(measures(cases, Classes(("a", "b")), weights)["ece"], 0.35)


def test_a_calibrated_model_has_little_calibration_error_and_an_overconfident_one_more():
    random = np.random.default_rng(3)
    logits = random.normal(0, 1.5, (4000, 4))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probability.cumsum(axis=1) < random.random((4000, 1))).sum(axis=1)
    calibrated, confident = cases_of(labels, logits), cases_of(labels, 2 * logits)
    assert measures(calibrated, CLASSES, once(calibrated))["ece"][0] < 0.025
    assert measures(confident, CLASSES, once(confident))["ece"][0] > 0.05


def test_undefined_rates_are_no_part_of_means():
    cases = cases_of([0, 0, 1], [[3, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0]])
    found = measures(cases, CLASSES, once(cases))
    assert np.isnan(found["recall.FTC"][0])
    assert np.isnan(found["precision.MTC"][0])
    assert np.isnan(found["rare_recall"][0])
    assert found["balanced_accuracy"][0] == found["macro_f1"][0] == found["macro_auroc"][0] == 1


def test_weighting_to_a_prevalence_equals_a_test_set_that_has_it():
    """Each of twice as many benign cases as there are of another class, by weights and by repetition."""
    cases = drawn_cases(4, 400)
    per_class = [np.flatnonzero(cases.class_N == c)[:20] for c in range(4)]
    equal = cases.chosen(np.concatenate(per_class))
    repeated = cases.chosen(np.concatenate([np.repeat(per_class[0], 2), *per_class[1:]]))
    weights = case_weights(equal.class_N, once(equal), np.array([0.4, 0.2, 0.2, 0.2]))
    np.testing.assert_allclose(weights.sum(), 1)
    found, expected = measures(equal, CLASSES, weights), measures(repeated, CLASSES, once(repeated))
    assert set(found) == set(measure_names(CLASSES))
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], err_msg=name)


def test_a_bootstrap_draws_as_many_cases_of_each_class_as_there_are():
    labels = np.array([0] * 50 + [1] * 7 + [3])
    counts = bootstrap_counts(labels, 400, np.random.default_rng(5))
    for label, number in ((0, 50), (1, 7), (3, 1)):
        assert (counts[:, labels == label].sum(axis=1) == number).all()
    assert np.abs(counts[:, :50].mean(axis=0) - 1).max() < 0.25
    assert counts[:, :50].var() == pytest.approx(1 - 1 / 50, abs=0.05)


def test_the_bootstrap_interval_of_a_rate_is_the_binomial_one():
    """Recall 70 of 100: the normal approximation has a half width of 1.96·√(.7·.3/100)."""
    cases = cases_of([0] * 100, [[1, 0, 0, 0]] * 70 + [[0, 1, 0, 0]] * 30)
    drawing = Drawing([as_predictions(cases)], None, np.random.default_rng(6), 4000)
    found = estimate(measured([as_predictions(cases)], drawing))["recall.benign"]
    half = norm.ppf(0.975) * np.sqrt(0.7 * 0.3 / 100)
    assert found.mean == pytest.approx(0.7)
    np.testing.assert_allclose(found.over_cases, (0.7 - half, 0.7 + half), atol=0.012)
    assert found.over_seeds is None


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    """Two methods that differ in five of two hundred cases: what they share cancels."""
    one = drawn_cases(7)
    decision = one.decision_N.copy()
    wrong = np.flatnonzero(decision != one.class_N)[:5]
    decision[wrong] = one.class_N[wrong]
    better = Cases(one.class_N, decision, one.log_probability_NK, one.adjustment_K)
    pair = [as_predictions(better), as_predictions(one)]
    drawing = Drawing(pair, None, np.random.default_rng(8), 1000)
    paired = compare(measured(pair[:1], drawing), measured(pair[1:], drawing))["balanced_accuracy"]
    alone = estimate(measured(pair[:1], drawing))["balanced_accuracy"]
    width = paired.over_cases[1] - paired.over_cases[0]
    assert 0 <= paired.over_cases[0] < paired.mean < paired.over_cases[1]
    assert width < 0.6 * (alone.over_cases[1] - alone.over_cases[0])


def test_seeds_on_the_same_cases_do_not_narrow_the_interval_over_cases_and_seeds_on_others_do():
    cases = drawn_cases(9)
    same = [as_predictions(cases)] * 4
    other = [as_predictions(cases, np.arange(len(cases.class_N)) + 1000 * seed) for seed in range(4)]
    widths = []
    for predictions in (same[:1], same, other):
        drawing = Drawing(predictions, None, np.random.default_rng(10), 1500)
        low, high = estimate(measured(predictions, drawing))["macro_f1"].over_cases
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.02)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.12)


def test_a_case_without_a_value_in_a_seed_leaves_the_other_seeds_in_the_mean():
    with_rare = cases_of([0, 2, 2], [[2, 0, 0, 0], [0, 0, 2, 0], [2, 0, 0, 0]])
    without = cases_of([0, 1], [[2, 0, 0, 0], [0, 2, 0, 0]])
    predictions = [as_predictions(with_rare), as_predictions(without, [10, 11])]
    found = estimate(measured(predictions, Drawing(predictions, None, np.random.default_rng(11), 50)))["recall.FTC"]
    assert (found.mean, found.values, found.over_seeds) == (0.5, (0.5, None), None)


def test_variants_scored_on_different_cases_are_not_compared():
    one, other = as_predictions(drawn_cases(12)), as_predictions(drawn_cases(13))
    with pytest.raises(DataError, match="a and b were scored on different cases"):
        require_same_cases([one], [other], ("a", "b"))


def test_rare_precision_is_of_decisions_whichever_rare_class_they_are_for():
    """FTC decided four times, right twice; MTC never, or once and wrongly: no class drops out of a mean."""
    never = np.array([[[6, 0, 1, 0], [0, 5, 1, 0], [1, 0, 2, 0], [2, 0, 0, 0]]], float)
    once_wrong = never + np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert decision_measures(never, CLASSES)["rare_precision"] == 2 / 4
    assert decision_measures(once_wrong, CLASSES)["rare_precision"] == 2 / 5


def test_the_interval_over_seeds_is_students():
    """Of 1, 2, 3: mean 2, standard error 1/√3, t of two degrees of freedom 4.3027."""
    np.testing.assert_allclose(t_interval(np.array([1.0, 2.0, 3.0])), (2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rtol=1e-6)
    assert t_interval(np.array([1.0, np.nan])) is None


def test_the_percentile_interval_leaves_out_a_fortieth_on_each_side_and_what_is_undefined():
    samples = np.concatenate([np.linspace(0, 1, 1001), [np.nan] * 50])
    np.testing.assert_allclose(percentile_interval(samples), (0.025, 0.975))
    assert percentile_interval(np.concatenate([samples, [np.nan] * 10])) is None  # more than a twentieth has no value
    assert percentile_interval(np.array([np.nan])) is None


def test_the_same_method_with_shifted_logits_is_no_better_at_equal_rare_recall():
    """A method against itself with rare logits raised, by eight shifts: at equal recall no difference is left."""
    cases = drawn_cases(14, 1500)
    logits = cases.log_probability_NK - cases.adjustment_K
    shifts = np.linspace(0.4, 1.2, 8)
    raised = [as_predictions(cases_of(cases.class_N, logits + np.array([0, 0, s, s]), cases.adjustment_K)) for s in shifts]
    same = [as_predictions(cases)] * len(shifts)
    drawing = Drawing(same, np.array([0.6, 0.3, 0.06, 0.04]), np.random.default_rng(15), 100)
    plain = compare(measured(raised, drawing), measured(same, drawing))
    equal = compare_at_equal_rare_recall(raised, same, CLASSES, drawing)
    assert plain["rare_recall"].mean > 0.05
    assert plain["rare_precision"].mean < -0.02
    for name in ("rare_recall", "macro_f1", "rare_precision", "benign_specificity", "recall.FTC"):
        assert equal[name].mean == pytest.approx(0, abs=5e-3), name
        assert equal[name].over_cases == pytest.approx((0, 0), abs=1e-2), name


def test_the_shift_meets_the_recall_exactly_in_every_sample_or_says_that_none_does():
    cases = drawn_cases(16)
    weights = np.random.default_rng(17).integers(0, 3, (40, len(cases.class_N))).astype(float)
    asked = np.linspace(0, 1, 40)
    found = confusion_at_recall(cases, (2, 3), asked, weights)
    recall = decision_measures(found, CLASSES)["rare_recall"]
    reached = np.isfinite(recall)
    assert 20 < reached.sum() < 40  # a case of FTC that looks like MTC more is found by no shift
    np.testing.assert_allclose(recall[reached], asked[reached], atol=1e-9)
    np.testing.assert_allclose(found[reached].sum(axis=(1, 2)), weights.sum(axis=1)[reached])
    assert not reached[asked == 1].any()


def test_a_shift_by_hand():
    """FTC lies 0, 1, 2, 3 below the common class. At recall .5 any shift from 0 to 2 will do, and the middle is taken."""
    logits = np.array([[1, 0, 1, -9], [2, 0, 1, -9], [3, 0, 1, -9], [4, 0, 1, -9]], float)
    cases = cases_of([2, 0, 2, 0], logits)
    found = confusion_at_recall(cases, (2, 3), np.array([0.5, 0.75, 1.0]), np.ones((3, 4)))
    half, between, full = ([[found[b, true, decided] for decided in (0, 2)] for true in (0, 2)] for b in range(3))
    assert half == [[1.5, 0.5], [1, 1]]
    assert between == [[1.25, 0.75], [0.5, 1.5]]
    assert full == [[1, 1], [0, 2]]


def test_the_confusion_counts_by_weight():
    found = confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, np.array([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(found, [[[1, 2], [0, 4]], [[1, 0], [0, 0]]])


def test_a_calibration_error_has_no_interval_over_cases_and_its_difference_has():
    """Drawn anew, cases raise it: its interval would lie above its value."""
    drawn = np.linspace(0.06, 0.07, 101)
    measured = [{"ece": np.concatenate([[0.05], drawn]), "macro_f1": np.concatenate([[0.5], drawn + 0.44])}] * 3
    found = estimate(measured)
    assert (found["ece"].mean, found["ece"].over_cases) == (pytest.approx(0.05), None)
    assert found["macro_f1"].over_cases is not None
    assert compare(measured, measured)["ece"].over_cases == (0.0, 0.0)
