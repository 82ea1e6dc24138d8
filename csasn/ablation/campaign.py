"""A grid as it is run: which cells are missing, what is kept of each, and what a person sees of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csasn.ablation.cells import Cell, base_sites
from csasn.ablation.grid import Grid
from csasn.ablation.provenance import code_version, data_hash
from csasn.ablation.results import WORK, Record, Results, classes_of
from csasn.ablation.running import Workshop, run_cells, terminated_as_interrupted
from csasn.ablation.worker import OUTCOME, predictions_file
from csasn.site import Site, find_site

SPEED_OVER_S = 7200.0  # cells take minutes: the time left follows from all of them


@dataclass
class Campaign:
    """One call of the command: grid, results, and what the cells are made of."""

    grid: Grid
    results: Results
    sites: dict[str, Site]
    device: str
    data: str
    version: str = field(default_factory=code_version)

    @staticmethod
    def of(grid: Grid, results: Results, device: str) -> "Campaign":
        """Finds the sites.

        Raises:
            CsasnError: a site file or a site's data is missing.
        """
        sites = {name: find_site(name, folder=grid.sites_folder) for name in base_sites(grid)}
        return Campaign(grid, results, sites, device, data_hash(sites))

    @property
    def work(self) -> Path:
        """Folder of what is running."""
        return self.results.folder / WORK

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells without a result that still holds."""
        return [cell for cell in cells if self.results.record_of(cell, self.data, self.version) is None]

    def run(self, cells: Sequence[Cell], num_jobs: int) -> list[str]:
        """Runs cells; names of those that failed."""
        failed: list[str] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        bars = Progress(*columns, console=console, speed_estimate_period=SPEED_OVER_S, disable=not console.is_terminal)
        with terminated_as_interrupted(), bars:
            task = bars.add_task(self.results.name, total=len(cells))
            workshop = Workshop(self.work, self.sites, self.device)
            finished = partial(self._finished, failed, bars.console)
            run_cells(workshop, cells, num_jobs, finished, lambda done: bars.update(task, completed=round(done, 2)))
        return failed

    def _finished(self, failed: list[str], console: Console, cell: Cell, folder: Path, error: str) -> None:
        record = Record(
            variant=cell.variant,
            seed=cell.seed,
            method=cell.method,
            study_hash=cell.study.study_hash,
            data_hash=self.data,
            code_version=self.version,
            error=error,
        )
        if error:
            failed.append(cell.name)
            self.results.keep(cell, record, {}, classes_of(cell.study, self.grid.rare))
            console.print(f"{cell.name}: failed: {error}", highlight=False, markup=False)
            return
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        record = record.model_copy(update={"device": str(outcome["device"]), "seconds": float(outcome["seconds"])})
        files = {statistics: folder / predictions_file(statistics) for statistics in cell.statistics}
        kept = self.results.keep(cell, record, files, classes_of(cell.study, self.grid.rare))
        values = next(iter(kept.values.values()))
        shown = ", ".join(f"{name} {values[name] or 0:.3f}" for name in ("macro_auroc", "balanced_accuracy"))
        console.print(f"{cell.name}: {shown} ({kept.seconds:.0f} s)", highlight=False, markup=False)
