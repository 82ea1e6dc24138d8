"""Runs cells, several at once, each in a process and a folder of its own; whatever happens, no process and no folder stays."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from csasn.platform.configuration import write_yaml
from csasn.platform.storage import write_atomically
from csasn.site import Site
from server.evidence.cells import Cell
from server.evidence.worker import ASSIGNMENT, PROGRESS, RUN, SITES, STUDY, Assignment

WORKER = (sys.executable, "-P", "-c", "from server.evidence.worker import main; main()")
LOOK_S, END_WITHIN_S = 0.2, 10.0
EVENTS, LOG = "events.jsonl", "log"
ROUND_FINISHED = b'"event": "round-finished"'


@dataclass(frozen=True)
class Workshop:
    """Where and on what cells run: `sites` are those of the grid's study, `device` is cpu or cuda.

    `phantom` is the folder of a phantom whose nodules saliency is compared with.
    """

    folder: Path
    sites: Mapping[str, Site]
    device: str
    phantom: str | None


@dataclass(frozen=True)
class Running:
    """A cell at work."""

    cell: Cell
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def done_share(self) -> float:
        """How far it is, 0..1."""
        with suppress(OSError, ValueError):
            if self.cell.trained_on:
                return float((self.folder / PROGRESS).read_text())
            rounds = (self.folder / RUN / EVENTS).read_bytes().count(ROUND_FINISHED)
            return min(1.0, rounds / self.cell.study.federation.rounds)
        return 0.0


def run_cells(
    workshop: Workshop,
    cells: Sequence[Cell],
    num_jobs: int,
    finished: Callable[[Cell, Path, str], None],
    progress: Callable[[float], None],
) -> None:
    """Runs all cells; `finished(cell, folder, error)` as each ends, error empty where it is done, before its folder is removed.

    Ctrl-C ends what is running.
    """
    waiting, running = deque(cells), list[Running]()
    num_done = 0
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                running.append(_begin(workshop, waiting.popleft()))
            for work in [work for work in running if work.process.poll() is not None]:
                running.remove(work)
                finished(work.cell, work.folder, _error(work))
                _end(work)
                num_done += 1
            progress(num_done + sum(work.done_share for work in running))
            time.sleep(LOOK_S)
    finally:
        for work in running:
            _end(work)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is taken for Ctrl-C until the block ends."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(workshop: Workshop, cell: Cell) -> Running:
    folder = workshop.folder / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / SITES).mkdir(parents=True)
    for name, site in workshop.sites.items():
        given = site.model_copy(update={"device": workshop.device})
        write_atomically(folder / SITES / f"{name}.yaml", write_yaml(given).encode())
    write_atomically(folder / STUDY, write_yaml(cell.study).encode())
    assignment = Assignment(
        roster=tuple(workshop.sites),
        trained_on=cell.trained_on,
        scored_on=cell.scored_on,
        statistics=cell.statistics,
        device=workshop.device,
        phantom=workshop.phantom,
    )
    write_atomically(folder / ASSIGNMENT, write_yaml(assignment).encode())
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - a command of our own
            [*WORKER, str(folder)],
            stdin=subprocess.PIPE,  # closed by the end of this process, however it ends
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C at the terminal is for this process, which ends its children
        )
    return Running(cell, folder, process)


def _end(work: Running) -> None:
    """Ends the cell's processes, asked first, then killed, and removes its folder."""
    for sent, within_s in ((signal.SIGTERM, END_WITHIN_S), (signal.SIGKILL, 1.0)):
        with suppress(ProcessLookupError, PermissionError):
            deadline = time.monotonic() + within_s
            while time.monotonic() < deadline:
                os.killpg(work.process.pid, sent)
                work.process.poll()  # a process that ended is in its group until it is asked for
                time.sleep(0.05)
    work.process.wait()
    if work.process.stdin:
        work.process.stdin.close()
    shutil.rmtree(work.folder, ignore_errors=True)


def _error(work: Running) -> str:
    """Why the cell failed, in our own words; empty where it is done."""
    if work.process.returncode == 0:
        return ""
    lines = (work.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return said[-1] if said else f"its process ended with exit code {work.process.returncode}"
