"""csasn/federated/weighting.py and class_weightings/ against vectors of an independent implementation, and its properties.

K classes; a confusion is [true, decided]; sums are (3, K) true positives, false positives, false negatives.
"""

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import csasn.errors
from csasn.federated import weighting
from csasn.federated.class_weightings import balanced, dynamic
from csasn.platform.configuration import validate
from csasn.recipe import ClassWeighting

VECTORS = Path(__file__).parents[1] / "vectors"
SCRIPT = VECTORS / "make_weighting.py"
COMMITTED = json.loads((VECTORS / "weighting.json").read_text(encoding="utf-8"))
ACCEPTED, REFUSED = COMMITTED["accepted"], COMMITTED["refused"]

SOME = settings(deadline=None, max_examples=40)
COUNTS = st.one_of(st.integers(0, 4), st.integers(0, 60), st.integers(0, 100_000))
NUM_CLASSES = st.integers(2, 7)


def vectors(function):
    return pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in ACCEPTED[function]])


def integers(values):
    return np.array(values, dtype=np.int64)


def floats(values):
    return np.array(values, dtype=np.float64)


def class_weighting(values):
    return validate(ClassWeighting, values, "study.yaml")


def confusion(num_classes):
    return arrays(np.int64, (num_classes, num_classes), elements=COUNTS)


def confusions(num_classes, min_size=0, max_size=6):
    return st.lists(confusion(num_classes), min_size=min_size, max_size=max_size)


def histograms(num_classes):
    return arrays(np.int64, num_classes, elements=COUNTS)


def before_normalising(omega_K, sums_3K, prior_K):
    with mock.patch.object(dynamic, "normalise", lambda weights_K, _: weights_K):
        return dynamic.step_difficulty(omega_K, sums_3K, prior_K)


@st.composite
def situations(draw):
    """(ω, prior, sums) as a run may meet them."""
    num_classes = draw(NUM_CLASSES)
    prior_K = weighting.class_prior(draw(histograms(num_classes)))
    raw_K = draw(arrays(np.float64, num_classes, elements=st.floats(0.01, 100)))
    return weighting.normalise(raw_K, prior_K), prior_K, weighting.class_sums(draw(confusion(num_classes)))


# ---- vectors


def test_the_script_makes_the_committed_vectors_without_our_code_or_any_package():
    made = subprocess.run([sys.executable, "-I", "-S", SCRIPT], capture_output=True, check=True, timeout=300, encoding="utf-8")
    assert made.stdout == (VECTORS / "weighting.json").read_text(encoding="utf-8")


@vectors("class_prior")
def test_prior_equals_vector(vector):
    np.testing.assert_allclose(weighting.class_prior(integers(vector["histogram"])), vector["output"], rtol=1e-15)


@vectors("class_sums")
def test_class_sums_equal_vector(vector):
    sums_3K = weighting.class_sums(integers(vector["confusion"]))
    assert sums_3K.tolist() == vector["output"]
    assert sums_3K.dtype == np.int64


@vectors("shrunk_f1")
def test_shrunk_f1_equals_vector(vector):
    np.testing.assert_allclose(dynamic.shrunk_f1(integers(vector["sums"])), vector["output"], rtol=1e-14)


@vectors("difficulty_target")
def test_difficulty_target_equals_vector(vector):
    np.testing.assert_allclose(dynamic.difficulty_target(integers(vector["sums"])), vector["output"], rtol=1e-9)


@vectors("normalise")
def test_normalised_weights_equal_vector(vector):
    found_K = weighting.normalise(floats(vector["weights"]), floats(vector["prior"]))
    np.testing.assert_allclose(found_K, vector["output"], rtol=1e-13)


@vectors("step_difficulty")
def test_step_equals_vector(vector):
    prior_K = weighting.class_prior(integers(vector["histogram"]))
    found_K = dynamic.step_difficulty(floats(vector["omega"]), integers(vector["sums"]), prior_K)
    np.testing.assert_allclose(found_K, vector["output"], rtol=1e-10)


@vectors("history")
def test_every_round_of_a_history_equals_vector(vector):
    histogram_K, rounds = integers(vector["histogram"]), [integers(sums) for sums in vector["rounds"]]
    for num_rounds, expected in enumerate([[1.0] * len(histogram_K), *vector["output"]]):
        weights = weighting.class_weights(ClassWeighting(), histogram_K, rounds[:num_rounds])
        np.testing.assert_allclose(weights.omega_K, expected, rtol=1e-10)


