"""A finished model on the test cases of several sites, case by case."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import log_softmax

from csasn.data.cases import TEST, load_site_data
from csasn.errors import DataError
from csasn.finished.weights import ModelInfo
from csasn.learning.evaluation import case_logits
from csasn.learning.normalisation import apply_moments, measure_moments
from csasn.measures.cases import Cases
from csasn.model.network import Csasn
from csasn.site import Site
from server.evidence.grid import Statistics
from server.evidence.predictions import Predictions


def score_sites(
    network: Csasn, info: ModelInfo, sites: Mapping[str, Site], roster: Sequence[str], statistics: Statistics
) -> Predictions:
    """Predictions for the labelled test cases of `sites`, whose numbers are their places in `roster`.

    With `own` statistics each site normalises by its own moments, as it does when a federation with `batchnorm: silo` finishes; the
    network keeps those of the last site.

    Raises:
        DataError: a site's data cannot be read, or there is no test case.
    """
    adjustment_K = np.array(info.adjustment)
    labels, logits, site, place = [], [], [], []
    for name, found in sites.items():
        data = load_site_data(info.study, found, info.image_size)
        cases = data.cases(TEST)
        cases = cases[data.class_C[cases] >= 0]
        if statistics == "own":
            apply_moments(network, measure_moments(network, data, info.study, name))
        if len(cases):
            labels.append(data.class_C[cases])
            logits.append(case_logits(network, data, cases))
            site.append(np.full(len(cases), roster.index(name)))
            place.append(cases)
    if not labels:
        raise DataError("manifest.csv names no labelled test case", "check the column split, or split.test of the study")
    logits_NK = np.concatenate(logits)
    cases_N = Cases(
        class_N=np.concatenate(labels),
        decision_N=logits_NK.argmax(axis=1),
        log_probability_NK=log_softmax(logits_NK + adjustment_K, axis=1),
        adjustment_K=adjustment_K,
    )
    return Predictions(cases_N, np.concatenate(site), np.concatenate(place))
