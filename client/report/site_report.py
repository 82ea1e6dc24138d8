"""`client report`: what a site gained by joining, on its own test cases: the finished federated model beside one trained on its own
cases alone.

It is for the site's own eyes: everything is read from its disk and stays there. Nothing here opens a connection, or the ledger.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from client.trust.approval import has_joined
from client.worker.learner import choose_device
from client.worker.personal import find_personal
from csasn.data.cache import Advance
from csasn.data.cases import SPLITS, TEST, Records, SiteData, load_records, site_data
from csasn.errors import ConfigurationError, DataError
from csasn.finished.saliency import gradcam
from csasn.finished.weights import DESCRIPTION, WEIGHTS, ModelInfo, load_model
from csasn.learning.central import Trained, federation_steps, train_centrally
from csasn.learning.evaluation import case_logits
from csasn.measures.cases import (
    RAISED_BY_RESAMPLING,
    Cases,
    Classes,
    bootstrap_counts,
    confusion,
    measures,
    percentile_interval,
    values_of,
)
from csasn.measures.intervals import Interval
from csasn.model.network import Csasn
from csasn.model.state import write_tensors
from csasn.platform.randomness import generator
from csasn.site import Site
from csasn.study import Study

MODEL_FOLDER = "model"  # in the state folder: where the coordinator's folder is looked for
NUM_SAMPLES = 1000
NUM_EXAMPLES = 8
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """A value, None where it is not defined, and its 95 % interval by resampling the test cases of each class."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Tested:
    """A model on the site's test cases: measures by name as in csasn/measures/cases.py, and counts, rows the true class."""

    measures: Mapping[str, Measure]
    confusion_KK: Integers


@dataclass(frozen=True)
class Example:
    """A test case to look at: the first of its images (S, S) as the model sees it, and that image's row of manifest.csv.

    `share` is the probability of the decision; `cam` (S, S) in 0..1 says where the model looked for it, None without that branch.
    """

    row: int
    num_images: int
    square: NDArray[np.uint8]
    label: str
    decision: str
    probabilities: Mapping[str, float]
    cam: Floats | None

    @property
    def share(self) -> float:
        """Probability of the class that was decided for."""
        return self.probabilities[self.decision]


@dataclass(frozen=True)
class SiteReport:
    """What `client report` shows. `alone` and `gains`, federated less alone on the same cases, are empty where none was trained;
    `personal` and its gains over the federated one where the site keeps no personal model."""

    site: str
    info: ModelInfo
    num_cases: Mapping[str, Mapping[str, int]]  # split -> class
    federated: Tested
    right: tuple[Example, ...]
    mistakes: tuple[Example, ...]
    alone: Tested | None = None
    gains: Mapping[str, Measure] | None = None
    personal: Tested | None = None
    personal_gains: Mapping[str, Measure] | None = None

    @property
    def num_test_cases(self) -> int:
        """Labelled test cases."""
        return sum(self.num_cases[SPLITS[TEST]].values())


def find_model(site: Site, named: Path | None) -> Path:
    """The folder that the operator named, or the one in the state folder.

    Raises:
        ConfigurationError: there is none; a site itself keeps no finished model.
    """
    place = named or Path(site.state) / MODEL_FOLDER
    if named is None and not (place / DESCRIPTION).exists():
        raise ConfigurationError(
            f"{site.site} has no finished model: none was named, and none is in {place}",
            f"ask the coordinator for the run's {WEIGHTS} and {DESCRIPTION}, and put both there or name their folder with --model",
        )
    return place


def make_site_report(
    site: Site, model: Path, *, train_alone: bool, on_image: Advance | None = None, on_step: Advance | None = None
) -> SiteReport:
    """The report of `site` on the finished model in the folder `model`.

    `on_image(done, total)` is called as images are read,
    `on_step(done, total)` as the model of the site alone trains.

    Raises:
        ConfigurationError: the site is none of the model's study, or cannot train alone.
        ModelError: the model cannot be read, or the initial weights to train alone from.
        DataError: the site's data is at fault, or no labelled test case is there.
    """
    network, info = load_model(model)
    study = info.study
    _check_study(study, site, train_alone=train_alone)
    records = load_records(study, site, info.image_size, on_image)
    data = site_data(study, records)
    cases = _test_cases(data)
    network.to(choose_device(site, study.deterministic))
    federated = _predict(network, data, cases, np.array(info.adjustment))
    right, mistakes = _find_examples(network, study, records, data, cases, federated)
    alone = None
    if train_alone:
        trained = _train_alone(study, site, data, on_step)
        alone = _predict(trained.network, data, cases, trained.adjustment_K)
    tested, alone_tested, gains = compare_models(study, site.site, federated, alone)
    personal, personal_gains = None, None
    if (tensors := find_personal(site, study, info.round)) is not None:
        write_tensors(network, tensors)
        personal, _, personal_gains = compare_models(
            study, site.site, _predict(network, data, cases, np.array(info.adjustment)), federated
        )
    counts = _count_cases(study, data)
    return SiteReport(site.site, info, counts, tested, right, mistakes, alone_tested, gains, personal, personal_gains)


