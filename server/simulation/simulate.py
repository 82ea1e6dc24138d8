"""`server simulate`: the whole federation on one machine, with the same two apps that hospitals run."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flwr.serverapp import Grid

from csasn.errors import ConfigurationError, Stopped
from csasn.model.packages import random_warnings
from csasn.platform.heap import keep_freed_memory
from csasn.report.events import BaselineTrained, Event, Outcome, finished_rounds, last, of_kind
from csasn.report.types import Engine, Report, SurveyReport
from csasn.site import Site, find_site
from csasn.study import Study, read_study
from server.flower.app import RUN_DIRECTORY, SITES, Pause, ask_places, coordinate
from server.flower.runtime import LocalGrid, require_ray, run_on_ray
from server.run.continuation import continued, find_start
from server.run.execution import carry_out
from server.run.preparation import begin, check_resumable
from server.run.run_directory import REPORT, RunDirectory, describe, is_finished, read_events, set_aside
from server.simulation.baselines import Baseline, baselines_of, run_baselines
from server.simulation.progress import Progress

CLIENT_APP = "client.flower.app:app"
NUM_PROCESSES = 2


@dataclass(frozen=True)
class Simulation:
    """The arguments of `server simulate`."""

    study_file: Path
    sites_folder: Path
    out: Path | None = None
    changes: tuple[str, ...] = ()
    baselines: bool = False
    resume: bool = False
    anew: bool = False
    continues: Path | None = None
    engine: Literal["local", "flower"] = "local"


def simulate(simulation: Simulation, progress: Progress) -> tuple[Report | SurveyReport, Path]:
    """Runs or resumes a simulation, or adds baselines to a finished one; its report and run directory.

    Raises:
        Stopped: Ctrl-C; the run can be resumed.
        CsasnError: whatever keeps the run from going on.
    """
    if simulation.engine == "flower":
        require_ray()
    keep_freed_memory()
    study = read_study(simulation.study_file, simulation.changes)
    if simulation.continues:
        study = continued(study, simulation.continues)
    if (study.survey or study.continues) and simulation.baselines:
        what = "a survey, which trains nothing" if study.survey else "a study that continues a model, which they would not"
        raise ConfigurationError(f"baselines of {what}", "leave out --baselines")
    path = simulation.out or Path("runs") / study.name
    sites = {name: find_site(name, folder=simulation.sites_folder) for name in study.federation.sites}
    _prepare(simulation, study, sites, path, progress)
    directory = RunDirectory(path, progress.on_event)
    for line in random_warnings(directory.study):
        progress.say(line)
    engine = _federate_on_ray if simulation.engine == "flower" else _federate

    def finish() -> None:
        if simulation.baselines:
            _add_baselines(directory, sites, progress)

    try:
        report = carry_out(
            directory, _engine_of(simulation, path), lambda: engine(directory, sites, simulation.sites_folder, progress), finish
        )
    except KeyboardInterrupt:
        raise Stopped(f"stopped: {path} holds {describe(path)}", f"continue with: {_resume_command(simulation, path)}") from None
    return report, path


def _prepare(simulation: Simulation, study: Study, sites: Mapping[str, Site], path: Path, progress: Progress) -> None:
    """A new run directory, or that of the same study with something left to do."""
    if simulation.anew and (aside := set_aside(path)):
        progress.say(f"what was in {path} is now in {aside}")
    if simulation.resume:
        wanting = simulation.baselines and _missing_baselines(study, read_events(path))
        check_resumable(path, study, lacks_baselines=bool(wanting))
    else:
        begin(path, study, sites, find_start(study, simulation.study_file, simulation.continues))


def _engine_of(simulation: Simulation, path: Path) -> Engine:
    """What the report names: of a finished run what it ran on."""
    if is_finished(path):
        return Report.of_json(json.loads((path / REPORT).read_text(encoding="utf-8"))).engine
    return simulation.engine


def _federate(directory: RunDirectory, sites: Mapping[str, Site], sites_folder: Path, progress: Progress) -> None:
    """The federation over worker processes."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers: one torch thread each
    configs = [
        {
            "site-file": str((sites_folder / f"{name}.yaml").resolve()),
            "study-file": str((directory.path / "study.yaml").resolve()),
            "membership-file": str((directory.path / "membership.json").resolve()),
            "state-folder": str((directory.path / "sites" / name).resolve()),
            "threads": 1,
        }
        for name in sites
    ]
    grid = LocalGrid(CLIENT_APP, configs, NUM_PROCESSES)  # type: ignore[arg-type]
    try:
        nodes = dict(zip(sites, grid.get_node_ids(), strict=True))
        progress.federation(directory.study)
        coordinate(grid, nodes, directory)
    finally:
        grid.close()


def _federate_on_ray(directory: RunDirectory, sites: Mapping[str, Site], sites_folder: Path, progress: Progress) -> None:
    """The federation on Flower's own simulation runtime, configured as `flwr run` configures it."""
    config = {RUN_DIRECTORY: str(directory.path.resolve()), SITES: str(sites_folder.resolve())}
    progress.federation(directory.study)

    def serve(grid: Grid, pause: Pause) -> None:
        coordinate(grid, ask_places(grid, directory.membership.sites, pause), directory, pause)

    run_on_ray(serve, CLIENT_APP, len(sites), config)


def _add_baselines(directory: RunDirectory, sites: Mapping[str, Site], progress: Progress) -> None:
    """The baselines that the run does not hold yet."""
    events = directory.events()
    missing = _missing_baselines(directory.study, events)
    steps = sum(event.steps for event in finished_rounds(events))
    outcome = last(events, Outcome)
    advance = progress.baselines(len(missing), steps * len(missing))
    run_baselines(
        directory.study,
        sites,
        missing,
        directory.path if outcome and outcome.final else None,
        NUM_PROCESSES,
        lambda name, final: directory.event("baseline", name=name, final=final),
        advance,
    )


def _missing_baselines(study: Study, events: Sequence[Event]) -> list[Baseline]:
    done = {event.name for event in of_kind(events, BaselineTrained)}
    return [baseline for baseline in baselines_of(study) if baseline.name not in done]


def _resume_command(simulation: Simulation, path: Path) -> str:
    arguments = [f"{simulation.study_file} --sites {simulation.sites_folder} --out {path}"]
    arguments += [f"--set {change}" for change in simulation.changes]
    arguments += [f"--continue {simulation.continues}"] if simulation.continues else []
    arguments += ["--baselines"] if simulation.baselines else []
    arguments += [f"--engine {simulation.engine}"] if simulation.engine != "local" else []
    return f"server simulate {' '.join(arguments)} --resume"
