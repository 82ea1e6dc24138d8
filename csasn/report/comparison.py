"""The federated model beside another on the same test cases, case by case: in a simulation, where all are on one machine."""

import numpy as np

from csasn.measures.blocks import Integers
from csasn.measures.cases import Cases, Classes, Floats, bootstrap_counts, measures, percentile_interval
from csasn.measures.counts import value_or_none
from csasn.measures.intervals import paired_difference
from csasn.platform.randomness import generator
from csasn.report.types import Gain
from csasn.study import Study

NUM_SAMPLES = 1000
DRAWN = ("macro_auroc", "balanced_accuracy")


def cases_of(logits_NK: Floats, class_N: Integers, adjustment_K: Floats) -> Cases:
    """What a finished model says of cases: its logits decide, the adjustment makes probabilities of them."""
    from scipy.special import log_softmax  # which a coordinator of a deployment does without

    return Cases(class_N, logits_NK.argmax(axis=1), np.asarray(log_softmax(logits_NK + adjustment_K, axis=1)), adjustment_K)


def gains_over(study: Study, federated: Cases, other: Cases) -> dict[str, Gain]:
    """Gains in macro AUROC and balanced accuracy, with intervals by drawing the cases of each class anew, the same for both models;
    in sensitivity and specificity, where the study knows malignant classes, with those of `paired_difference`."""
    if not len(federated.class_N):
        return {}
    classes = Classes(study.classes, study.malignant_classes)
    once_1N = np.ones((1, len(federated.class_N)))
    drawn_BN = bootstrap_counts(federated.class_N, NUM_SAMPLES, generator(study.seed, "gains"))
    first, second = (measures(cases, classes, np.concatenate([once_1N, drawn_BN])) for cases in (federated, other))
    gains = {}
    for name in DRAWN:
        differences_B = first[name] - second[name]
        gains[name] = Gain(value=value_or_none(differences_B[0]), ci95=percentile_interval(differences_B[1:]))
    return gains | (_gains_in_malignancy(classes, federated, other) if classes.benign else {})


def _gains_in_malignancy(classes: Classes, federated: Cases, other: Cases) -> dict[str, Gain]:
    is_malignant_N = np.isin(federated.class_N, classes.malignant)
    first_N, second_N = (np.isin(cases.decision_N, classes.malignant) == is_malignant_N for cases in (federated, other))
    gains = {}
    for name, chosen_N in (("sensitivity", is_malignant_N), ("specificity", ~is_malignant_N)):
        more, fewer = int((first_N & ~second_N & chosen_N).sum()), int((second_N & ~first_N & chosen_N).sum())
        if chosen_N.any():
            value, interval = paired_difference(more, fewer, int(chosen_N.sum()))
            gains[name] = Gain(value=value, ci95=interval)
    return gains
