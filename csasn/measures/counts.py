"""Metrics from summed integer counts: confusion, loss and score histograms of cases, never the scores themselves.

K classes, N cases, B histogram bins. A site counts its cases into integers (`count_cases`); integers of all sites add up; metrics
come from the sum (`metrics_from_counts`). AUROC is the Mann-Whitney statistic over a histogram binned on the logit of the
probability, where scores crowded at 0 and 1 stay apart; within a bin, ties count half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csasn.errors import TrainingError
from csasn.measures.blocks import Blocks, Integers, Layout

Floats = NDArray[np.float64]

NUM_BINS = 4096
LOGIT_LIMIT = 24.0  # the outermost bins are open
FIXED_POINT = 1 << 16  # losses travel as integers of 2^-16
MAX_CASE_LOSS = 64.0
OWN = "own_"  # before the names of what a site counts of the finished model with normalisation statistics of its own
PAIRED = ("paired", (2,))  # cases that are decided rightly with its own alone, and with those of the model alone


def case_layout(num_classes: int, malignancy: bool) -> Layout:
    """The layout of `count_cases`."""
    scores = (("scores", (num_classes, 2, NUM_BINS)),)
    malignant = (("malignancy", (2, NUM_BINS)),) if malignancy else ()
    return Layout((("confusion", (num_classes, num_classes)), ("loss", (1,)), *scores, *malignant))


def one_against_rest(logits_NK: Floats, chosen: Sequence[int]) -> Floats:
    """(N,) logit of the summed softmax probability of the chosen classes, exact where the probability rounds to 0 or 1."""
    rest = [index for index in range(logits_NK.shape[1]) if index not in chosen]
    return np.asarray(_log_sum_exp(logits_NK[:, list(chosen)]) - _log_sum_exp(logits_NK[:, rest]))


def _log_sum_exp(logits_NK: Floats) -> Floats:
    from scipy.special import logsumexp  # some 30 MB, which a coordinator's processes, that sum counts alone, do without

    return np.asarray(logsumexp(logits_NK, axis=1))


def score_histogram(scores_N: Floats, positive_N: NDArray[np.bool_]) -> Integers:
    """(2, B) counts of logits: row 0 of the negatives, row 1 of the positives."""
    bins_N = np.floor((scores_N + LOGIT_LIMIT) * (NUM_BINS / (2 * LOGIT_LIMIT))).clip(0, NUM_BINS - 1).astype(np.int64)
    return np.stack([np.bincount(bins_N[positive_N == side], minlength=NUM_BINS) for side in (False, True)]).astype(np.int64)


def count_cases(decision_NK: Floats, adjusted_NK: Floats, classes_N: Integers, malignant: Sequence[int]) -> dict[str, Integers]:
    """Counts of labelled cases.

    Args:
        decision_NK: logits f, whose largest decides.
        adjusted_NK: logits f + adjustment, whose softmax is the reported probability.
        classes_N: true classes, 0..K-1.
        malignant: indices of the malignant classes; empty where the study knows none.

    Raises:
        TrainingError: a logit is not finite; its counts would look like any others.
    """
    if not (np.isfinite(decision_NK).all() and np.isfinite(adjusted_NK).all()):
        raise TrainingError("the model's logits are not finite", "training diverged: lower optimiser.learning_rate")
    num_classes = decision_NK.shape[1]
    flat = classes_N * num_classes + decision_NK.argmax(axis=1)
    blocks = {
        "confusion": np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64),
        "loss": case_losses(adjusted_NK, classes_N).sum(keepdims=True),
        "scores": np.stack([score_histogram(one_against_rest(adjusted_NK, (c,)), classes_N == c) for c in range(num_classes)]),
    }
    if malignant:
        is_malignant_N = np.isin(classes_N, malignant)
        blocks["malignancy"] = score_histogram(one_against_rest(adjusted_NK, malignant), is_malignant_N)
    return blocks


def case_losses(adjusted_NK: Floats, classes_N: Integers) -> Integers:
    """(N,) -log softmax at the true class, at most 64, in units of 2^-16."""
    losses_N = _log_sum_exp(adjusted_NK) - np.take_along_axis(adjusted_NK, classes_N[:, None], axis=1)[:, 0]
    return np.asarray(np.rint(np.minimum(losses_N, MAX_CASE_LOSS) * FIXED_POINT), np.int64)


def auroc(histogram_2B: Integers) -> float | None:
    """P(positive above negative) + ½ P(tie), from a (2, B) histogram; None where a side is empty."""
    return value_or_none(auroc_of_groups(*histogram_2B.astype(np.float64)))


def auroc_of_groups(negatives_G: Floats, positives_G: Floats) -> Floats:
    """P(positive above negative) + ½ P(tie) from weights of groups of equal scores, the lowest first; axes before G stay.

    NaN where a side has no weight.
    """
    below_G = np.cumsum(negatives_G, axis=-1) - negatives_G / 2
    return ratio((positives_G * below_G).sum(axis=-1), positives_G.sum(axis=-1) * negatives_G.sum(axis=-1))


def ratio(above: Floats | float, below: Floats) -> Floats:
    """above / below, NaN where `below` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan), np.float64)


