"""`server simulate`: the whole federation on one machine, with the same two apps that hospitals run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict

from csasn.data.cases import count_training_cases
from csasn.errors import CsasnError, RunError, Stopped
from csasn.membership import Member, Membership, share_weights
from csasn.site import Site, find_site
from csasn.study import Study, read_study
from server.app import NODES, RUN_DIRECTORY, coordinate
from server.baselines import baselines_of, run_baselines
from server.flower_runtime import RUN_ID, SERVER_NODE, LocalGrid
from server.outcome import write_report
from server.progress import Progress
from server.run_directory import RunDirectory, describe, is_finished, set_aside

CLIENT_APP = "client.app:app"
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


def simulate(simulation: Simulation, progress: Progress) -> tuple[dict[str, object], Path]:
    """Runs or resumes a simulation; its report and run directory.

    Raises:
        Stopped: Ctrl-C; the run can be resumed.
        CsasnError: whatever keeps the run from going on.
    """
    study = read_study(simulation.study_file, simulation.changes)
    path = simulation.out or Path("runs") / study.name
    sites = {name: find_site(name, folder=simulation.sites_folder) for name in study.federation.sites}
    _prepare(simulation, study, sites, path, progress)
    directory = RunDirectory(path, progress.on_event)
    try:
        _federate(directory, sites, simulation.sites_folder, progress)
        if simulation.baselines:
            _add_baselines(directory, sites, progress)
        directory.event("run-finished")
        return write_report(directory, "local"), path
    except KeyboardInterrupt:
        directory.event("stopped")
        write_report(directory, "local")
        raise Stopped(f"stopped: {path} holds {describe(path)}", f"continue with: {_resume_command(simulation, path)}") from None
    except CsasnError as error:
        directory.event("failed", error=error.message)
        write_report(directory, "local")
        raise
    finally:
        directory.close()


def _prepare(simulation: Simulation, study: Study, sites: Mapping[str, Site], path: Path, progress: Progress) -> None:
    """A new run directory, or the unfinished one of the same study."""
    if simulation.anew and (aside := set_aside(path)):
        progress.say(f"what was in {path} is now in {aside}")
    if simulation.resume:
        if not (path / "study.yaml").exists():
            raise RunError(f"{path} holds no run to resume", "leave out --resume to begin one")
        if is_finished(path):
            raise RunError(f"{path} holds a finished run", "nothing is left to resume; begin another with --out or --anew")
        begun = read_study(path / "study.yaml")
        if begun.study_hash != study.study_hash:
            raise RunError(
                f"{path} was begun with study {begun.study_hash[:12]}, this one is {study.study_hash[:12]}",
                "resume with the same study file and --set, or begin anew with another --out",
            )
        return
    num_cases = {name: count_training_cases(study, site) for name, site in sites.items()}
    units = share_weights(num_cases)
    members = tuple(Member(site=name, weight_units=units[name]) for name in study.federation.sites)
    RunDirectory.create(path, study, Membership(study_hash=study.study_hash, members=members))


def _federate(directory: RunDirectory, sites: Mapping[str, Site], sites_folder: Path, progress: Progress) -> None:
    """The federation over worker processes, unless the run already came to its outcome."""
    if any(event["event"] == "outcome" for event in directory.events()):
        return
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
        nodes = json.dumps(dict(zip(sites, grid.get_node_ids(), strict=True)))
        context = Context(RUN_ID, SERVER_NODE, {}, RecordDict(), {RUN_DIRECTORY: str(directory.path), NODES: nodes})
        progress.federation(directory.study)
        coordinate(grid, context, directory)
    finally:
        grid.close()


def _add_baselines(directory: RunDirectory, sites: Mapping[str, Site], progress: Progress) -> None:
    """The baselines that the run does not hold yet."""
    done = {event["name"] for event in directory.events() if event["event"] == "baseline"}
    missing = [baseline for baseline in baselines_of(directory.study) if baseline.name not in done]
    steps = sum(int(str(event["steps"])) for event in directory.events() if event["event"] == "round-finished" and "steps" in event)
    advance = progress.baselines(len(missing), steps * len(missing))
    run_baselines(
        directory.study,
        sites,
        missing,
        NUM_PROCESSES,
        lambda name, final: directory.event("baseline", name=name, final=final),
        advance,
    )


def _resume_command(simulation: Simulation, path: Path) -> str:
    changes = "".join(f" --set {change}" for change in simulation.changes)
    baselines = " --baselines" if simulation.baselines else ""
    return f"server simulate {simulation.study_file} --sites {simulation.sites_folder} --out {path}{changes}{baselines} --resume"
