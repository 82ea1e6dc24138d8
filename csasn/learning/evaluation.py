"""Evaluation: a site's cases become integer counts."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from csasn.data.cases import VALIDATION, SiteData
from csasn.federated.weighting import ClassWeights
from csasn.learning.training import load_images, load_maps, run_network
from csasn.measures.blocks import Integers
from csasn.measures.counts import Floats, count_cases
from csasn.measures.temperature import CALIBRATION, temperature_losses
from csasn.study import SUBTYPE, Study

BATCH_SIZE = 64  # images; fixed, so that every engine adds in the same order


@torch.no_grad()
def image_logits(
    network: nn.Module, data: SiteData, indices: NDArray[np.int64], on_batch: Callable[[int], None] | None = None
) -> Floats:
    """Subtype logits f (N, K) of images, without augmentation."""
    device = next(network.parameters()).device
    network.eval()
    parts = []
    for start in range(0, len(indices), BATCH_SIZE):
        chunk = indices[start : start + BATCH_SIZE]
        images = load_images(data, chunk, device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = run_network(network, images, load_maps(data, chunk, device))[SUBTYPE]
        parts.append(logits.double().cpu().numpy())
        if on_batch:
            on_batch(len(chunk))
    return np.concatenate(parts)


def case_logits(network: nn.Module, data: SiteData, cases: NDArray[np.int64]) -> Floats:
    """Logits (C, K) of cases: the mean over the images of each."""
    images = [data.images_of(int(case)) for case in cases]
    logits_NK = image_logits(network, data, np.concatenate(images))
    starts = np.cumsum([0, *(len(part) for part in images[:-1])])
    return np.asarray(np.add.reduceat(logits_NK, starts, axis=0) / np.array([[len(part)] for part in images]))


def labelled_logits(network: nn.Module, data: SiteData, split: int, study: Study) -> tuple[Floats, Integers]:
    """Logits (C, K) and classes (C,) of the labelled cases of a split."""
    cases = data.cases(split)
    cases = cases[data.class_C[cases] >= 0]
    logits_CK = case_logits(network, data, cases) if len(cases) else np.zeros((0, len(study.classes)))
    return logits_CK, data.class_C[cases]


def count_logits(logits_CK: Floats, classes_C: Integers, study: Study, weights: ClassWeights) -> dict[str, Integers]:
    """Counts of cases from their logits and classes; zeros where there is none."""
    malignant = study.malignant_classes if len(study.malignant) < len(study.classes) else ()
    decision_CK = logits_CK + weights.offset_K
    return count_cases(decision_CK, decision_CK + weights.adjustment_K, classes_C, malignant)


def count_split(network: nn.Module, data: SiteData, split: int, study: Study, weights: ClassWeights) -> dict[str, Integers]:
    """Counts of the labelled cases of a split."""
    return count_logits(*labelled_logits(network, data, split, study), study, weights)


def count_validation(network: nn.Module, data: SiteData, study: Study, weights: ClassWeights) -> dict[str, Integers]:
    """Counts of the labelled validation cases, by which models are chosen; and by which they are calibrated, if the study does."""
    logits_CK, classes_C = labelled_logits(network, data, VALIDATION, study)
    counts = count_logits(logits_CK, classes_C, study, weights)
    if study.calibration == "temperature":
        counts[CALIBRATION[0]] = temperature_losses(logits_CK + weights.offset_K + weights.adjustment_K, classes_C)
    return counts


def right_cases(decision_CK: Floats, classes_C: Integers) -> NDArray[np.bool_]:
    """Which cases (C,) are decided rightly."""
    return np.asarray(decision_CK.argmax(axis=1) == classes_C, np.bool_)