@vectors("balanced_weights")
def test_balanced_weights_equal_vector(vector):
    histogram_K = integers(vector["histogram"])
    found_K = balanced.balanced_weights(histogram_K, weighting.class_prior(histogram_K), vector["beta"])
    np.testing.assert_allclose(found_K, vector["output"], rtol=1e-11)


@vectors("class_weights")
def test_weights_of_each_mode_equal_vector(vector):
    rounds = [integers(sums) for sums in vector["rounds"]]
    weights = weighting.class_weights(class_weighting(vector["settings"]), integers(vector["histogram"]), rounds)
    np.testing.assert_allclose(weights.omega_K, vector["output"]["omega"], rtol=1e-10)
    np.testing.assert_allclose(weights.prior_K, vector["output"]["prior"], rtol=1e-15)
    for name, found_K in (("offset", weights.offset_K), ("adjustment", weights.adjustment_K)):
        np.testing.assert_allclose(found_K, vector["output"][name], rtol=1e-10, atol=1e-12)


def call_refused(vector):
    inputs = {name: np.array(value) for name, value in vector.items() if name in ("histogram", "confusion", "sums")}
    inputs |= {name: floats(value) for name, value in vector.items() if name in ("weights", "omega", "prior")}
    match vector["function"]:
        case "class_prior":
            weighting.class_prior(floats(inputs["histogram"]) if inputs["histogram"].dtype.kind in "fU" else inputs["histogram"])
        case "class_sums":
            weighting.class_sums(inputs["confusion"])
        case "normalise":
            weighting.normalise(inputs["weights"], inputs["prior"], *vector.get("bounds", []))
        case "step_difficulty":
            dynamic.step_difficulty(inputs["omega"], inputs["sums"], inputs["prior"])
        case "class_weights":
            weighting.class_weights(ClassWeighting(), inputs["histogram"], [integers(sums) for sums in vector["rounds"]])
        case "settings":
            class_weighting(vector["settings"])
        case unknown:
            raise AssertionError(unknown)


@pytest.mark.parametrize("vector", [pytest.param(v, id=f"{v['function']}: {v['name']}") for v in REFUSED])
def test_vector_is_refused_with_its_error(vector):
    with pytest.raises(getattr(csasn.errors, vector["error"])) as caught:
        call_refused(vector)
    assert type(caught.value).__name__ == vector["error"]
    assert vector["phrase"] in caught.value.message
    assert caught.value.hint


# ---- prior and sums


@SOME
@given(NUM_CLASSES.flatmap(histograms))
def test_prior_sums_to_one_and_no_class_falls_below_the_floor(histogram_K):
    prior_K = weighting.class_prior(histogram_K)
    assert prior_K.sum() == pytest.approx(1, abs=1e-12)
    assert prior_K.min() >= weighting.PRIOR_FLOOR / np.maximum(histogram_K, weighting.PRIOR_FLOOR).sum() * (1 - 1e-12)


@SOME
@given(NUM_CLASSES.flatmap(confusion))
def test_class_sums_count_every_case_and_every_decision_once(confusion_KK):
    tp, fp, fn = weighting.class_sums(confusion_KK)
    assert (tp + fn).tolist() == confusion_KK.sum(axis=1).tolist()
    assert (tp + fp).tolist() == confusion_KK.sum(axis=0).tolist()


@SOME
@given(NUM_CLASSES.flatmap(lambda k: st.tuples(confusions(k, 2, 4), st.randoms())))
def test_order_of_the_sites_changes_no_bit(drawn):
    sites, shuffle = drawn
    shuffled = list(sites)
    shuffle.shuffle(shuffled)
    histogram_K = integers(sites[0].sum(axis=1))
    of_the_sum = weighting.class_weights(ClassWeighting(), histogram_K, [weighting.class_sums(sum(sites))])
    of_the_sums = weighting.class_weights(ClassWeighting(), histogram_K, [sum(weighting.class_sums(site) for site in shuffled)])
    assert of_the_sum.omega_K.tolist() == of_the_sums.omega_K.tolist()


# ---- target


@SOME
@given(NUM_CLASSES.flatmap(confusion))
def test_a_class_with_fewer_than_five_cases_has_target_one(confusion_KK):
    few_K = confusion_KK.sum(axis=1) < 5
    targets_K = dynamic.difficulty_target(weighting.class_sums(confusion_KK))
    assert (targets_K[few_K] == 1).all()
    if not few_K.all():
        assert (targets_K[~few_K] ** 2).mean() == pytest.approx(1, abs=1e-9)  # q² = D / D̄


