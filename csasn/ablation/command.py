"""The command `csasn ablate`."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.errors import RunError, Stopped

if TYPE_CHECKING:
    from csasn.ablation.cells import Cell
    from csasn.ablation.grid import Grid
    from csasn.ablation.results import Results

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
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once, each of two processes (default 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models are trained (default cpu)")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and which are done, and run none")
    parser.add_argument("--report", action="store_true", help="only write and print the tables of what is done")
    parser.set_defaults(command=_ablate)


def _ablate(arguments: argparse.Namespace) -> None:
    from csasn.ablation.cells import cells_of
    from csasn.ablation.grid import read_grid
    from csasn.ablation.results import Results, locked_folder

    grid = read_grid(arguments.grid)
    cells = cells_of(grid, arguments.only, arguments.seeds)
    out = arguments.out or arguments.grid.parent / arguments.grid.stem
    with locked_folder(out):
        results = Results(out, arguments.grid.stem, grid.prevalence)
        if arguments.dry_run:
            _list(grid, cells, results)
            return
        failed = [] if arguments.report else _run(grid, cells, results, arguments)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}",
            "the reason stands above and in results.json; the same command runs them again",
        )


def _list(grid: "Grid", cells: Sequence["Cell"], results: "Results") -> None:
    from csasn.ablation.cells import base_sites
    from csasn.ablation.provenance import code_version, data_hash
    from csasn.site import find_site

    sites = {name: find_site(name, folder=grid.sites_folder) for name in base_sites(grid)}
    version, data = code_version(), data_hash(sites)
    for cell in cells:
        done = "done" if results.record_of(cell, data, version) else "to do"
        sys.stdout.write(f"{done:6} {cell.name:32} {cell.method:40} study {cell.study.study_hash[:12]}\n")


def _run(grid: "Grid", cells: Sequence["Cell"], results: "Results", arguments: argparse.Namespace) -> list[str]:
    """Runs what is not done; the names of the cells that failed."""
    from csasn.ablation.campaign import Campaign

    campaign = Campaign.of(grid, results, arguments.device)
    waiting = campaign.missing(cells)
    sys.stdout.write(f"{len(cells)} cells, of which {len(cells) - len(waiting)} are done\n")
    sys.stdout.flush()
    begun = time.monotonic()
    try:
        return campaign.run(waiting, arguments.jobs)
    except KeyboardInterrupt:
        left = len(campaign.missing(cells))
        raise Stopped(
            f"stopped after {time.monotonic() - begun:.0f} s, {left} of {len(cells)} cells are to do", "the same command goes on"
        ) from None
    finally:
        shutil.rmtree(campaign.work, ignore_errors=True)
