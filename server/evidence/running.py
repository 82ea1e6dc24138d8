"""Runs cells, several at once, each in a process and a folder of its own; whatever happens, no process and no folder stays."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from csasn.platform.command import run_command
from csasn.platform.supervision import QUIET, end_with_parent
from server.evidence.cells import Cell, Outcome, Workshop

RUN, LOG = "run", "log"


@dataclass
class _Running:
    """A cell at work, and the share of its training that is done."""

    cell: Cell
    folder: Path
    process: BaseProcess
    pipe: Connection
    done_share: float = 0.0


def run_cells(
    workshop: Workshop, cells: Sequence[Cell], num_jobs: int, progress: Callable[[float], None]
) -> Iterator[tuple[Cell, Outcome | str]]:
    """Runs all cells, and yields as each ends what came of it, or why nothing did; `progress` is told how many are done.

    When the iterator is closed, or by Ctrl-C, what is running is ended.
    """
    waiting, running = deque(cells), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                running.append(_begin(workshop, waiting.popleft()))
            heard = wait([current.pipe for current in running])
            for current in [current for current in running if current.pipe in heard]:
                if isinstance(said := _hear(current), float):
                    current.done_share = said
                else:
                    yield current.cell, said
                    running.remove(current)
                    _end(current)
            progress(len(cells) - len(waiting) - len(running) + sum(current.done_share for current in running))
    finally:
        for current in running:
            _end(current)


def _begin(workshop: Workshop, cell: Cell) -> _Running:
    folder = workshop.folder / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / RUN).mkdir(parents=True)
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_serve, args=(theirs, os.getpid(), cell, workshop, folder))
    process.start()
    theirs.close()
    return _Running(cell, folder, process, ours)


def _serve(pipe: Connection, parent: int, cell: Cell, workshop: Workshop, folder: Path) -> None:
    """The life of a cell's process. A Ctrl-C at the terminal is its parent's, which ends it and its children by their group."""
    from server.evidence.worker import work  # torch, which the process that shows tables does without

    os.setsid()
    end_with_parent(parent)
    os.environ.update(QUIET)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    sys.exit(run_command(lambda: pipe.send(work(cell, workshop, folder / RUN, pipe.send))))


def _hear(running: _Running) -> Outcome | float | str:
    """What the cell's process says: how far it is, what came of it, or why it ended without, in our own words."""
    try:
        said: Outcome | float = running.pipe.recv()
    except (EOFError, OSError):
        running.process.join()
        lines = (running.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors[-1] if errors else f"its process ended with exit code {running.process.exitcode}"
    return said


def _end(running: _Running) -> None:
    """Ends the cell's processes, and removes its folder."""
    assert running.process.pid
    running.process.kill()
    with suppress(ProcessLookupError):  # none of its group is left, or it had not come so far as to lead one
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.join()
    running.pipe.close()
    shutil.rmtree(running.folder, ignore_errors=True)
