"""The command `csasn ablate`."""

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from csasn.errors import ConfigurationError, RunError, Stopped
from csasn.platform.terminal import Command, argument, console, option, say

if TYPE_CHECKING:
    from server.evidence.campaign import Campaign
    from server.evidence.cells import Cell

PICTURE = "results.svg"


def ablate(
    grid: Annotated[Path, argument("GRID", "grid file: study, variants, seeds, comparisons")],
    more_seeds: Annotated[list[int] | None, argument("SEED...", "further seeds, after --seeds SEED")] = None,
    out: Annotated[Path | None, option("--out DIR", "folder of results (default: the grid's name, beside GRID)")] = None,
    only: Annotated[list[str] | None, option("--only VARIANT", "run this variant; repeat for several")] = None,
    seeds: Annotated[list[int] | None, option("--seeds SEED", "run these seeds of the grid: --seeds 1 2 3")] = None,
    jobs: Annotated[int, option("--jobs N", "cells at once: as many as there are cores (default 1)")] = 1,
    device: Annotated[Literal["cpu", "cuda"], option("--device", "where models are trained (default cpu)")] = "cpu",
    dry_run: Annotated[
        bool, option("--dry-run", "list the cells and run none: done, check (of other code), stale (of other data), to do")
    ] = False,
    report: Annotated[bool, option("--report", "run none, write and print the tables of what is done")] = False,
) -> None:
    """Train variants of a study over several seeds, score them case by case, and compare them.

    example:
      csasn phantom --out demo
      csasn ablate tests/evidence/upload_bits.yaml --jobs 2
    """
    from server.evidence.campaign import Campaign
    from server.evidence.cells import cells_of
    from server.evidence.grid import read_grid
    from server.evidence.results import locked_folder

    if jobs < 1:
        raise ConfigurationError(f"--jobs is {jobs}, expected 1 or more", "as many as there are cores, or one")
    wanted = read_grid(grid)
    chosen = cells_of(wanted, only or [], [*(seeds or []), *(more_seeds or [])])
    folder = out or grid.parent / grid.stem
    begin = partial(Campaign.of, wanted, folder, grid.stem, cells_of(wanted))
    if dry_run:
        _list(begin(), chosen)
        return
    with locked_folder(folder):
        campaign = begin()
        failed = [] if report else _run(campaign, chosen, jobs, device)
        _report(campaign)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(chosen)} cells failed: {', '.join(failed)}",
            "the reason stands above and in results.json; the same command runs them again",
        )


ABLATE = Command(ablate, either=("dry_run", "report"))


def _list(campaign: "Campaign", cells: Sequence["Cell"]) -> None:
    for cell in cells:
        say(f"{campaign.state(cell):6} {cell.name:32} {cell.method:40} study {cell.study.study_hash[:12]}")


def _run(campaign: "Campaign", cells: Sequence["Cell"], num_jobs: int, device: str) -> list[str]:
    """Runs what is not done; the names of the cells that failed."""
    say(f"{len(cells)} cells, of which {len(cells) - len(campaign.missing(cells))} are done")
    begun = time.monotonic()
    try:
        return campaign.run(cells, num_jobs, device)
    except KeyboardInterrupt:
        left = len(campaign.missing(cells))
        raise Stopped(
            f"stopped after {time.monotonic() - begun:.0f} s, {left} of {len(cells)} cells are to do", "the same command goes on"
        ) from None
    finally:
        shutil.rmtree(campaign.work, ignore_errors=True)


def _report(campaign: "Campaign") -> None:
    """Writes results.json, results.md and results.svg, and prints the tables.

    Raises:
        RunError: all results are of a study that the grid no longer has.
    """
    from rich.markdown import Markdown

    from csasn.platform.storage import write_atomically
    from server.evidence.picture import draw_comparisons
    from server.evidence.tables import markdown

    summary, folder = campaign.summarise(), campaign.results.folder
    if not (summary.num_done or campaign.results.is_empty):
        raise RunError(
            f"no result in {folder} is of the studies of the grid as they are now, so its tables are left as they are",
            "run the grid again, or name another --out",
        )
    picture = draw_comparisons(summary)
    if picture:
        write_atomically(folder / PICTURE, picture.encode())
    write_atomically(folder / "results.md", markdown(summary, PICTURE if picture else "").encode())
    console().print(Markdown(markdown(summary)))
    say(f"{summary.num_done} of {summary.num_cells} cells are done; everything is in {folder}")
