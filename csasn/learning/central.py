"""Training without a federation: one site alone, or cases of several sites pooled. Same loss, weighting, steps and selection."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from csasn.data.cases import TEST, TRAIN, SiteData, Views
from csasn.errors import DataError
from csasn.federated.weighting import Floats, class_sums, class_weights
from csasn.learning.evaluation import count_validation, labelled_logits
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.loss import LossTerms
from csasn.learning.normalisation import MEASURED, apply_moments, is_measured, measure_moments
from csasn.learning.objectives.objective import LocalObjective
from csasn.learning.training import LocalPlan, num_epoch_images, num_epoch_steps, train_locally
from csasn.measures.blocks import Integers
from csasn.measures.counts import Metrics, metrics_from_counts
from csasn.measures.temperature import temperature_of
from csasn.model.initial_weights import initial_network
from csasn.model.network import Csasn
from csasn.study import Study


@dataclass(frozen=True)
class Trained:
    """A trained network, whose logits decide, their adjustment for probabilities (K,), what both were divided by, the round it was
    chosen from, and metrics of validation cases by round."""

    network: Csasn
    round: int
    adjustment_K: Floats
    temperature: float
    validation: tuple[Metrics, ...]


def pool(sites: Mapping[str, SiteData]) -> SiteData:
    """The cases of several sites as those of one."""
    parts = [sites[name] for name in sorted(sites)]
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.split_C) for part in parts[:-1])])
    return SiteData(
        images_NHW=np.concatenate([part.images_NHW for part in parts]),
        case_N=np.concatenate([part.case_N + start for part, start in zip(parts, starts, strict=True)]),
        labels_N={task: np.concatenate([part.labels_N[task] for part in parts]) for task in parts[0].labels_N},
        split_C=np.concatenate([part.split_C for part in parts]),
        class_C=np.concatenate([part.class_C for part in parts]),
        notes=tuple(note for part in parts for note in part.notes),
        patient_C=_pool_patients(parts),
        maps_N={name: np.concatenate([part.maps_N[name] for part in parts]) for name in parts[0].maps_N},
        views=_pool_views([part.views for part in parts if part.views]),
    )


def _pool_views(parts: Sequence[Views]) -> Views | None:
    """Views of several sites, still view by view."""
    if not parts:
        return None
    num, sizes = parts[0].num, [len(part.images_MHW) // part.num for part in parts]

    def together(arrays: Sequence[np.ndarray]) -> np.ndarray:
        by_view = [array.reshape(num, size, *array.shape[1:]) for array, size in zip(arrays, sizes, strict=True)]
        return np.concatenate(by_view, axis=1).reshape(-1, *arrays[0].shape[1:])

    starts = np.cumsum([0, *sizes[:-1]])
    places = [np.where(part.places_N < 0, -1, part.places_N + start) for part, start in zip(parts, starts, strict=True)]
    return Views(
        images_MHW=together([part.images_MHW for part in parts]),
        maps_M={name: together([part.maps_M[name] for part in parts]) for name in parts[0].maps_M},
        places_N=np.concatenate(places),
        num=num,
    )


def _pool_patients(parts: Sequence[SiteData]) -> Integers | None:
    """The patient of each case; no two sites share one."""
    if all(part.patient_C is None for part in parts):
        return None
    of_parts = [part.patients_of(np.arange(len(part.split_C))) for part in parts]
    starts = np.cumsum([0, *(int(patients.max()) + 1 for patients in of_parts[:-1])])
    return np.concatenate([patients + start for patients, start in zip(of_parts, starts, strict=True)])


def federation_steps(study: Study, sites: Mapping[str, SiteData]) -> int:
    """Optimiser steps that all sites together take in one round."""
    epochs, size = study.federation.local_epochs, study.optimiser.batch_size
    return epochs * sum(num_epoch_steps(num_epoch_images(data, study), size) for data in sites.values())


def train_centrally(
    study: Study, data: SiteData, name: str, steps_per_round: int, on_step: Callable[[], None] | None = None, device: str = "cpu"
) -> Trained:
    """Trains on one data set for the study's rounds; the model best on its own validation cases is kept, or the last.

    Its batches are of all its cases, so that with `fixbn` there is nothing to get used to: they are normalised as with `silo`.

    Raises:
        DataError: no case trains.
        TrainingError: the loss is not finite.
    """
    if not len(data.cases(TRAIN)):
        raise DataError("manifest.csv names no training case", "check the column split")
    if study.federation.batchnorm == "fixbn":
        study = study.model_copy(update={"federation": study.federation.model_copy(update={"batchnorm": "silo"})})
    network = initial_network(study).to(torch.device(device))
    data = with_frozen_maps(network, data, study)
    classes = data.class_C[data.cases(TRAIN)]
    histogram_K = np.bincount(classes[classes >= 0], minlength=len(study.classes)).astype(np.int64)
    history: list[Integers] = []
    seen: list[Metrics] = []
    kept, best, chosen, temperature = {}, -1.0, 0, 1.0
    rounds = study.federation.rounds
    for done in range(rounds + 1):
        weights = class_weights(study.class_weighting, histogram_K, history)
        if is_measured(study, network):
            apply_moments(network, measure_moments(network, data, study, name, MEASURED))
        blocks = count_validation(network, data, study, weights)
        history.append(class_sums(blocks["confusion"]))
        seen.append(metrics_from_counts(blocks))
        score = seen[-1].macro_auroc
        if done and (score is None or score > best or study.model_selection == "last"):  # never the untrained model
            best, chosen, temperature = score or 0.0, done, temperature_of(blocks)
            kept = {key: value.clone() for key, value in network.state_dict().items()}
        if done < rounds:
            plan = LocalPlan(name, done + 1, LocalObjective(), num_steps=steps_per_round)
            terms = LossTerms.of(study, weights, torch.device(device))
            train_locally(network, data, study, terms, plan, on_step)
    network.load_state_dict(kept)
    weights = class_weights(study.class_weighting, histogram_K, history)
    network.finish_subtype_logits(weights.offset_K, temperature)
    return Trained(network, chosen, weights.adjustment_K / temperature, temperature, tuple(seen))


def logits_of_tests(network: Csasn, study: Study, sites: Mapping[str, SiteData]) -> tuple[Floats, Integers]:
    """Logits (C, K) and classes (C,) of the labelled test cases of all sites, in their order."""
    logits, classes = zip(*(labelled_logits(network, data, TEST, study) for data in sites.values()), strict=True)
    return np.concatenate(logits), np.concatenate(classes)
