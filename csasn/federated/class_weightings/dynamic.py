"""The dynamic weighting: ω follows the difficulty of each class, by the summed validation counts of each round."""

from collections.abc import Sequence

import numpy as np

from csasn.errors import ProtocolError
from csasn.federated.weighting import Floats, WeightingRule, normalise
from csasn.measures.blocks import Integers
from csasn.recipe import ClassWeighting

F1_STRENGTH = 10.0  # a: counts of prior belief that shrink F1 towards the mean
MIN_VALIDATION_CASES = 5  # over all sites; a rarer class keeps the target 1
MIN_DIFFICULTY = 1e-12  # so that log q stays finite; where every class is perfect, q is 1
MOVE_SHARE = 0.25  # of the way to the target, each round
MAX_LOG_MOVE = np.log(1.25)


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


def dynamic_weights(_: ClassWeighting, __: Integers, prior_K: Floats, history: Sequence[Integers]) -> Floats:
    """ω after all rounds whose counts were revealed; it starts at 1."""
    omega_K = np.ones(prior_K.shape)
    for sums_3K in history:
        omega_K = step_difficulty(omega_K, sums_3K, prior_K)
    return omega_K


DYNAMIC = WeightingRule(dynamic_weights, uses_prior=True)