def test_the_fifth_case_gives_a_class_a_target():
    four, five = integers([[40, 20, 0], [3, 2, 3], [1, 0, 4]]), integers([[40, 20, 0], [3, 2, 3], [1, 0, 5]])
    assert dynamic.difficulty_target(four)[2] == 1
    assert dynamic.difficulty_target(five)[2] > 1.1


@pytest.mark.parametrize("num_cases", [5, 50, 10**6, 10**15])
def test_a_perfect_classifier_keeps_every_weight_at_one(num_cases):
    history = [weighting.class_sums(np.diag(integers([num_cases, 5, 17])))] * 30
    weights = weighting.class_weights(ClassWeighting(), integers([4000, 30, 90]), history)
    np.testing.assert_allclose(weights.omega_K, 1, atol=1e-12)


def test_counts_of_any_size_give_finite_weights():
    for large in (10**9, 10**17, 2**62):  # 2**62 + 2**62 leaves int64
        sums_3K = integers([[large, 10, 3], [0, large, 5], [large, 0, 5]])
        omega_K = dynamic.step_difficulty(np.ones(3), sums_3K, floats([0.5, 0.3, 0.2]))
        assert omega_K.min() >= 0.5
        assert omega_K.max() <= 2


def test_a_class_that_is_perfect_on_countless_cases_falls_by_one_step():
    sums_3K = integers([[10**17, 10], [0, 5], [0, 5]])
    moved_K = before_normalising(np.ones(2), sums_3K, floats([0.4, 0.6]))
    assert moved_K[0] == pytest.approx(1 / 1.25)


@SOME
@given(situations())
def test_a_round_without_a_case_moves_each_weight_towards_one(situation):
    omega_K, prior_K, _ = situation
    moved_K = before_normalising(omega_K, np.zeros((3, omega_K.size), dtype=np.int64), prior_K)
    np.testing.assert_allclose(np.log(moved_K), 0.75 * np.log(omega_K), atol=1e-12)


# ---- bounds and normalisation


@SOME
@given(
    NUM_CLASSES.flatmap(lambda k: st.tuples(histograms(k), arrays(np.float64, k, elements=st.floats(1e-6, 1e6)))),
    st.floats(1e-3, 1e3),
)
def test_normalising_keeps_the_bounds_the_mean_the_order_and_forgets_the_scale(drawn, scale):
    histogram_K, weights_K = drawn
    prior_K = weighting.class_prior(histogram_K)
    omega_K = weighting.normalise(weights_K, prior_K)
    assert omega_K.min() >= 0.5
    assert omega_K.max() <= 2
    assert abs(prior_K @ omega_K - 1) <= 1e-12
    assert (np.diff(omega_K[np.argsort(weights_K)]) >= 0).all()
    np.testing.assert_allclose(weighting.normalise(scale * weights_K, prior_K), omega_K, rtol=1e-11)
    np.testing.assert_allclose(weighting.normalise(omega_K, prior_K), omega_K, rtol=1e-11)


@SOME
@given(situations())
def test_normalising_keeps_the_ratio_of_the_classes_that_meet_no_bound(situation):
    omega_K, prior_K, sums_3K = situation
    moved_K = before_normalising(omega_K, sums_3K, prior_K)
    stepped_K = dynamic.step_difficulty(omega_K, sums_3K, prior_K)
    free_K = (stepped_K > 0.5) & (stepped_K < 2)
    ratios = stepped_K[free_K] / moved_K[free_K]
    np.testing.assert_allclose(ratios, ratios.mean() if ratios.size else 1, rtol=1e-12)


@SOME
@given(situations())
def test_a_step_keeps_the_bounds_and_the_mean_and_changes_no_argument(situation):
    omega_K, prior_K, sums_3K = situation
    copies = [values.copy() for values in situation]
    stepped_K = dynamic.step_difficulty(omega_K, sums_3K, prior_K)
    assert stepped_K.min() >= 0.5
    assert stepped_K.max() <= 2
    assert abs(prior_K @ stepped_K - 1) <= 1e-12
    for values, copy in zip(situation, copies, strict=True):
        assert (values == copy).all()


@pytest.mark.parametrize("num_classes", [2, 12])
def test_weights_stay_bounded_over_five_hundred_random_rounds(num_classes):
    random = np.random.default_rng(num_classes)
    histogram_K = random.integers(0, 10 ** random.integers(1, 6, num_classes))
    prior_K = weighting.class_prior(histogram_K)
    omega_K, lowest, highest = np.ones(num_classes), 1.0, 1.0
    for _ in range(500):
        confusion_KK = random.integers(0, 10 ** random.integers(0, 4, (num_classes, 1)), (num_classes, num_classes))
        confusion_KK += np.diag(random.integers(0, 10 ** random.integers(0, 5, num_classes)))
        omega_K = dynamic.step_difficulty(omega_K, weighting.class_sums(confusion_KK), prior_K)
        assert abs(prior_K @ omega_K - 1) <= 1e-12
        lowest, highest = min(lowest, omega_K.min()), max(highest, omega_K.max())
    assert 0.5 <= lowest < 0.95
    assert 1.05 < highest <= 2


