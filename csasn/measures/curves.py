"""Curves and calibration of a class from its summed score histogram: exact at the edges of bins, with no case's score.

B bins of the logit of the class's probability; row 0 of a histogram counts negatives, row 1 positives. T thresholds, each at the
edge of a bin, from above every score down to below all: how many cases lie above one is known exactly.
"""

from dataclasses import dataclass

import numpy as np

from csasn.measures.blocks import Integers
from csasn.measures.counts import LOGIT_LIMIT, NUM_BINS, Floats

MAX_POINTS = 65
NUM_CALIBRATION_BINS = 10
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Cases whose probability lies in one tenth of 0..1: its mean, the share that are of the class, how many they are."""

    probability: float
    share: float
    num_cases: int


def roc_curve(histogram_2B: Integers) -> Points | None:
    """(false positive rate, recall) from (0, 0) to (1, 1), thinned to points evenly apart along the curve; None where a side is
    empty."""
    if not histogram_2B.sum(axis=1).all():
        return None
    above_2T = np.pad(_counts_above(histogram_2B), ((0, 0), (1, 0)))
    rates_2T = above_2T / above_2T[:, -1:]
    return _points(rates_2T[:, _thinned(rates_2T.sum(axis=0))])


def precision_recall_curve(histogram_2B: Integers) -> Points | None:
    """(recall, precision) at each threshold where recall rises, thinned to points evenly apart in recall; None without a positive.

    These are the points that average precision sums: Σ (recall_t - recall_t-1) precision_t.
    """
    if not histogram_2B[1].any():
        return None
    false_T, hits_T = _counts_above(histogram_2B)
    rises_T = np.diff(hits_T, prepend=0) > 0
    rates_2T = np.stack([hits_T / hits_T[-1], hits_T / (hits_T + false_T)])[:, rises_T]
    return _points(rates_2T[:, _thinned(rates_2T[0])])


def reliability(histogram_2B: Integers) -> tuple[CalibrationBin, ...]:
    """The non-empty ones of ten equal bins of probability, lowest first. A case counts with the probability at the middle of its
    histogram bin, which is at most .0015 off."""
    centres_B = (np.arange(NUM_BINS) + 0.5) * (2 * LOGIT_LIMIT / NUM_BINS) - LOGIT_LIMIT
    probability_B = 1 / (1 + np.exp(-centres_B))
    tenth_B = np.minimum((probability_B * NUM_CALIBRATION_BINS).astype(np.int64), NUM_CALIBRATION_BINS - 1)
    cases_B = histogram_2B.sum(axis=0)
    cases, positives, total = (
        np.bincount(tenth_B, weights, NUM_CALIBRATION_BINS) for weights in (cases_B, histogram_2B[1], cases_B * probability_B)
    )
    return tuple(
        CalibrationBin(float(total[n] / cases[n]), float(positives[n] / cases[n]), int(cases[n])) for n in np.flatnonzero(cases)
    )


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float | None:
    """Expected calibration error of one class, Σ n_b/N |share_b - probability_b|; None without a case.

    Its mean over classes is the class-wise error of Kull et al. 2019 (arXiv 1910.12656).
    """
    num_cases = sum(item.num_cases for item in bins)
    if not num_cases:
        return None
    return sum(item.num_cases * abs(item.share - item.probability) for item in bins) / num_cases


def _counts_above(histogram_2B: Integers) -> Integers:
    """(2, T) negatives and positives above the lower edge of each bin that is not empty, highest first."""
    filled_2T = histogram_2B[:, histogram_2B.any(axis=0)]
    return np.cumsum(filled_2T[:, ::-1], axis=1)


def _thinned(place_T: Floats) -> Integers:
    """Indices of at most `MAX_POINTS` of rising places: all, or those next to even steps; the first and the last always."""
    if len(place_T) <= MAX_POINTS:
        return np.arange(len(place_T))
    return np.unique(np.searchsorted(place_T, np.linspace(place_T[0], place_T[-1], MAX_POINTS)))


def _points(rates_2T: Floats) -> Points:
    return tuple((float(x), float(y)) for x, y in rates_2T.T)
