"""The work of one cell, in a process of its own: it trains in a folder, and scores the finished model case by case."""

import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from scipy.special import log_softmax

from csasn.data.cases import TEST, load_site_data
from csasn.errors import DataError
from csasn.finished.weights import ModelInfo, load_model, save_model
from csasn.learning.central import federation_steps, pool, train_centrally
from csasn.learning.evaluation import case_logits
from csasn.learning.frozen_maps import sites_with_frozen_maps
from csasn.learning.normalisation import apply_moments, measure_moments
from csasn.measures.cases import Cases
from csasn.model.network import Csasn
from csasn.model.profiles import image_size
from csasn.phantom.saliency import saliency_in_nodule
from csasn.platform.configuration import write_yaml
from csasn.platform.storage import write_atomically
from csasn.report.events import Event, RoundFinished
from server.evidence.cells import Cell, Outcome, Workshop
from server.evidence.grid import POOLED
from server.evidence.predictions import Predictions
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation, simulate

NUM_THREADS = 1  # of each process: threads that wait for each other crawl where several cells share the cores


def work(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> Outcome:
    """Trains and scores the cell in `folder`; `tell` is called with the share of training that is done, 0..1.

    Raises:
        CsasnError: whatever keeps it from being done.
    """
    torch.set_num_threads(NUM_THREADS)
    begun = time.monotonic()
    (_train if cell.trained_on else _federate)(cell, workshop, folder, tell)
    seconds = time.monotonic() - begun
    network, info = load_model(folder)
    device = torch.device(workshop.device)
    predictions = _score(network.to(device), info, cell, workshop)
    saliency = {}
    if workshop.phantom:  # by the statistics released with the model
        scored = {name: workshop.sites[name] for name in cell.scored_on}
        shares = saliency_in_nodule(*load_model(folder), Path(workshop.phantom), scored)
        saliency = {"gradcam": shares.gradcam, "rollout": shares.rollout, "area": shares.area}
    return Outcome(
        predictions=predictions,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(),
        seconds=round(seconds, 1),
        clipped_share=None if cell.trained_on else _clipped_share(folder),
        saliency=saliency,
    )


class _Rounds(Progress):
    """Shows nothing, and calls `tell` with the share of rounds that are done."""

    def __init__(self, num_rounds: int, tell: Callable[[float], None]) -> None:
        super().__init__(Console(quiet=True))
        self._num_rounds, self._tell = num_rounds, tell

    def on_event(self, event: Event) -> None:
        if isinstance(event, RoundFinished):
            self._tell(event.round / self._num_rounds)


def _federate(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> None:
    """Simulates the federation; `folder` becomes its run directory."""
    study, sites = folder.with_name("study.yaml"), folder.with_name("sites")
    sites.mkdir()
    for name, site in workshop.sites.items():
        write_atomically(sites / f"{name}.yaml", write_yaml(site).encode())
    write_atomically(study, write_yaml(cell.study).encode())
    simulate(Simulation(study, sites, folder), _Rounds(cell.study.federation.rounds, tell))


def _clipped_share(run: Path) -> float:
    """The largest share of a round's uploaded values that were clipped."""
    rounds = json.loads((run / "report.json").read_text(encoding="utf-8"))["rounds"]
    return max(float(entry["clipped_share"] or 0) for entry in rounds)


def _train(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> None:
    """Trains in one place, and leaves the model in `folder`."""
    study = cell.study
    if study.deterministic and workshop.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    data = {name: load_site_data(study, workshop.sites[name], image_size(study.model)) for name in study.federation.sites}
    steps, done = federation_steps(study, data), count(1)
    chosen = pool(sites_with_frozen_maps(study, {name: data[name] for name in cell.trained_on}, workshop.device))
    name = POOLED if len(cell.trained_on) > 1 else f"single/{cell.trained_on[0]}"  # as a simulation's baselines
    num_steps = steps * study.federation.rounds
    trained = train_centrally(study, chosen, name, steps, lambda: tell(next(done) / num_steps), workshop.device)
    statistics = "of the training cases"
    save_model(folder, study, trained.network, trained.round, trained.adjustment_K, statistics, temperature=trained.temperature)


def _score(network: Csasn, info: ModelInfo, cell: Cell, workshop: Workshop) -> Predictions:
    """Predictions for the labelled test cases of the sites that the cell is scored on.

    With `own` statistics each site normalises by its own moments; the network keeps those of the last site.

    Raises:
        DataError: a site's data cannot be read, or there is no test case.
    """
    adjustment_K = np.array(info.adjustment)
    labels, logits, site, place = [], [], [], []
    for number, (name, found) in enumerate(workshop.sites.items()):
        if name not in cell.scored_on:
            continue
        data = load_site_data(info.study, found, info.image_size)
        cases = data.cases(TEST)
        cases = cases[data.class_C[cases] >= 0]
        if cell.statistics == "own":
            apply_moments(network, measure_moments(network, data, info.study, name))
        if len(cases):
            labels.append(data.class_C[cases])
            logits.append(case_logits(network, data, cases))
            site.append(np.full(len(cases), number))
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