# ---- the step


@SOME
@given(situations())
def test_a_step_goes_a_quarter_of_the_way_and_at_most_log_one_and_a_quarter(situation):
    omega_K, prior_K, sums_3K = situation
    move_K = np.log(before_normalising(omega_K, sums_3K, prior_K) / omega_K)
    way_K = np.log(dynamic.difficulty_target(sums_3K)) - np.log(omega_K)
    assert np.abs(move_K).max() <= np.log(1.25) + 1e-12
    assert (np.abs(move_K) <= np.abs(way_K) / 4 + 1e-12).all()
    assert (move_K * way_K >= -1e-12).all()


def test_a_hard_class_is_held_to_one_step_a_round():
    sums_3K = integers([[5000, 5000, 0], [0, 0, 0], [1, 1, 5000]])
    omega_K, prior_K = floats([1.0, 1.0, 0.5]), floats([0.4, 0.4, 0.2])
    assert np.log(dynamic.difficulty_target(sums_3K)[2] / 0.5) / 4 > np.log(1.25)
    assert before_normalising(omega_K, sums_3K, prior_K)[2] == pytest.approx(0.5 * 1.25, rel=1e-12)


@SOME
@given(situations())
def test_an_imprecise_class_does_not_rise_before_normalising(situation):
    omega_K, prior_K, sums_3K = situation
    tp, fp, _ = sums_3K
    imprecise_K = (tp + fp > 0) & (tp < np.maximum(2 * prior_K, 0.05) * (tp + fp))
    moved_K = before_normalising(omega_K, sums_3K, prior_K)
    assert (moved_K[imprecise_K] <= omega_K[imprecise_K] * (1 + 1e-12)).all()


def test_a_class_that_cries_wolf_is_held_and_one_a_little_more_precise_rises():
    prior_K = floats([0.5, 0.3, 0.2])
    wolf, precise = integers([[400, 20, 150], [5, 180, 40], [150, 40, 30]]), integers([[400, 20, 150], [5, 10, 40], [150, 40, 30]])
    assert min(dynamic.difficulty_target(wolf)[1], dynamic.difficulty_target(precise)[1]) > 1
    assert before_normalising(np.ones(3), wolf, prior_K)[1] == 1
    assert before_normalising(np.ones(3), precise, prior_K)[1] > 1.01


def test_a_class_that_cries_wolf_is_held_where_its_decisions_leave_int64():
    sums_3K = integers([[400, 2**60, 150], [20, 2**63 - 1, 40], [150, 40, 30]])
    assert dynamic.difficulty_target(sums_3K)[1] > 1
    assert before_normalising(np.ones(3), sums_3K, floats([0.5, 0.3, 0.2]))[1] == 1


def test_a_rare_class_needs_a_precision_of_five_percent():
    prior_K = floats([0.599, 0.4, 0.001])
    below, at = integers([[400, 300, 3], [9, 9, 58], [30, 40, 9]]), integers([[400, 300, 3], [9, 9, 57], [30, 40, 9]])
    assert before_normalising(np.ones(3), below, prior_K)[2] == 1
    assert before_normalising(np.ones(3), at, prior_K)[2] > 1.01


def test_an_imprecise_class_may_fall():
    sums_3K = integers([[10, 300], [400, 600], [600, 400]])
    assert before_normalising(floats([0.9, 1.9]), sums_3K, floats([0.5, 0.5]))[1] < 1.85


@SOME
@given(st.integers(5, 10_000), st.integers(1, 1000), st.integers(0, 400))
def test_a_class_never_decided_rises(num_cases, common, confused):
    confusion_KK = integers([[100 + common, confused, 0], [confused, 100 + common, 0], [num_cases, 0, 0]])
    prior_K = floats([0.45, 0.45, 0.1])
    assert before_normalising(np.ones(3), weighting.class_sums(confusion_KK), prior_K)[2] > 1
    assert dynamic.step_difficulty(np.ones(3), weighting.class_sums(confusion_KK), prior_K)[2] > 1


# ---- permutation, history, modes


