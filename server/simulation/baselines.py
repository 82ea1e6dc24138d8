"""Baselines of a simulation: each site alone, and all cases pooled, with as many optimiser steps as the whole federation.

Each takes as many steps as any other and trains in a process of one torch thread, as the federation's sites do, so that no thread
waits for another; the pooled one, which has most cases to evaluate, begins. All are scored on the union of the test cases.
"""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from csasn.platform.supervision import end_with_parent
from csasn.report.types import Result
from csasn.site import Site
from csasn.study import Study

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from csasn.data.cases import SiteData

POOLED = "pooled"
_steps: "Queue[int] | None" = None
_data: "dict[str, SiteData]" = {}  # of a worker process, which trains for one study alone


@dataclass(frozen=True)
class Baseline:
    """What to train: `name` is pooled or single/<site>, on the cases of `sites`; scored on those of all."""

    name: str
    sites: tuple[str, ...]


def baselines_of(study: Study) -> tuple[Baseline, ...]:
    """The pooled one, which takes longest, then each site alone."""
    sites = study.federation.sites
    return (Baseline(POOLED, sites), *(Baseline(f"single/{site}", (site,)) for site in sites))


def run_baselines(
    study: Study,
    sites: Mapping[str, Site],
    baselines: Sequence[Baseline],
    released: Path | None,
    num_processes: int,
    done: Callable[[str, Result], None],
    advance: Callable[[int], None],
) -> None:
    """Trains and scores baselines in their order; `done(name, final)` as each ends, `advance(number of steps taken)` meanwhile.

    `released` is the folder of the federation's model, which each is compared with case by case; None where that is withheld.
    """
    with _workers(num_processes) as (pool, steps):
        running = {pool.submit(_train, study, dict(sites), baseline, released): baseline for baseline in baselines}
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            advance(_drain(steps))
            for future in finished:
                done(running.pop(future).name, future.result())


@contextmanager
def _workers(num_processes: int) -> Iterator[tuple[ProcessPoolExecutor, "Queue[int]"]]:
    """Processes that train, and the queue of the steps that they took; ended at once when the block is left early."""
    context = multiprocessing.get_context("spawn")
    steps: Queue[int] = context.Queue()
    pool = ProcessPoolExecutor(num_processes, context, initializer=_begin, initargs=(steps, os.getpid()))
    try:
        yield pool, steps
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(steps: "Queue[int]") -> int:
    taken = 0
    while True:
        try:
            taken += steps.get_nowait()
        except queue.Empty:
            return taken


def _begin(steps: "Queue[int]", parent: int) -> None:
    import torch

    global _steps  # noqa: PLW0603 - a pool hands its workers a queue in no other way
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
    torch.set_num_threads(1)


def _read_data(study: Study, sites: dict[str, Site]) -> "dict[str, SiteData]":
    """The cases of all sites, with the maps of frozen branches: read and computed once in a process."""
    from csasn.data.cases import load_site_data
    from csasn.learning.frozen_maps import sites_with_frozen_maps
    from csasn.model.profiles import image_size

    if not _data:
        read = {name: load_site_data(study, site, image_size(study.model)) for name, site in sites.items()}
        _data.update(sites_with_frozen_maps(study, read))
    return _data


def _train(study: Study, sites: dict[str, Site], baseline: Baseline, released: Path | None) -> Result:
    from csasn.federated.weighting import ClassWeights
    from csasn.finished.weights import load_model
    from csasn.learning.central import federation_steps, logits_of_tests, pool, train_centrally
    from csasn.learning.evaluation import count_logits
    from csasn.report.comparison import cases_of, gains_over
    from csasn.report.report import final_metrics

    assert _steps is not None
    steps = _steps
    data = _read_data(study, sites)
    trained = train_centrally(
        study,
        pool({name: data[name] for name in baseline.sites}),
        baseline.name,
        federation_steps(study, data),
        lambda: steps.put(1),
    )
    logits_NK, class_N = logits_of_tests(trained.network, study, data)
    counts = count_logits(logits_NK, class_N, study, ClassWeights.finished(trained.adjustment_K))
    final = final_metrics(study, counts, trained.round)
    if released is None:
        return final
    network, info = load_model(released)
    federated = cases_of(logits_of_tests(network, study, data)[0], class_N, np.array(info.adjustment))
    return final.model_copy(update={"gains": gains_over(study, federated, cases_of(logits_NK, class_N, trained.adjustment_K))})
