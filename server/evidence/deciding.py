"""Other decisions from kept predictions: class weights on the decision change nothing in training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from csasn.data.cases import TRAIN, load_site_data
from csasn.federated.weighting import ClassWeights, class_weights
from csasn.model.profiles import image_size
from csasn.site import Site
from csasn.study import Study
from server.evidence.predictions import Predictions


def weights_without_rounds(study: Study, sites: Sequence[Site]) -> ClassWeights:
    """Those that follow from the training cases of the sites alone.

    Raises:
        DataError: a site's data cannot be read.
    """
    histogram_K = np.zeros(len(study.classes), np.int64)
    for site in sites:
        data = load_site_data(study, site, image_size(study.model))
        classes = data.class_C[data.cases(TRAIN)]
        histogram_K += np.bincount(classes[classes >= 0], minlength=len(study.classes))
    return class_weights(study.class_weighting, histogram_K, [])


def decide(predictions: Predictions, weights: ClassWeights) -> Predictions:
    """The same probabilities under decisions by `weights`."""
    return replace(predictions, cases=predictions.cases.decided(weights.adjustment_K))