def _check_study(study: Study, site: Site, *, train_alone: bool) -> None:
    """Refuses the model of a study that the site is not in, and to train from weights that would have to be fetched."""
    if site.site not in study.federation.sites and not has_joined(site, study):
        raise ConfigurationError(
            f"{site.site} is no site of the model's study {study.name}, expected one of {', '.join(study.federation.sites)}",
            "is this the model of another study?",
        )
    weights = study.model.initial_weights
    for name, used, source in (
        ("efficientnet", study.model.efficientnet, weights.efficientnet.source),
        ("vit", study.model.vit, weights.vit.source),
    ):
        if train_alone and used and source == "hub":
            raise ConfigurationError(
                f"initial weights of {name} are the hub's, and a report asks nobody", "make the report without --train-alone"
            )


def _test_cases(data: SiteData) -> Integers:
    """The labelled ones."""
    cases = data.cases(TEST)
    cases = cases[data.class_C[cases] >= 0]
    if not len(cases):
        raise DataError(
            "manifest.csv has no labelled test case, expected some to measure on",
            "see its column split, or split.test of the study",
        )
    return np.asarray(cases, np.int64)


def _train_alone(study: Study, site: Site, data: SiteData, on_step: Advance | None) -> Trained:
    """A model of the site's own cases: the study's loss and rounds, and as many passes over the cases as the site made in it."""
    steps, done = federation_steps(study, {site.site: data}), itertools.count(1)
    device = choose_device(site, study.deterministic)

    def step() -> None:
        if on_step:
            on_step(next(done), steps * study.federation.rounds)

    try:
        return train_centrally(study, data, f"single/{site.site}", steps, step, device.type)
    except torch.OutOfMemoryError:
        raise ConfigurationError(
            f"the GPU's memory is too small for batch_size {study.optimiser.batch_size}", "set device: cpu in the site file"
        ) from None


def _predict(network: Csasn, data: SiteData, cases_N: Integers, adjustment_K: Floats) -> Cases:
    logits_NK = case_logits(network, data, cases_N)
    log_probability_NK = np.asarray(log_softmax(logits_NK + adjustment_K, axis=1), np.float64)
    return Cases(data.class_C[cases_N], logits_NK.argmax(axis=1).astype(np.int64), log_probability_NK, adjustment_K)


def compare_models(
    study: Study, site: str, federated: Cases, alone: Cases | None
) -> tuple[Tested, Tested | None, Mapping[str, Measure] | None]:
    """Measures of both models, and of their difference; each sample of the bootstrap draws the same cases for both."""
    classes = Classes(study.classes, study.malignant_classes)
    counts_BN = bootstrap_counts(federated.class_N, NUM_SAMPLES, generator(study.seed, "site report", site))
    every_1N = np.ones((1, len(federated.class_N)))
    found = []
    for cases in (federated, alone):
        if cases is not None:
            counted_KK = confusion(cases.class_N, cases.decision_N, len(study.classes), every_1N)[0]
            found.append((values_of(measures(cases, classes, every_1N)), measures(cases, classes, counts_BN), counted_KK))
    tested = [
        Tested({name: Measure(values[name], _interval(name, samples[name])) for name in values}, counted_KK.astype(np.int64))
        for values, samples, counted_KK in found
    ]
    if alone is None:
        return tested[0], None, None
    (first, first_samples, _), (second, second_samples, _) = found
    gains = {
        name: Measure(_less(first[name], second[name]), percentile_interval(first_samples[name] - second_samples[name]))
        for name in first
    }
    return tested[0], tested[1], gains


def _interval(name: str, samples_B: Floats) -> tuple[float, float] | None:
    return None if name in RAISED_BY_RESAMPLING else percentile_interval(samples_B)


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _find_examples(
    network: Csasn, study: Study, records: Records, data: SiteData, cases_N: Integers, predicted: Cases
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The most certain right decisions and the most certain mistakes, most certain first."""
    places_N = np.arange(len(cases_N))
    certainty_N = predicted.log_probability_NK[places_N, predicted.decision_N]
    order = np.lexsort((places_N, -certainty_N))
    is_right_N = predicted.decision_N == predicted.class_N
    chosen = (order[is_right_N[order]][:NUM_EXAMPLES], order[~is_right_N[order]][:NUM_EXAMPLES])
    right, mistakes = (
        tuple(_example(network, study, records, data, int(cases_N[place]), predicted, int(place)) for place in places)
        for places in chosen
    )
    return right, mistakes


def _example(network: Csasn, study: Study, records: Records, data: SiteData, case: int, predicted: Cases, place: int) -> Example:
    images, classes = data.images_of(case), study.classes
    square = np.array(data.images_NHW[images[0]])
    decision = int(predicted.decision_N[place])
    device = next(network.parameters()).device
    image_11SS = (torch.from_numpy(square)[None, None].float() / 255).to(device)
    return Example(
        row=records.manifest.rows[int(images[0])].number,
        num_images=len(images),
        square=square,
        label=classes[int(predicted.class_N[place])],
        decision=classes[decision],
        probabilities={
            name: float(np.exp(value)) for name, value in zip(classes, predicted.log_probability_NK[place], strict=True)
        },
        cam=gradcam(network, image_11SS, decision) if network.efficientnet is not None else None,
    )


def _count_cases(study: Study, data: SiteData) -> dict[str, dict[str, int]]:
    """Labelled cases of each class, by split."""
    counts = {}
    for number, split in enumerate(SPLITS):
        classes_N = data.class_C[data.cases(number)]
        counts[split] = {name: int((classes_N == index).sum()) for index, name in enumerate(study.classes)}
    return counts
