"""The global class weighting: pure functions of sums over all sites, the same at the coordinator and at every site.

Two parts. The *prior* π enters as logit adjustment τ log π, of the decision or of the loss (Menon et al., "Long-tail learning via
logit adjustment", ICLR 2021, eq. 9 and 10). The *difficulty* enters as class weights ω, by the rule that the study names
(csasn/federated/class_weightings/).
csasn/SPEC.md, "Class weighting", holds the equations. K is the number of classes; arrays are float64 unless said otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.measures.blocks import Integers
from csasn.platform.registry import CLASS_WEIGHTINGS, load
from csasn.recipe import ClassWeighting

Floats = NDArray[np.float64]

PRIOR_FLOOR = 10  # cases; a class below it counts as this many
LOWEST, HIGHEST = 0.5, 2.0


@dataclass(frozen=True)
class ClassWeights:
    """ω (K,), the prior π (K,), and what makes of the network's logits those that decide, and of these the ones of probabilities.

    The class of the largest logit + offset is decided; its probability is softmax(logit + offset + adjustment). `tau` is the
    strength of the prior in the adjustment.
    """

    omega_K: Floats
    prior_K: Floats
    offset_K: Floats
    adjustment_K: Floats
    tau: float = 0.0

    @classmethod
    def finished(cls, adjustment_K: Floats) -> Self:
        """Those of a finished model, whose logits decide as they are."""
        ones_K = np.ones_like(adjustment_K)
        return cls(ones_K, ones_K / ones_K.size, np.zeros_like(adjustment_K), adjustment_K)


@dataclass(frozen=True)
class WeightingRule:
    """A class weighting that a study may name (csasn/federated/class_weightings/).

    `omega` gives ω (K,) from the study's settings, the class histogram (K,), the prior π (K,) and the class sums (3, K) of the
    rounds so far: from nothing else, since every site recomputes it. `uses_prior` says whether τ log π acts beside ω.
    """

    omega: Callable[[ClassWeighting, Integers, Floats, Sequence[Integers]], Floats]
    uses_prior: bool


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


def class_weights(settings: ClassWeighting, histogram_K: Integers, history: Sequence[Integers]) -> ClassWeights:
    """The weights of the round that follows `history`, recomputed from the sums alone.

    Args:
        settings: the study's class weighting.
        histogram_K: training cases per class over all sites, from hello.
        history: (3, K) class sums of each round whose counts were revealed, oldest first; a withheld round moves nothing.

    Raises:
        ConfigurationError: the weighting that the study names cannot be loaded.
        ProtocolError: the sums are broken, or the weighting gives something else than one positive weight a class.
    """
    prior_K = class_prior(histogram_K)
    rule = load(CLASS_WEIGHTINGS, settings.mode, WeightingRule)
    omega_K = rule.omega(settings, histogram_K, prior_K, history)
    if omega_K.shape != prior_K.shape or not (np.isfinite(omega_K).all() and (omega_K > 0).all()):
        raise ProtocolError(f"class weights {omega_K.tolist()} of {settings.mode}", "expected one a class, each positive")
    tau = settings.tau if rule.uses_prior else 0.0
    adjustment_K = tau * np.log(prior_K)
    if settings.acts_on == "loss":
        return ClassWeights(omega_K, prior_K, np.zeros_like(prior_K), adjustment_K, tau)
    adjustment_K = adjustment_K - np.log(omega_K)
    return ClassWeights(omega_K, prior_K, -adjustment_K, adjustment_K, tau)
