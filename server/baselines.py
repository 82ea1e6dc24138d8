"""Baselines of a simulation: each site alone, and all cases pooled, with as many optimiser steps as the whole federation.

They run side by side in processes of one torch thread each, and are scored on the union of the test cases.
"""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """Pooled first, then each site alone."""
    sites = study.federation.sites
    return (Baseline(POOLED, sites), *(Baseline(f"single/{site}", (site,)) for site in sites))


def run_baselines(
    study: Study,
    sites: Mapping[str, Site],
    baselines: Sequence[Baseline],
    num_processes: int,
    done: Callable[[str, dict[str, object]], None],
    advance: Callable[[int], None],
) -> None:
    """Trains and scores baselines; `done(name, final)` as each ends, `advance(number of steps taken)` meanwhile."""
    context = multiprocessing.get_context("spawn")
    steps: Queue[int] = context.Queue()
    with ProcessPoolExecutor(num_processes, context, initializer=_begin, initargs=(steps,)) as pool:
        running = {pool.submit(_train, study, dict(sites), baseline): baseline for baseline in baselines}
        try:
            while running:
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                advance(_drain(steps))
                for future in finished:
                    done(running.pop(future).name, future.result())
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _drain(steps: "Queue[int]") -> int:
    taken = 0
    while True:
        try:
            taken += steps.get_nowait()
        except queue.Empty:
            return taken


def _begin(steps: "Queue[int]") -> None:
    import torch

    global _steps  # noqa: PLW0603 - a pool hands its workers a queue in no other way
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _train(study: Study, sites: dict[str, Site], baseline: Baseline) -> dict[str, object]:
    from csasn.central import count_tests, federation_steps, pool, train_centrally
    from csasn.data.cases import load_site_data
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
