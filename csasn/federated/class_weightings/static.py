"""Weightings in which every class weighs alike: `static`, where the prior alone acts, and `none`, where nothing does."""

from collections.abc import Sequence

import numpy as np

from csasn.federated.weighting import Floats, WeightingRule
from csasn.measures.blocks import Integers
from csasn.recipe import ClassWeighting


def equal_weights(_: ClassWeighting, __: Integers, prior_K: Floats, ___: Sequence[Integers]) -> Floats:
    """ω = 1."""
    return np.ones(prior_K.shape)


STATIC = WeightingRule(equal_weights, uses_prior=True)
NONE = WeightingRule(equal_weights, uses_prior=False)
