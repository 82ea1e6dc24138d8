"""A grid as it is run: which cells are missing, what is kept of each, and what a person sees of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csasn.ablation.cells import Cell, base_study
from csasn.ablation.grid import Grid
from csasn.ablation.provenance import code_version, data_hash
from csasn.ablation.results import WORK, Record, Results, classes_of, prevalence_of
from csasn.ablation.running import Workshop, run_cells, terminated_as_interrupted
from csasn.ablation.summary import Summary, check_comparisons, summarise
from csasn.ablation.worker import OUTCOME, predictions_file
from csasn.site import Site, find_site
from csasn.statistics import Classes

SPEED_OVER_S = 7200.0  # cells take minutes: the time left follows from all of them


@dataclass(frozen=True)
class Campaign:
    """One call of the command: the grid with all its cells, and its results. `roster` and `classes` are those of its study."""

    grid: Grid
    results: Results
    cells: Sequence[Cell]
    device: str
    any_code: bool
    roster: tuple[str, ...]
    classes: Classes

    @staticmethod
    def of(grid: Grid, results: Results, cells: Sequence[Cell], device: str, any_code: bool = False) -> "Campaign":
        """Checks what the grid names.

        Raises:
            ConfigurationError: it names classes, measures or sites that there are not.
        """
        study = base_study(grid)
        classes, roster = classes_of(study, grid.rare), study.federation.sites
        prevalence_of(classes, grid.prevalence)
        check_comparisons(grid, cells, classes, roster)
        return Campaign(grid, results, cells, device, any_code, roster, classes)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """The sites of the study."""
        return {name: find_site(name, folder=self.grid.sites_folder) for name in self.roster}

    @cached_property
    def origin(self) -> tuple[str, str]:
        """Hash of the data as it is now, and version of the code."""
        return data_hash(self.sites), code_version()

    @property
    def work(self) -> Path:
        """Folder of what is running."""
        return self.results.folder / WORK

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell has a result that still holds: with `any_code`, also one that other code made of the same data."""
        record, (data, code) = self.results.finished(cell), self.origin
        return record is not None and record.data_hash == data and (self.any_code or record.code_version == code)

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells without a result that still holds."""
        return [cell for cell in cells if not self.is_done(cell)]

    def summarise(self) -> Summary:
        """What all finished cells say, with their values measured again: the grid's prevalence may have changed."""
        self.results.measure_again(self.cells, self.classes)
        return summarise(self.grid, self.cells, self.results, self.classes, self.roster)

    def run(self, cells: Sequence[Cell], num_jobs: int) -> list[str]:
        """Runs cells; names of those that failed."""
        failed: list[str] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        bars = Progress(*columns, console=console, speed_estimate_period=SPEED_OVER_S, disable=not console.is_terminal)
        workshop = Workshop(self.work, self.sites, self.device, self.grid.phantom)
        with terminated_as_interrupted(), bars:
            task = bars.add_task(self.results.name, total=len(cells))
            finished = partial(self._finished, failed, bars.console)
            run_cells(workshop, cells, num_jobs, finished, lambda done: bars.update(task, completed=round(done, 2)))
        return failed

    def _finished(self, failed: list[str], console: Console, cell: Cell, folder: Path, error: str) -> None:
        """Keeps what came of a cell, and says it in a line."""
        data, code = self.origin
        record = Record(
            variant=cell.variant,
            seed=cell.seed,
            method=cell.method,
            study_hash=cell.study.study_hash,
            data_hash=data,
            code_version=code,
            error=error,
        )
        if error:
            failed.append(cell.name)
            self.results.keep(cell, record, {}, self.classes)
            console.print(f"{cell.name}: failed: {error}", highlight=False, markup=False)
            return
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        record = record.model_copy(update={key: outcome[key] for key in ("device", "seconds", "clipped_share", "saliency")})
        files = {statistics: folder / predictions_file(statistics) for statistics in cell.statistics}
        kept = self.results.keep(cell, record, files, self.classes)
        values = kept.values[cell.statistics[0]]
        shown = ", ".join(f"{name} {values[name] or 0:.3f}" for name in ("macro_auroc", "balanced_accuracy"))
        console.print(f"{cell.name}: {shown} ({kept.seconds:.0f} s)", highlight=False, markup=False)
