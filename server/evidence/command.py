"""The command `csasn ablate`."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.errors import ConfigurationError, RunError, Stopped

if TYPE_CHECKING:
    from server.evidence.campaign import Campaign
    from server.evidence.cells import Cell

WIDTH = 160  # of tables in a log
PICTURE = "results.svg"
EXAMPLE = """example:
  csasn phantom --out demo
  csasn ablate tests/evidence/upload_bits.yaml --jobs 2
"""


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.epilog = f"{EXAMPLE}\n{parser.epilog}"
    parser.add_argument("grid", type=Path, metavar="GRID", help="grid file: study, variants, seeds, comparisons")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of results (default: the grid's name, beside GRID)")
    parser.add_argument("--only", action="append", default=[], metavar="VARIANT", help="run this variant; repeat for several")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], metavar="SEED", help="run these seeds of the grid")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once: as many as there are cores (default 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models are trained (default cpu)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="list the cells and run none: done, check (of other code), stale (of other data), to do",
    )
    what.add_argument("--report", action="store_true", help="run none, write and print the tables of what is done")
    parser.set_defaults(command=_ablate)


ABLATE = "train variants of a study over several seeds, score them case by case, and compare them", add_ablate


def _ablate(arguments: argparse.Namespace) -> None:
    from server.evidence.campaign import Campaign
    from server.evidence.cells import cells_of
    from server.evidence.grid import read_grid
    from server.evidence.results import locked_folder

    if arguments.jobs < 1:
        raise ConfigurationError(f"--jobs is {arguments.jobs}, expected 1 or more", "as many as there are cores, or one")
    grid = read_grid(arguments.grid)
    chosen = cells_of(grid, arguments.only, arguments.seeds)
    folder = arguments.out or arguments.grid.parent / arguments.grid.stem
    begin = partial(Campaign.of, grid, folder, arguments.grid.stem, cells_of(grid))
    if arguments.dry_run:
        _list(begin(), chosen)
        return
    with locked_folder(folder):
        campaign = begin()
        failed = [] if arguments.report else _run(campaign, chosen, arguments.jobs, arguments.device)
        _report(campaign)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(chosen)} cells failed: {', '.join(failed)}",
            "the reason stands above and in results.json; the same command runs them again",
        )


def _list(campaign: "Campaign", cells: Sequence["Cell"]) -> None:
    for cell in cells:
        sys.stdout.write(f"{campaign.state(cell):6} {cell.name:32} {cell.method:40} study {cell.study.study_hash[:12]}\n")


def _run(campaign: "Campaign", cells: Sequence["Cell"], num_jobs: int, device: str) -> list[str]:
    """Runs what is not done; the names of the cells that failed."""
    sys.stdout.write(f"{len(cells)} cells, of which {len(cells) - len(campaign.missing(cells))} are done\n")
    sys.stdout.flush()
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
    from rich.console import Console
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
    console = Console()
    Console(width=None if console.is_terminal else WIDTH).print(Markdown(markdown(summary)))
    sys.stdout.write(f"{summary.num_done} of {summary.num_cells} cells are done; everything is in {folder}\n")
