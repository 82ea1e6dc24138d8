"""The process of one cell: it trains in a folder of its own, and scores the finished model.

A federation runs as `server simulate`, another process: the core imports no server. Both end with the process that started them,
whose end closes the pipe that is this one's standard input.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from csasn.errors import RunError
from csasn.finished.weights import load_model, save_model
from csasn.platform.command import run_command
from csasn.platform.configuration import Configuration, read_yaml, validate
from csasn.platform.storage import write_atomically, write_json
from csasn.site import Site, read_site
from csasn.study import Study, read_study
from server.evidence.grid import POOLED, Statistics
from server.evidence.predictions import save_predictions

ASSIGNMENT, STUDY, SITES, RUN, PROGRESS, OUTCOME = "assignment.yaml", "study.yaml", "sites", "run", "progress", "outcome.json"
SIMULATE = (sys.executable, "-P", "-c", "from server.commands.cli import main; main()", "simulate")
NUM_THREADS = 1  # of each process: threads that wait for each other crawl where several cells share the cores
TELL_EVERY_S = 1.0


class Assignment(Configuration):
    """What a cell's process is to do, beside study.yaml and sites/ in its folder. `roster` is that of the grid's study."""

    roster: tuple[str, ...]
    trained_on: tuple[str, ...]
    scored_on: tuple[str, ...]
    statistics: tuple[Statistics, ...]
    device: str
    phantom: str | None = None


def main() -> None:
    """Entry point: the cell's folder is the argument."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_command(lambda: work(Path(sys.argv[1]))))


def predictions_file(statistics: str) -> str:
    """Name of the file of predictions with such statistics."""
    return f"predictions-{statistics}.npz"


def work(folder: Path) -> None:
    """Trains and scores the cell in `folder`; leaves predictions and outcome.json there.

    Raises:
        CsasnError: whatever keeps it from being done.
    """
    assignment = validate(Assignment, read_yaml(folder / ASSIGNMENT), ASSIGNMENT)
    study = read_study(folder / STUDY)
    sites = {name: read_site(folder / SITES / f"{name}.yaml") for name in assignment.roster}
    begun = time.monotonic()
    model = _train(folder, study, sites, assignment) if assignment.trained_on else _federate(folder)
    seconds = time.monotonic() - begun
    outcome = {
        "seconds": round(seconds, 1),
        "device": _score(folder, model, sites, assignment),
        "clipped_share": None if assignment.trained_on else _clipped_share(model),
        "saliency": _measure_saliency(model, sites, assignment) if assignment.phantom else {},
    }
    write_json(folder / OUTCOME, outcome)


def _federate(folder: Path) -> Path:
    command = [*SIMULATE, str(folder / STUDY), "--sites", str(folder / SITES), "--out", str(folder / RUN)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise RunError(f"server simulate ended with exit code {done.returncode}: {said[-1] if said else 'it said nothing'}")
    return folder / RUN


def _clipped_share(run: Path) -> float:
    """The largest share of a round's uploaded values that were clipped."""
    rounds = json.loads((run / "report.json").read_text(encoding="utf-8"))["rounds"]
    return max(float(entry["clipped_share"] or 0) for entry in rounds)


def _train(folder: Path, study: Study, sites: Mapping[str, Site], assignment: Assignment) -> Path:
    import torch

    from csasn.data.cases import load_site_data
    from csasn.learning.central import federation_steps, pool, train_centrally
    from csasn.model.profiles import image_size

    torch.set_num_threads(NUM_THREADS)
    if study.deterministic and assignment.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    data = {name: load_site_data(study, sites[name], image_size(study.model)) for name in study.federation.sites}
    steps = federation_steps(study, data)
    chosen = pool({name: data[name] for name in assignment.trained_on})
    tell = _teller(folder / PROGRESS, steps * study.federation.rounds)
    name = POOLED if len(assignment.trained_on) > 1 else f"single/{assignment.trained_on[0]}"  # as a simulation's baselines
    trained = train_centrally(study, chosen, name, steps, tell, assignment.device)
    statistics = "of the training cases"
    save_model(folder, study, trained.network, trained.round, trained.adjustment_K, statistics)
    return folder


def _score(folder: Path, model: Path, sites: Mapping[str, Site], assignment: Assignment) -> str:
    """Writes predictions; the device in words."""
    import torch

    from server.evidence.scoring import score_sites

    torch.set_num_threads(NUM_THREADS)
    device = torch.device("cuda" if assignment.device == "cuda" else "cpu")
    scored = {name: sites[name] for name in assignment.scored_on}
    for statistics in assignment.statistics:
        network, info = load_model(model)
        predictions = score_sites(network.to(device), info, scored, assignment.roster, statistics)
        save_predictions(folder / predictions_file(statistics), predictions)
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name()


def _measure_saliency(model: Path, sites: Mapping[str, Site], assignment: Assignment) -> dict[str, float | None]:
    """Shares of the maps inside nodules, with the statistics released with the model."""
    from csasn.phantom.saliency import saliency_in_nodule

    network, info = load_model(model)
    shares = saliency_in_nodule(network, info, Path(str(assignment.phantom)), {name: sites[name] for name in assignment.scored_on})
    return {"gradcam": shares.gradcam, "rollout": shares.rollout, "area": shares.area}


def _teller(path: Path, num_steps: int) -> Callable[[], None]:
    """Writes the share of the steps that are done to `path`, about once a second."""
    done, due = 0, 0.0

    def tell() -> None:
        nonlocal done, due
        done += 1
        if time.monotonic() >= due:
            due = time.monotonic() + TELL_EVERY_S
            write_atomically(path, f"{done / num_steps:.4f}".encode())

    return tell


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # unlike sys.stdin, this holds no lock that the interpreter wants when it ends
    os.killpg(os.getpgid(0), signal.SIGTERM)
