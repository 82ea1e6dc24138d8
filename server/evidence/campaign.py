"""A grid as it is run: which cells are missing, what is kept of each, and what a person sees of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from rich.console import Console

from csasn.measures.cases import Classes
from csasn.platform.terminal import progress_bars
from csasn.site import Site, find_site
from server.evidence.cells import Cell, base_study
from server.evidence.deciding import decide, weights_without_rounds
from server.evidence.grid import Grid, Statistics
from server.evidence.predictions import Predictions, load_predictions
from server.evidence.provenance import code_version, data_hash
from server.evidence.results import WORK, Record, Results, classes_of, prevalence_of
from server.evidence.running import Workshop, run_cells, terminated_as_interrupted
from server.evidence.summary import Summary, check_comparisons, summarise
from server.evidence.worker import OUTCOME, predictions_file

Came = tuple[Record, Mapping[Statistics, Predictions]]  # of a cell: without predictions it failed

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
        bars = progress_bars(speed_over_s=SPEED_OVER_S)
        workshop = Workshop(self.work, self.sites, self.device, self.grid.phantom)
        with terminated_as_interrupted(), bars:
            task = bars.add_task(self.results.name, total=len(cells))
            keep = partial(self._keep, failed, bars.console)
            trained = [cell for cell in cells if not cell.decided_from]
            run_cells(
                workshop,
                trained,
                num_jobs,
                lambda cell, folder, error: keep(cell, *self._trained(cell, folder, error)),
                lambda done: bars.update(task, completed=round(done, 2)),
            )
            for cell in cells:
                if cell.decided_from:
                    keep(cell, *self._decided(cell))
                    bars.advance(task)
        return failed

    def _trained(self, cell: Cell, folder: Path, error: str) -> Came:
        """What came of a cell that ran in `folder`."""
        if error:
            return self._record(cell).model_copy(update={"error": error}), {}
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        facts = {key: outcome[key] for key in ("device", "seconds", "clipped_share", "saliency")}
        predictions = {name: load_predictions(folder / predictions_file(name)) for name in cell.statistics}
        return self._record(cell).model_copy(update=facts), predictions

    def _decided(self, cell: Cell) -> Came:
        """What comes of a cell that takes the predictions of another."""
        (trained,) = (other for other in self.cells if (other.variant, other.seed) == (cell.decided_from, cell.seed))
        record = self.results.finished(trained) if self.is_done(trained) else None
        if record is None:
            error = f"it is decided from {trained.name}, which has to be done first"
            return self._record(cell).model_copy(update={"error": error}), {}
        weights = weights_without_rounds(cell.study, [self.sites[name] for name in cell.trained_on or cell.study.federation.sites])
        predictions = {name: decide(self.results.predictions_of(trained, name), weights) for name in cell.statistics}
        facts = {key: getattr(record, key) for key in ("code_version", "device", "clipped_share")}
        return self._record(cell).model_copy(update=facts), predictions

    def _record(self, cell: Cell) -> Record:
        data, code = self.origin
        return Record(
            variant=cell.variant,
            seed=cell.seed,
            method=cell.method,
            study_hash=cell.study.study_hash,
            data_hash=data,
            code_version=code,
        )

    def _keep(
        self, failed: list[str], console: Console, cell: Cell, record: Record, predictions: Mapping[Statistics, Predictions]
    ) -> None:
        """Keeps what came of a cell, and says it in a line."""
        kept = self.results.keep(cell, record, predictions, self.classes)
        if kept.error:
            failed.append(cell.name)
            said = f"failed: {kept.error}"
        else:
            values = kept.values[cell.statistics[0]]
            shown = ", ".join(f"{name} {values[name] or 0:.3f}" for name in ("macro_auroc", "balanced_accuracy"))
            said = f"{shown} ({kept.seconds:.0f} s)"
        console.print(f"{cell.name}: {said}", highlight=False, markup=False)
