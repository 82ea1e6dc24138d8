"""Measures of variants, and differences of two, over seeds: means with intervals over cases and over seeds.

S seeds, B bootstrap samples. Over cases: the test cases of all seeds are drawn anew together, each class by itself, and in each
seed a case counts as often as it was drawn. So it holds whether seeds share their test cases or not, and a difference is of
the same drawn cases; it knows nothing of training anew, and a rate of 0 or 1 gets no width. Over seeds: Student's t of the seeds'
values, which holds training, and the cases where seeds split them differently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from csasn.errors import DataError
from csasn.measures.cases import (
    RAISED_BY_RESAMPLING,
    Classes,
    Floats,
    bootstrap_counts,
    case_weights,
    confusion,
    confusion_at_recall,
    decision_measures,
    percentile_interval,
    t_interval,
)
from server.evidence.predictions import Predictions

NUM_SAMPLES = 1000
Interval = tuple[float, float]
Measured = Mapping[str, Floats]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or of paired differences; None where undefined. `values` are those of the seeds, in their order."""

    mean: float | None
    over_cases: Interval | None
    over_seeds: Interval | None
    values: tuple[float | None, ...]


class Drawing:
    """Case weights for predictions that share cases: row 0 counts each case once, the others are bootstrap samples."""

    def __init__(
        self,
        predictions: Sequence[Predictions],
        prevalence_K: Floats | None,
        random: np.random.Generator,
        num_samples: int = NUM_SAMPLES,
    ) -> None:
        keys = np.concatenate([part.keys() for part in predictions])
        self._keys_U, first_U = np.unique(keys, return_index=True)
        class_U = np.concatenate([part.cases.class_N for part in predictions])[first_U]
        drawn_BU = bootstrap_counts(class_U, num_samples, random)
        self._counts_BU = np.concatenate([np.ones((1, len(class_U))), drawn_BU])
        self._prevalence_K = prevalence_K

    def weights(self, predictions: Predictions) -> Floats:
        """(1 + B, N) for some of the predictions that it was made for."""
        counts_BN = self._counts_BU[:, np.searchsorted(self._keys_U, predictions.keys())]
        return case_weights(predictions.cases.class_N, counts_BN, self._prevalence_K)


def estimate(measured_S: Sequence[Measured]) -> dict[str, Estimate]:
    """Every measure of a variant; of each seed (1 + B,) values, the first of each case once.

    A calibration error has no interval over cases, since drawing them anew raises it; in a difference of two that is taken away.
    """
    found = _estimates(measured_S)
    return found | {name: replace(found[name], over_cases=None) for name in RAISED_BY_RESAMPLING if name in found}


def compare(of_S: Sequence[Measured], against_S: Sequence[Measured]) -> dict[str, Estimate]:
    """Every measure of `of` less that of `against`, seed by seed, under the same weights of the same cases."""
    return _estimates([_difference(of, against) for of, against in zip(of_S, against_S, strict=True)])


def require_same_cases(of_S: Sequence[Predictions], against_S: Sequence[Predictions], names: tuple[str, str]) -> None:
    """Refuses to compare what is not paired; `names` are the variants'.

    Raises:
        DataError: the cases of a seed differ.
    """
    for of, against in zip(of_S, against_S, strict=True):
        if not np.array_equal(of.keys(), against.keys()) or not np.array_equal(of.cases.class_N, against.cases.class_N):
            raise DataError(
                f"{names[0]} and {names[1]} were scored on different cases", "variants that are compared share split and seed"
            )


def compare_at_equal_rare_recall(
    of_S: Sequence[Predictions], against_S: Sequence[Predictions], classes: Classes, drawing: Drawing
) -> dict[str, Estimate]:
    """Measures of decisions of `of`, less those of `against` after the shift that gives it the rare recall of `of`.

    The shift is found for each seed and sample from the test cases themselves: a way to compare, none to choose a threshold.
    """
    found = []
    for of, against in zip(of_S, against_S, strict=True):
        weights_BN = drawing.weights(of)
        decided_BKK = confusion(of.cases.class_N, of.cases.decision_N, len(classes.names), weights_BN)
        here = decision_measures(decided_BKK, classes)
        shifted_BKK = confusion_at_recall(against.cases, classes.rare, here["rare_recall"], weights_BN)
        found.append(_difference(here, decision_measures(shifted_BKK, classes)))
    return _estimates(found)


def _difference(of: Measured, against: Measured) -> dict[str, Floats]:
    return {name: of[name] - against[name] for name in of}


def _estimates(measured_S: Sequence[Measured]) -> dict[str, Estimate]:
    return {name: _estimate(np.stack([measured[name] for measured in measured_S])) for name in measured_S[0]}


def _estimate(values_SB: Floats) -> Estimate:
    known_SB = values_SB[np.isfinite(values_SB[:, 0])]  # a seed without a value has no part in the mean
    points_S = known_SB[:, 0]
    return Estimate(
        mean=float(points_S.mean()) if len(points_S) else None,
        over_cases=percentile_interval(known_SB[:, 1:].mean(axis=0)) if len(points_S) else None,
        over_seeds=t_interval(points_S),
        values=tuple(float(value) if np.isfinite(value) else None for value in values_SB[:, 0]),
    )
