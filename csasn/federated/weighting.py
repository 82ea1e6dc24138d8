"""The global class weighting: pure functions of sums over all sites, the same at the coordinator and at every site.

Two parts. The *prior* π enters as logit adjustment τ log π, of the decision or of the loss (Menon et al., "Long-tail learning via
logit adjustment", ICLR 2021, eq. 9 and 10). The *difficulty* enters as class weights ω driven by the summed validation counts of
each round.
csasn/SPEC.md, "Class weighting", holds the equations. K is the number of classes; arrays are float64 unless said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.measures.blocks import Integers
from csasn.study import ClassWeighting

Floats = NDArray[np.float64]

PRIOR_FLOOR = 10  # cases; a class below it counts as this many
F1_STRENGTH = 10.0  # a: counts of prior belief that shrink F1 towards the mean
MIN_VALIDATION_CASES = 5  # over all sites; a rarer class keeps the target 1
MIN_DIFFICULTY = 1e-12  # so that log q stays finite; where every class is perfect, q is 1
MOVE_SHARE = 0.25  # of the way to the target, each round
MAX_LOG_MOVE = np.log(1.25)
LOWEST, HIGHEST = 0.5, 2.0


@dataclass(frozen=True)
class ClassWeights:
    """ω (K,), the prior π (K,), and what makes of the network's logits those that decide, and of these the ones of probabilities.

    The class of the largest logit + offset is decided; its probability is softmax(logit + offset + adjustment).
    """

    omega_K: Floats
    prior_K: Floats
    offset_K: Floats
    adjustment_K: Floats

    @classmethod
    def finished(cls, adjustment_K: Floats) -> Self:
        """Those of a finished model, whose logits decide as they are."""
        ones_K = np.ones_like(adjustment_K)
        return cls(ones_K, ones_K / ones_K.size, np.zeros_like(adjustment_K), adjustment_K)


def class_prior(histogram_K: Integers) -> Floats:
    """π_c = max(N_c, 10) / Σ max(N_j, 10), from the training cases N_c of all sites.

    Raises:
        ProtocolError: a count is negative, or there is no class.
    """
    if histogram_K.ndim != 1 or histogram_K.size == 0 or histogram_K.dtype.kind not in "iu" or (histogram_K < 0).any():
        raise ProtocolError(f"class histogram {histogram_K.tolist()} is not a list of counts", "the sum of the sites is broken")
    floored = np.maximum(histogram_K, PRIOR_FLOOR).astype(np.float64)
    return np.asarray(floored / floored.sum())


def class_sums(confusion_KK: Integers) -> Integers:
    """(3, K): true positives, false positives, false negatives, from confusion[true, decided].

    Raises:
        ProtocolError: the confusion is not a square of counts; a negative one could cancel in the sums.
    """
    if confusion_KK.ndim != 2 or len(set(confusion_KK.shape)) != 1 or (confusion_KK < 0).any():
        raise ProtocolError(f"confusion of shape {confusion_KK.shape} is not a square of counts", "the sum of the sites is broken")
    hits_K = np.diagonal(confusion_KK)
    return np.stack([hits_K, confusion_KK.sum(axis=0) - hits_K, confusion_KK.sum(axis=1) - hits_K])


def shrunk_f1(sums_3K: Integers) -> Floats:
    """F1_c = (2 TP + a F̄) / (2 TP + FP + FN + a), where F̄ is the mean plain F1 of the classes with five cases or more."""
    tp, fp, fn = sums_3K.astype(np.float64)
    plain = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    enough = tp + fn >= MIN_VALIDATION_CASES
    mean = float(plain[enough].mean()) if enough.any() else 0.0
    return np.asarray((2 * tp + F1_STRENGTH * mean) / (2 * tp + fp + fn + F1_STRENGTH))


def difficulty_target(sums_3K: Integers) -> Floats:
    """q_c = sqrt(D_c / D̄) with D = 1 - F1; 1 for a class with fewer than five validation cases."""
    difficulty = np.maximum(1 - shrunk_f1(sums_3K), MIN_DIFFICULTY)
    tp, _, fn = sums_3K.astype(np.float64)
    enough = tp + fn >= MIN_VALIDATION_CASES
    if not enough.any():
        return np.ones(difficulty.shape)
    return np.where(enough, np.sqrt(difficulty / difficulty[enough].mean()), 1.0)


def normalise(weights_K: Floats, prior_K: Floats, lowest: float = LOWEST, highest: float = HIGHEST) -> Floats:
    """ω = clip(s w, lowest, highest) with s by bisection so that Σ π_c ω_c = 1; learning rate and μ keep their meaning.

    Raises:
        ProtocolError: a weight is not finite and positive, there is not one a class, or the bounds leave no solution.
    """
    if weights_K.shape != prior_K.shape or not (np.isfinite(weights_K).all() and (weights_K > 0).all() and lowest <= 1 <= highest):
        raise ProtocolError(f"class weights {weights_K.tolist()} cannot be normalised", "expected one a class, each positive")
    low, high = np.log(lowest / weights_K.max()), np.log(highest / weights_K.min())
    for _ in range(200):
        middle = (low + high) / 2
        mean = float(prior_K @ np.clip(np.exp(middle) * weights_K, lowest, highest))
        low, high = (middle, high) if mean < 1 else (low, middle)
    return np.asarray(np.clip(np.exp(high) * weights_K, lowest, highest))


def step_difficulty(omega_K: Floats, sums_3K: Integers, prior_K: Floats) -> Floats:
    """ω of the next round: a quarter of the way to log q, at most log 1.25, then normalised and bounded.

    A class whose precision is below max(2π, .05) does not rise; a class that nobody was given has no precision and may.
    """
    if sums_3K.shape != (3, omega_K.size) or (sums_3K < 0).any():
        raise ProtocolError(
            f"class sums of shape {sums_3K.shape} do not fit {omega_K.size} classes", "the sum of the sites is broken"
        )
    move = np.clip(MOVE_SHARE * (np.log(difficulty_target(sums_3K)) - np.log(omega_K)), -MAX_LOG_MOVE, MAX_LOG_MOVE)
    tp, fp, _ = sums_3K.astype(np.float64)
    imprecise = tp < np.maximum(2 * prior_K, 0.05) * (tp + fp)
    move = np.where(imprecise, np.minimum(move, 0), move)
    return normalise(np.exp(np.log(omega_K) + move), prior_K)


def balanced_weights(histogram_K: Integers, prior_K: Floats, beta: float) -> Floats:
    """ω_c ∝ (1 - β) / (1 - β^N_c), Σ π_c ω_c = 1 (Cui et al., "Class-balanced loss", CVPR 2019, eq. 2); not bounded."""
    raw = (1 - beta) / (1 - beta ** np.maximum(histogram_K, PRIOR_FLOOR))
    return np.asarray(raw / (prior_K @ raw))


def class_weights(settings: ClassWeighting, histogram_K: Integers, history: Sequence[Integers]) -> ClassWeights:
    """The weights of the round that follows `history`, recomputed from the sums alone.

    Args:
        settings: the study's class weighting.
        histogram_K: training cases per class over all sites, from hello.
        history: (3, K) class sums of each round whose counts were revealed, oldest first; a withheld round moves nothing.
    """
    prior_K = class_prior(histogram_K)
    omega_K = np.ones(prior_K.shape)
    if settings.mode == "dynamic":
        for sums_3K in history:
            omega_K = step_difficulty(omega_K, sums_3K, prior_K)
    elif settings.mode == "balanced":
        omega_K = balanced_weights(histogram_K, prior_K, settings.beta)
    tau = settings.tau if settings.mode in ("dynamic", "static") else 0.0
    adjustment_K = tau * np.log(prior_K)
    if settings.acts_on == "loss":
        return ClassWeights(omega_K, prior_K, np.zeros_like(prior_K), adjustment_K)
    adjustment_K = adjustment_K - np.log(omega_K)
    return ClassWeights(omega_K, prior_K, -adjustment_K, adjustment_K)
