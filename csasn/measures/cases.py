"""Statistics of test predictions case by case: rates, AUROC, calibration, their intervals, and comparisons on the same cases.

N cases, K classes, B sets of case weights: those of a bootstrap, or B = 1. A measure that is not defined is NaN, and no part of a
mean over classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csasn.measures.counts import auroc_of_groups, one_against_rest, ratio, value_or_none

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NUM_PROBABILITY_BINS = 10
LEVEL = 0.95
RAISED_BY_RESAMPLING = ("ece",)  # each bin's error counts without its sign: drawn anew it rises by more than it spreads
ROUNDING = 1e-9  # of a sum of weights


@dataclass(frozen=True)
class Cases:
    """Predictions for N labelled cases. log_probability_NK - adjustment_K are logits whose largest decides, up to a constant."""

    class_N: Integers
    decision_N: Integers
    log_probability_NK: Floats
    adjustment_K: Floats

    def chosen(self, cases_M: NDArray[np.int64] | Flags) -> "Cases":
        """Some of them."""
        return Cases(self.class_N[cases_M], self.decision_N[cases_M], self.log_probability_NK[cases_M], self.adjustment_K)

    def decided(self, adjustment_K: Floats) -> "Cases":
        """The same probabilities, decided by the largest log probability less `adjustment_K`."""
        decision_N = (self.log_probability_NK - adjustment_K).argmax(axis=1)
        return Cases(self.class_N, decision_N, self.log_probability_NK, adjustment_K)


@dataclass(frozen=True)
class Classes:
    """Names of the classes in order, and which of them are malignant, and which are called rare."""

    names: tuple[str, ...]
    malignant: tuple[int, ...] = ()
    rare: tuple[int, ...] = ()

    @property
    def benign(self) -> tuple[int, ...]:
        """Indices of the classes that are not malignant, where any is."""
        return tuple(index for index in range(len(self.names)) if self.malignant and index not in self.malignant)


def case_weights(class_N: Integers, counts_BN: Floats, prevalence_K: Floats | None = None) -> Floats:
    """Weights (B, N): how often a case counts; with a prevalence, each class sums to its share whatever its number of cases."""
    if prevalence_K is None:
        return counts_BN
    one_hot_NK = np.eye(len(prevalence_K))[class_N]
    with np.errstate(invalid="ignore", divide="ignore"):
        factor_BK = prevalence_K / (counts_BN @ one_hot_NK)
    return np.asarray(np.where(counts_BN > 0, counts_BN * factor_BK[:, class_N], 0.0), np.float64)


def bootstrap_counts(class_N: Integers, num_samples: int, random: np.random.Generator) -> Floats:
    """How often each case is drawn (B, N), when the cases of each class are drawn anew, as many as there are."""
    counts_BN = np.zeros((num_samples, len(class_N)))
    for label in np.unique(class_N):
        members = np.flatnonzero(class_N == label)
        counts_BN[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=num_samples)
    return counts_BN


def confusion(class_N: Integers, decision_N: Integers, num_classes: int, weights_BN: Floats) -> Floats:
    """Weighted counts (B, K, K), rows the true class, columns the decision."""
    one_hot_NF = np.eye(num_classes**2)[class_N * num_classes + decision_N]
    return np.asarray(weights_BN @ one_hot_NF).reshape(-1, num_classes, num_classes)


def auroc(scores_N: Floats, positive_N: Flags, weights_BN: Floats) -> Floats:
    """P(positive above negative) + ½ P(tie) for cases drawn by weight (B,); NaN where a side has no weight."""
    _, place_N = np.unique(scores_N, return_inverse=True)
    order = np.argsort(place_N, kind="stable")
    starts = np.flatnonzero(np.diff(place_N[order], prepend=-1))
    if not len(starts):
        return np.full(len(weights_BN), np.nan)
    sorted_BN = weights_BN[:, order]
    positives_BG = np.add.reduceat(np.where(positive_N[order], sorted_BN, 0.0), starts, axis=1)
    negatives_BG = np.add.reduceat(np.where(positive_N[order], 0.0, sorted_BN), starts, axis=1)
    return auroc_of_groups(negatives_BG, positives_BG)


def measures(cases: Cases, classes: Classes, weights_BN: Floats) -> dict[str, Floats]:
    """Every measure by name, (B,) each: decisions, AUROC one class against the rest, and calibration."""
    num_classes = len(classes.names)
    found = decision_measures(confusion(cases.class_N, cases.decision_N, num_classes, weights_BN), classes)
    aurocs = [auroc(one_against_rest(cases.log_probability_NK, (c,)), cases.class_N == c, weights_BN) for c in range(num_classes)]
    found["macro_auroc"] = _mean(np.stack(aurocs, axis=1))
    found |= {f"auroc.{name}": values_B for name, values_B in zip(classes.names, aurocs, strict=True)}
    if classes.benign:
        scores_N = one_against_rest(cases.log_probability_NK, classes.malignant)
        found["malignancy_auroc"] = auroc(scores_N, np.isin(cases.class_N, classes.malignant), weights_BN)
    found["brier"] = brier(cases, weights_BN)
    found["ece"] = calibration_error(cases, weights_BN)
    return found


def decision_measures(confusion_BKK: Floats, classes: Classes) -> dict[str, Floats]:
    """What follows from decisions alone.

    Benign specificity is the share of benign cases that are decided to be benign; rare recall the mean recall of rare classes; rare
    precision the share of decisions for any of them that are right, so that it does not hang on which of them are ever decided.
    """
    hits_BK = np.diagonal(confusion_BKK, axis1=1, axis2=2)
    support_BK, decided_BK = confusion_BKK.sum(axis=2), confusion_BKK.sum(axis=1)
    recall_BK, precision_BK = ratio(hits_BK, support_BK), ratio(hits_BK, decided_BK)
    f1_BK = ratio(2 * hits_BK, support_BK + decided_BK)
    found = {"balanced_accuracy": _mean(recall_BK), "macro_f1": _mean(np.where(support_BK > 0, f1_BK, np.nan))}
    if classes.benign:
        benign = list(classes.benign)
        found["benign_specificity"] = ratio(
            confusion_BKK[:, benign][:, :, benign].sum(axis=(1, 2)), support_BK[:, benign].sum(axis=1)
        )
    if classes.rare:
        rare = list(classes.rare)
        found["rare_recall"] = _mean(recall_BK[:, rare])
        found["rare_precision"] = ratio(hits_BK[:, rare].sum(axis=1), decided_BK[:, rare].sum(axis=1))
    for kind, rate_BK in (("recall", recall_BK), ("precision", precision_BK), ("f1", f1_BK)):
        found |= {f"{kind}.{name}": rate_BK[:, c] for c, name in enumerate(classes.names)}
    return found


def brier(cases: Cases, weights_BN: Floats) -> Floats:
    """Mean over cases of Σ_k (p_k - y_k)², 0..2."""
    wrong_NK = np.exp(cases.log_probability_NK) - np.eye(cases.log_probability_NK.shape[1])[cases.class_N]
    return ratio(weights_BN @ (wrong_NK**2).sum(axis=1), weights_BN.sum(axis=1))


def calibration_error(cases: Cases, weights_BN: Floats) -> Floats:
    """Mean over classes of Σ_bins |mean p - observed share| · weight of the bin: class-wise ECE (Nixon 2019), ten equal bins."""
    errors = []
    for c in range(cases.log_probability_NK.shape[1]):
        probability_N = np.exp(cases.log_probability_NK[:, c])
        bin_N = np.minimum(probability_N * NUM_PROBABILITY_BINS, NUM_PROBABILITY_BINS - 1).astype(np.int64)
        excess_NJ = np.eye(NUM_PROBABILITY_BINS)[bin_N] * (probability_N - (cases.class_N == c))[:, None]
        errors.append(ratio(np.abs(weights_BN @ excess_NJ).sum(axis=1), weights_BN.sum(axis=1)))
    return np.asarray(np.mean(errors, axis=0), np.float64)


def confusion_at_recall(cases: Cases, rare: Sequence[int], recall_B: Floats, weights_BN: Floats) -> Floats:
    """Confusion (B, K, K) after one shift of all rare classes' logits that brings their mean recall to `recall_B`.

    The recall is met exactly: cases at the edge are decided both ways in parts (`_shares_shifted`). NaN where no shift reaches it.
    """
    logits_NK = cases.log_probability_NK - cases.adjustment_K
    num_classes = logits_NK.shape[1]
    common = [index for index in range(num_classes) if index not in rare]
    order = np.argsort(logits_NK[:, common].max(axis=1) - logits_NK[:, list(rare)].max(axis=1), kind="stable")
    logits_NK, class_N, weights_BN = logits_NK[order], cases.class_N[order], weights_BN[:, order]
    rare_N, common_N = _best(logits_NK, list(rare)), _best(logits_NK, common)
    support_BK = weights_BN @ np.eye(num_classes)[class_N]
    num_rare_B1 = (support_BK[:, list(rare)] > 0).sum(axis=1, keepdims=True)
    gain_BN = np.where((rare_N == class_N) & (weights_BN > 0), weights_BN * ratio(1.0, support_BK * num_rare_B1)[:, class_N], 0.0)
    share_BN = _shares_shifted(gain_BN, recall_B[:, None])
    found_BKK = confusion(class_N, rare_N, num_classes, weights_BN * share_BN)
    found_BKK += confusion(class_N, common_N, num_classes, weights_BN * (1 - share_BN))
    reached_B = gain_BN.sum(axis=1) >= recall_B - ROUNDING
    return np.where(reached_B[:, None, None], found_BKK, np.nan)


def _shares_shifted(gain_BN: Floats, recall_B1: Floats) -> Floats:
    """Which share of each case is decided rare, at a recall: cases in the order in which a growing shift takes them.

    `gain_BN` is what a case adds to the recall. Over the cases between two that add, any shift gives one recall, and the middle is
    taken; linear between these middles. So a method compared with itself under another shift comes out even. Before the first and
    behind the last that adds, the smallest shift is taken.
    """
    after_BN = np.cumsum(gain_BN, axis=1)
    before_BN, gaining_BN = after_BN - gain_BN, gain_BN > 0
    lower_BN = np.maximum.accumulate(np.where(gaining_BN, before_BN, 0.0), axis=1)
    upper_BN = np.minimum.accumulate(np.where(gaining_BN, after_BN, np.inf)[:, ::-1], axis=1)[:, ::-1]
    first_BN, last_BN = after_BN <= 0, np.isinf(upper_BN)
    to_middle_BN = np.where(first_BN, 0.0, 0.5) * np.clip(np.nan_to_num(ratio(recall_B1 - lower_BN, before_BN - lower_BN)), 0, 1)
    beyond_BN = np.where(first_BN, 1.0, 0.5) * np.clip(np.nan_to_num(ratio(recall_B1 - before_BN, upper_BN - before_BN)), 0, 1)
    passed_BN = np.where(last_BN, 0.0, to_middle_BN + beyond_BN)
    return np.asarray(
        np.where(gaining_BN, np.clip(np.nan_to_num(ratio(recall_B1 - before_BN, gain_BN)), 0, 1), passed_BN), np.float64
    )


def percentile_interval(samples_B: Floats) -> tuple[float, float] | None:
    """The middle 95 % of bootstrap samples; None where fewer than 95 % are defined: these would not stand for the others."""
    known = samples_B[np.isfinite(samples_B)]
    if not len(known) or len(known) < LEVEL * len(samples_B):
        return None
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def t_interval(values_S: Floats) -> tuple[float, float] | None:
    """The 95 % interval of the mean of few values, by Student's t; None below two values."""
    from scipy.stats import t  # a second to load, and needed at the end alone

    known = values_S[np.isfinite(values_S)]
    if len(known) < 2:
        return None
    half = float(t.ppf(0.5 + LEVEL / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return float(known.mean()) - half, float(known.mean()) + half


def measure_names(classes: Classes) -> tuple[str, ...]:
    """The names of all measures that there are for the classes."""
    nobody = Cases(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(classes.names))), np.zeros(len(classes.names)))
    return tuple(measures(nobody, classes, np.ones((1, 0))))


def values_of(found: Mapping[str, Floats]) -> dict[str, float | None]:
    """Measures of one set of weights (B = 1) as numbers, None where undefined."""
    return {name: value_or_none(values_B[0]) for name, values_B in found.items()}


def _best(logits_NK: Floats, among: list[int]) -> Integers:
    return np.asarray(np.array(among)[logits_NK[:, among].argmax(axis=1)], np.int64)


def _mean(values_BK: Floats) -> Floats:
    """Over the classes for which the value is defined."""
    known_BK = np.isfinite(values_BK)
    return ratio(np.where(known_BK, values_BK, 0.0).sum(axis=1), known_BK.sum(axis=1).astype(np.float64))
