"""Balanced sampling: which training cases of a site an epoch goes through."""

import numpy as np
from numpy.typing import NDArray

from csasn.data.cases import SiteData

Indices = NDArray[np.int64]


def balanced_cases(data: SiteData, cases: Indices, random: np.random.Generator) -> Indices:
    """As many of `cases` as there are, drawn with replacement: each class that the site has as often, cases without one as often as
    in an epoch that is not balanced. No other site is asked: what a site has is in no number that leaves it."""
    classes = data.class_C[cases]
    labelled = classes >= 0
    present, counts = np.unique(classes[labelled], return_counts=True)
    weights = np.ones(len(cases))
    weights[labelled] = (labelled.sum() / max(len(present), 1) / counts)[np.searchsorted(present, classes[labelled])]
    return random.choice(cases, len(cases), p=weights / weights.sum())
