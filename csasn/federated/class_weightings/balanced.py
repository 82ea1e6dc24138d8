"""The class-balanced weighting, by the effective number of samples (Cui et al., "Class-balanced loss", CVPR 2019, eq. 2)."""

import numpy as np

from csasn.federated.weighting import PRIOR_FLOOR, Floats, WeightingRule
from csasn.measures.blocks import Integers


def balanced_weights(histogram_K: Integers, prior_K: Floats, beta: float) -> Floats:
    """ω_c ∝ (1 - β) / (1 - β^N_c), Σ π_c ω_c = 1; not bounded."""
    raw = (1 - beta) / (1 - beta ** np.maximum(histogram_K, PRIOR_FLOOR))
    return np.asarray(raw / (prior_K @ raw))


BALANCED = WeightingRule(
    lambda settings, histogram_K, prior_K, _: balanced_weights(histogram_K, prior_K, settings.beta), uses_prior=False
)
