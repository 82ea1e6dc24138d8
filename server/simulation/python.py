"""`csasn.simulate`: the core finds it by the entry point `server` of csasn.simulations, since it knows no server."""

from pathlib import Path

from rich.console import Console

from csasn.errors import ConfigurationError
from csasn.report.types import Report
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation, simulate


def run(
    study_file: Path,
    sites_folder: Path,
    out: Path | None,
    *,
    changes: tuple[str, ...],
    baselines: bool,
    resume: bool,
    anew: bool,
    quiet: bool,
) -> tuple[Report, Path]:
    """See `csasn.simulate`."""
    simulation = Simulation(study_file, sites_folder, out, changes, baselines, resume, anew)
    with Progress(Console(stderr=True, quiet=quiet)) as progress:
        report, path = simulate(simulation, progress)
    if not isinstance(report, Report):
        raise ConfigurationError(f"{study_file.name}: survey is true, which trains nothing", "see server survey")
    return report, path
