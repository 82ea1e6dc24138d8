"""95 % intervals from summed counts, for classes of few cases too, where resampling alone gives too narrow ones.

Of six positives among 100 cases, an interval of AUROC by resampling holds the truth 78 to 86 times of 100, not 95; one of balanced
accuracy with 40, 40, 8 and 6 test cases of four classes and recalls of .9 to .95, 78 times (tests/measures/test_intervals.py).
"""

from collections.abc import Callable
from math import sqrt

import numpy as np

from csasn.measures.blocks import Integers
from csasn.measures.counts import Floats, auroc

METHODS = (
    "95 %: AUROC by resampling histogram bins, of one class at least Newcombe's score interval; balanced accuracy by combining the "
    "classes' Wilson intervals; recall and precision by Wilson"
)
Z = 1.959964  # of the normal distribution
Interval = tuple[float, float]


def wilson(hits: int, cases: int) -> Interval | None:
    """Score interval of the share hits/cases (Wilson 1927); None without a case."""
    if not cases:
        return None
    share, scale = hits / cases, 1 + Z**2 / cases
    centre = (share + Z**2 / (2 * cases)) / scale
    half = Z / scale * sqrt(share * (1 - share) / cases + Z**2 / (4 * cases**2))
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def balanced_accuracy_interval(confusion_KK: Integers) -> Interval | None:
    """Interval of the mean recall over the classes that have cases, from the Wilson interval (l, u) of each recall r:

        mean - sqrt(Σ (r - l)²) / K,   mean + sqrt(Σ (u - r)²) / K

    Zou & Donner 2008 (doi 10.1002/sim.3095). The classes are independent given their numbers of cases.
    """
    rows = [(int(row[c]), int(row.sum())) for c, row in enumerate(confusion_KK) if row.any()]
    if not rows:
        return None
    recalls = np.array([hits / cases for hits, cases in rows])
    lows, highs = np.array([wilson(hits, cases) for hits, cases in rows]).T
    low = recalls.mean() - np.linalg.norm(recalls - lows) / len(rows)
    high = recalls.mean() + np.linalg.norm(highs - recalls) / len(rows)
    return max(0.0, float(low)), min(1.0, float(high))


def paired_difference(more: int, fewer: int, cases: int) -> tuple[float, Interval]:
    """By how much more of the same cases one decision is right than another, and its interval: `more` are right by the first alone,
    `fewer` by the second alone. Wald's interval with half a case added to each of the four counts (Agresti & Min 2005)."""
    n, b, c = cases + 2, more + 0.5, fewer + 0.5
    middle, half = (b - c) / n, Z * sqrt(b + c - (b - c) ** 2 / n) / n
    return (more - fewer) / max(cases, 1), (max(-1.0, middle - half), min(1.0, middle + half))


def auroc_interval(histogram_2B: Integers, resampled_S: Floats | None) -> Interval | None:
    """Percentile interval of one class's AUROC from `csasn.measures.counts.resample_aurocs`, no narrower than `newcombe`;
    None where a side is empty."""
    point = auroc(histogram_2B)
    if point is None or resampled_S is None:
        return None
    negatives, positives = (int(side) for side in histogram_2B.sum(axis=1))
    low, high = newcombe(point, positives, negatives)
    drawn_low, drawn_high = np.percentile(resampled_S, [2.5, 97.5])
    return min(low, float(drawn_low)), max(high, float(drawn_high))


def newcombe(point: float, positives: int, negatives: int) -> Interval:
    """Score interval of an AUROC A: all θ with |A - θ| ≤ z sqrt V(θ), V being the variance of Hanley & McNeil 1982 with
    exponential scores.

        V(θ) = θ (1 - θ) (1 + n (1 - θ)/(2 - θ) + n θ/(1 + θ)) / (positives · negatives),   n = (positives + negatives)/2 - 1

    Newcombe 2006, method 5 (doi 10.1002/sim.2324).
    """
    mean = (positives + negatives) / 2 - 1

    def allows(truth: float) -> bool:
        spread = 1 + mean * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return (point - truth) ** 2 <= Z**2 * truth * (1 - truth) * spread / (positives * negatives)

    return _edge(allows, point, 0.0), _edge(allows, point, 1.0)


def _edge(allows: Callable[[float], bool], inside: float, outside: float) -> float:
    """Between an allowed value and one that may not be, the last allowed one, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if allows(middle) else (inside, middle)
    return inside