@SOME
@given(
    NUM_CLASSES.flatmap(lambda k: st.tuples(histograms(k), confusions(k, max_size=4), st.permutations(range(k)))),
    st.sampled_from(["dynamic", "static", "balanced", "none"]),
)
def test_order_of_the_classes_does_not_matter(drawn, mode):
    histogram_K, rounds, order = drawn
    chosen = class_weighting({"mode": mode})
    weights = weighting.class_weights(chosen, histogram_K, [weighting.class_sums(counts) for counts in rounds])
    permuted_rounds = [weighting.class_sums(counts[np.ix_(order, order)]) for counts in rounds]
    permuted = weighting.class_weights(chosen, histogram_K[order], permuted_rounds)
    np.testing.assert_allclose(permuted.omega_K, weights.omega_K[order], rtol=1e-9)
    np.testing.assert_allclose(permuted.adjustment_K, weights.adjustment_K[order], rtol=1e-9, atol=1e-9)


@SOME
@given(NUM_CLASSES.flatmap(lambda k: st.tuples(histograms(k), confusions(k, 1, 4))))
def test_a_history_is_one_step_for_each_revealed_round_and_a_withheld_one_moves_nothing(drawn):
    histogram_K, rounds = drawn
    revealed = [weighting.class_sums(counts) for counts in rounds]
    stepped_K = np.ones(histogram_K.size)
    for sums_3K in revealed:
        stepped_K = dynamic.step_difficulty(stepped_K, sums_3K, weighting.class_prior(histogram_K))
    assert weighting.class_weights(ClassWeighting(), histogram_K, revealed).omega_K.tolist() == stepped_K.tolist()


def test_weights_start_at_one():
    assert weighting.class_weights(ClassWeighting(), integers([100, 9, 0]), []).omega_K.tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", ["static", "none", "balanced"])
def test_only_the_dynamic_mode_reads_the_history(mode):
    chosen, histogram_K = class_weighting({"mode": mode}), integers([300, 40])
    round_3K = integers([[100, 3], [7, 30], [30, 7]])
    with_history = weighting.class_weights(chosen, histogram_K, [round_3K] * 4)
    assert with_history.omega_K.tolist() == weighting.class_weights(chosen, histogram_K, []).omega_K.tolist()
    moved = weighting.class_weights(ClassWeighting(), histogram_K, [round_3K] * 4)
    assert abs(moved.omega_K - with_history.omega_K).max() > 0.05


@SOME
@given(NUM_CLASSES.flatmap(histograms), st.floats(0, 0.9999))
def test_balanced_weights_have_mean_one_and_favour_the_rarer_class(histogram_K, beta):
    prior_K = weighting.class_prior(histogram_K)
    omega_K = balanced.balanced_weights(histogram_K, prior_K, beta)
    assert abs(prior_K @ omega_K - 1) <= 1e-12
    assert (np.diff(omega_K[np.argsort(histogram_K)]) <= 1e-12 * omega_K.max()).all()


@SOME
@given(NUM_CLASSES.flatmap(histograms), st.floats(0, 2))
def test_adjustment_is_tau_log_prior_where_the_mode_has_one(histogram_K, tau):
    for mode, used in (("dynamic", tau), ("static", tau), ("balanced", 0), ("none", 0)):
        weights = weighting.class_weights(class_weighting({"mode": mode, "tau": tau, "acts_on": "loss"}), histogram_K, [])
        np.testing.assert_allclose(weights.adjustment_K, used * np.log(weights.prior_K), rtol=1e-14)
        assert not weights.offset_K.any()


@SOME
@given(NUM_CLASSES.flatmap(lambda k: st.tuples(histograms(k), confusions(k, max_size=4))), st.floats(0, 2))
def test_on_the_decision_probabilities_are_the_network_s_and_prior_and_weights_move_the_logits(drawn, tau):
    histogram_K, rounds = drawn
    history = [weighting.class_sums(counts) for counts in rounds]
    for mode, used in (("dynamic", tau), ("static", tau), ("balanced", 0), ("none", 0)):
        weights = weighting.class_weights(class_weighting({"mode": mode, "tau": tau}), histogram_K, history)
        assert not (weights.offset_K + weights.adjustment_K).any()
        expected_K = np.log(weights.omega_K) - used * np.log(weights.prior_K)
        np.testing.assert_allclose(weights.offset_K, expected_K, atol=1e-12)
        assert weights.omega_K.tolist() == on_loss(mode, tau, histogram_K, history).omega_K.tolist()


def on_loss(mode, tau, histogram_K, history):
    return weighting.class_weights(class_weighting({"mode": mode, "tau": tau, "acts_on": "loss"}), histogram_K, history)
