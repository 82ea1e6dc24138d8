"""A grid as it is run: which cells are missing, what is kept of each, and what a person sees of it."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from rich.progress import Progress

from csasn.platform.supervision import end_on_sigterm
from csasn.platform.terminal import progress_bars
from csasn.site import Site, find_site
from server.evidence.cells import Cell, Outcome, Workshop, base_study
from server.evidence.deciding import decide, weights_without_rounds
from server.evidence.grid import Grid
from server.evidence.provenance import code_version, data_hash
from server.evidence.results import Record, Results, classes_of, prevalence_of
from server.evidence.running import run_cells
from server.evidence.summary import Summary, check_comparisons, summarise

WORK = ".work"
DONE, CHECK, STALE, TO_DO = "done", "check", "stale", "to do"
SPEED_OVER_S = 7200.0  # cells take minutes: the time left follows from all of them


@dataclass(frozen=True)
class Campaign:
    """One call of the command: the grid with all its cells, and its results. `roster` are the sites of its study."""

    grid: Grid
    results: Results
    cells: Sequence[Cell]
    roster: tuple[str, ...]

    @staticmethod
    def of(grid: Grid, folder: Path, name: str, cells: Sequence[Cell]) -> "Campaign":
        """Checks what the grid names, and reads its results.

        Raises:
            ConfigurationError: it names classes, measures or sites that there are not.
            StorageError: results cannot be read.
        """
        study = base_study(grid)
        classes, roster = classes_of(study, grid.rare), study.federation.sites
        prevalence_K = prevalence_of(classes, grid.prevalence)
        check_comparisons(grid, cells, classes, roster)
        return Campaign(grid, Results(folder, name, classes, prevalence_K), cells, roster)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """The sites of the study."""
        return {name: find_site(name, folder=self.grid.sites_folder) for name in self.roster}

    @cached_property
    def data_hash(self) -> str:
        """Of the sites' data as they are now."""
        return data_hash(self.sites)

    @property
    def work(self) -> Path:
        """Folder of what is running."""
        return self.results.folder / WORK

    def state(self, cell: Cell) -> str:
        """Whether the cell has a result, of the data as they are (or it is stale), and of this code (or it wants a check)."""
        record = self.results.finished(cell)
        if record is None:
            return TO_DO
        if record.data_hash != self.data_hash:
            return STALE
        return DONE if record.code_version == code_version() else CHECK

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells without a result that is known to hold."""
        return [cell for cell in cells if self.state(cell) != DONE]

    def summarise(self) -> Summary:
        """What all finished cells say, with their values measured again: the grid's prevalence may have changed."""
        self.results.measure_again(self.cells)
        return summarise(self.grid, self.cells, self.results, self.roster)

    def run(self, cells: Sequence[Cell], num_jobs: int, device: str) -> list[str]:
        """Runs what is missing of the cells, and keeps what comes of it; names of those that failed.

        Results of other code hold if one of its cells, run again, gives the same predictions to the bit: names of modules changed.
        """
        end_on_sigterm()
        sites = {name: site.model_copy(update={"device": device}) for name, site in self.sites.items()}
        workshop = Workshop(self.work, sites, self.grid.phantom)
        with progress_bars(speed_over_s=SPEED_OVER_S) as bars:
            failed = [name for cell in self._first_of_other_code(cells) for name in self._check(workshop, cell, bars)]
            missing = [cell for cell in self.missing(cells) if cell.name not in failed]
            return failed + self._run(workshop, missing, num_jobs, bars)

    def _first_of_other_code(self, cells: Sequence[Cell]) -> list[Cell]:
        """The first cell that each other code trained."""
        found: dict[str, Cell] = {}
        for cell in cells:
            record = self.results.finished(cell)
            if record and self.state(cell) == CHECK and not cell.decided_from:
                found.setdefault(record.code_version, cell)
        return list(found.values())

    def _check(self, workshop: Workshop, cell: Cell, bars: Progress) -> list[str]:
        """Runs a cell of other code again, and says whether this code gives the same; its name if it failed."""
        before = self.results.finished(cell)
        assert before
        failed = self._run(workshop, [cell], 1, bars)
        after = self.results.finished(cell)
        if after and after.predictions == before.predictions:
            number = 1 + self.results.take_over(before, after.code_version, self.cells)
            said = f"the same bits as by code {before.code_version}, whose {number} results hold"
        else:
            said = f"other bits than by code {before.code_version} on {before.device}, whose results do not hold"
        bars.console.print(f"{cell.name}: {said}", highlight=False, markup=False)
        return failed

    def _run(self, workshop: Workshop, cells: Sequence[Cell], num_jobs: int, bars: Progress) -> list[str]:
        """Runs cells, and says a line of each; names of those that failed."""
        failed = []
        task = bars.add_task(self.results.name, total=len(cells))
        show = partial(bars.update, task)
        with closing(self._outcomes(workshop, cells, num_jobs, lambda done: show(completed=round(done, 2)))) as outcomes:
            for cell, came in outcomes:
                record = self._keep(cell, came)
                failed += [cell.name] if record.error else []
                bars.console.print(f"{cell.name}: {_line(record)}", highlight=False, markup=False)
        show(completed=len(cells))
        return failed

    def _outcomes(
        self, workshop: Workshop, cells: Sequence[Cell], num_jobs: int, progress: Callable[[float], None]
    ) -> Generator[tuple[Cell, Outcome | str], None, None]:
        """What came of each cell, or why nothing did: of those that are trained, then of those that are decided from them."""
        yield from run_cells(workshop, [cell for cell in cells if not cell.decided_from], num_jobs, progress)
        for cell in cells:
            if cell.decided_from:
                yield cell, self._decided(cell)

    def _decided(self, cell: Cell) -> Outcome | str:
        """What comes of a cell that takes the predictions of another."""
        (trained,) = (other for other in self.cells if (other.variant, other.seed) == (cell.decided_from, cell.seed))
        record = self.results.finished(trained)
        if record is None or self.state(trained) != DONE:
            return f"it is decided from {trained.name}, which has to be done first"
        weights = weights_without_rounds(cell.study, [self.sites[name] for name in cell.trained_on or cell.study.federation.sites])
        predictions = decide(self.results.predictions_of(trained), weights)
        return Outcome(predictions, record.device, seconds=0.0, clipped_share=record.clipped_share, saliency={})

    def _keep(self, cell: Cell, came: Outcome | str) -> Record:
        """Keeps what came of a cell; its record."""
        record = Record(
            variant=cell.variant,
            seed=cell.seed,
            method=cell.method,
            statistics=cell.statistics,
            study_hash=cell.study.study_hash,
            data_hash=self.data_hash,
            code_version=code_version(),
        )
        if isinstance(came, str):
            return self.results.keep(cell, record.model_copy(update={"error": came}), None)
        facts = {key: getattr(came, key) for key in ("device", "seconds", "clipped_share", "saliency")}
        return self.results.keep(cell, record.model_copy(update=facts), came.predictions)


def _line(record: Record) -> str:
    """What is shown of a cell as it ends."""
    if record.error:
        return f"failed: {record.error}"
    shown = ", ".join(f"{name} {record.values[name] or 0:.3f}" for name in ("macro_auroc", "balanced_accuracy"))
    return f"{shown} ({record.seconds:.0f} s)"