def value_or_none(value: Floats) -> float | None:
    """A measure as a number, None where it is not defined."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class ClassMetrics:
    """One class: rates in 0..1, None where undefined; support is its number of cases."""

    recall: float | None
    precision: float | None
    f1: float | None
    auroc: float | None
    support: int


@dataclass(frozen=True)
class Metrics:
    """Case-level metrics; means are over the classes for which the rate is defined."""

    macro_auroc: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    loss: float | None
    per_class: tuple[ClassMetrics, ...]
    malignancy_auroc: float | None
    confusion: tuple[tuple[int, ...], ...]


def metrics_from_counts(blocks: Blocks) -> Metrics:
    """Metrics of the summed counts of all sites."""
    confusion_KK = blocks["confusion"]
    per_class = tuple(_class_metrics(confusion_KK, blocks["scores"][c], c) for c in range(len(confusion_KK)))
    num_cases = int(confusion_KK.sum())
    return Metrics(
        macro_auroc=_mean([item.auroc for item in per_class]),
        balanced_accuracy=_mean([item.recall for item in per_class]),
        macro_f1=_mean([item.f1 for item in per_class if item.support]),
        loss=float(blocks["loss"][0]) / FIXED_POINT / num_cases if num_cases else None,
        per_class=per_class,
        malignancy_auroc=auroc(blocks["malignancy"]) if "malignancy" in blocks else None,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion_KK),
    )


def resample_aurocs(scores_K2B: Integers, random: np.random.Generator, num_samples: int = 1000) -> tuple[Floats | None, ...]:
    """For each class S AUROCs of its histogram with resampled bins; None where a side is empty."""
    whole = [histogram_2B.sum(axis=1).all() for histogram_2B in scores_K2B]
    return tuple(_resampled(scores_K2B[c], random, num_samples) if known else None for c, known in enumerate(whole))


def macro_auroc_interval(scores_K2B: Integers, resampled: Sequence[Floats | None]) -> tuple[float, float] | None:
    """95 % percentile interval of the macro AUROC from `resample_aurocs`.

    Classes are resampled apart, since cases cannot be told from histograms: an approximation to the bootstrap over cases. K classes
    whose scores sum to one move together (two of them have the same AUROC), so the interval is widened by sqrt(K / (K - 1)): exact
    for two classes, still up to a tenth too narrow for more.
    """
    used = [samples_S for samples_S in resampled if samples_S is not None]
    point = _mean([auroc(histogram_2B) for histogram_2B in scores_K2B])
    if not used or point is None:
        return None
    widening = np.sqrt(len(used) / max(len(used) - 1, 1))
    low, high = np.clip(point + widening * (np.percentile(np.mean(used, axis=0), [2.5, 97.5]) - point), 0, 1)
    return float(low), float(high)


def _resampled(histogram_2B: Integers, random: np.random.Generator, num_samples: int) -> Floats:
    filled = histogram_2B[:, histogram_2B.any(axis=0)]
    drawn = (random.multinomial(int(side.sum()), side / side.sum(), size=num_samples) for side in filled)
    return auroc_of_groups(*(side.astype(np.float64) for side in drawn))


def _class_metrics(confusion_KK: Integers, histogram_2B: Integers, c: int) -> ClassMetrics:
    hits, support, decided = int(confusion_KK[c, c]), int(confusion_KK[c].sum()), int(confusion_KK[:, c].sum())
    return ClassMetrics(
        recall=hits / support if support else None,
        precision=hits / decided if decided else None,
        f1=2 * hits / (support + decided) if support + decided else None,
        auroc=auroc(histogram_2B),
        support=support,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def describe_metrics(metrics: Metrics, classes: Sequence[str]) -> dict[str, object]:
    """The metrics that a round shows, by name."""
    return {
        "loss": metrics.loss,
        "macro_auroc": metrics.macro_auroc,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "recall": {name: item.recall for name, item in zip(classes, metrics.per_class, strict=True)},
    }
