"""Baselines of a simulation: each site alone, and all cases pooled, with as many optimiser steps as the whole federation.

The sites run side by side in processes of one torch thread each, then the pooled one on every core; all are scored on the union
of the test cases.
"""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csasn.report.types import Result
from csasn.site import Site
from csasn.study import Study

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

POOLED = "pooled"
_steps: "Queue[int] | None" = None


@dataclass(frozen=True)
class Baseline:
    """What to train: `name` is pooled or single/<site>, on the cases of `sites`; scored on those of all."""

    name: str
    sites: tuple[str, ...]


def baselines_of(study: Study) -> tuple[Baseline, ...]:
    """Each site alone, then pooled."""
    sites = study.federation.sites
    return (*(Baseline(f"single/{site}", (site,)) for site in sites), Baseline(POOLED, sites))


def run_baselines(
    study: Study,
    sites: Mapping[str, Site],
    baselines: Sequence[Baseline],
    num_processes: int,
    done: Callable[[str, Result], None],
    advance: Callable[[int], None],
) -> None:
    """Trains and scores baselines; `done(name, final)` as each ends, `advance(number of steps taken)` meanwhile."""
    alone = [baseline for baseline in baselines if baseline.name != POOLED]
    pooled = [baseline for baseline in baselines if baseline.name == POOLED]
    for together, processes, threads in ((alone, num_processes, 1), (pooled, 1, num_processes)):
        if together:
            with _workers(processes, threads) as (pool, steps):
                running = {pool.submit(_train, study, dict(sites), baseline): baseline for baseline in together}
                while running:
                    finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    advance(_drain(steps))
                    for future in finished:
                        done(running.pop(future).name, future.result())


@contextmanager
def _workers(num_processes: int, num_threads: int) -> Iterator[tuple[ProcessPoolExecutor, "Queue[int]"]]:
    """Processes that train, and the queue of the steps that they took; ended at once when the block is left early."""
    context = multiprocessing.get_context("spawn")
    steps: Queue[int] = context.Queue()
    pool = ProcessPoolExecutor(num_processes, context, initializer=_begin, initargs=(steps, num_threads))
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


def _begin(steps: "Queue[int]", num_threads: int) -> None:
    import torch

    global _steps  # noqa: PLW0603 - a pool hands its workers a queue in no other way
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)


def _train(study: Study, sites: dict[str, Site], baseline: Baseline) -> Result:
    from csasn.data.cases import load_site_data
    from csasn.learning.central import count_tests, federation_steps, pool, train_centrally
    from csasn.model.network import image_size
    from csasn.report.report import final_metrics

    assert _steps is not None
    steps = _steps
    data = {name: load_site_data(study, site, image_size(study.model)) for name, site in sites.items()}
    trained = train_centrally(
        study,
        pool({name: data[name] for name in baseline.sites}),
        baseline.name,
        federation_steps(study, data),
        lambda: steps.put(1),
    )
    return final_metrics(study, count_tests(trained, study, data), trained.round)
