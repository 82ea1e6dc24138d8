"""The work of one cell, in a process of its own: it trains in a folder, and scores the finished model."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console

from csasn.platform.configuration import write_yaml
from csasn.platform.storage import write_atomically
from csasn.site import Site
from server.evidence.cells import Cell
from server.evidence.grid import POOLED
from server.evidence.predictions import Predictions
from server.simulation.progress import Event, Progress

NUM_THREADS = 1  # of each process: threads that wait for each other crawl where several cells share the cores


@dataclass(frozen=True)
class Workshop:
    """Where and on what cells run: `sites` are those of the grid's study, and say the device.

    `phantom` is the folder of a phantom whose nodules saliency is compared with.
    """

    folder: Path
    sites: Mapping[str, Site]
    phantom: str | None

    @property
    def device(self) -> str:
        """Where models are trained, cpu or cuda."""
        return next(iter(self.sites.values())).device


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: predictions, the device in words, the seconds of training, and what else a record says."""

    predictions: Predictions
    device: str
    seconds: float
    clipped_share: float | None
    saliency: Mapping[str, float | None]


def work(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> Outcome:
    """Trains and scores the cell in `folder`; `tell` is called with the share of training that is done, 0..1.

    Raises:
        CsasnError: whatever keeps it from being done.
    """
    import torch  # here and below, what loads it: the process that shows tables does without

    from csasn.finished.saliency import saliency_in_nodule
    from csasn.finished.weights import load_model
    from server.evidence.scoring import score_sites

    torch.set_num_threads(NUM_THREADS)
    begun = time.monotonic()
    (_train if cell.trained_on else _federate)(cell, workshop, folder, tell)
    seconds = time.monotonic() - begun
    network, info = load_model(folder)
    device = torch.device(workshop.device)
    scored = {name: workshop.sites[name] for name in cell.scored_on}
    predictions = score_sites(network.to(device), info, scored, tuple(workshop.sites), cell.statistics)
    saliency = {}
    if workshop.phantom:  # by the statistics released with the model
        shares = saliency_in_nodule(*load_model(folder), Path(workshop.phantom), scored)
        saliency = {"gradcam": shares.gradcam, "rollout": shares.rollout, "area": shares.area}
    return Outcome(
        predictions=predictions,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(),
        seconds=round(seconds, 1),
        clipped_share=None if cell.trained_on else _clipped_share(folder),
        saliency=saliency,
    )


class _Rounds(Progress):
    """Shows nothing, and calls `tell` with the share of rounds that are done."""

    def __init__(self, num_rounds: int, tell: Callable[[float], None]) -> None:
        super().__init__(Console(quiet=True))
        self._num_rounds, self._tell = num_rounds, tell

    def on_event(self, event: Event) -> None:
        if event["event"] == "round-finished":
            self._tell(int(str(event["round"])) / self._num_rounds)


def _federate(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> None:
    """Simulates the federation; `folder` becomes its run directory."""
    from server.simulation.simulate import Simulation, simulate

    study, sites = folder.with_name("study.yaml"), folder.with_name("sites")
    sites.mkdir()
    for name, site in workshop.sites.items():
        write_atomically(sites / f"{name}.yaml", write_yaml(site).encode())
    write_atomically(study, write_yaml(cell.study).encode())
    simulate(Simulation(study, sites, folder), _Rounds(cell.study.federation.rounds, tell))


def _clipped_share(run: Path) -> float:
    """The largest share of a round's uploaded values that were clipped."""
    rounds = json.loads((run / "report.json").read_text(encoding="utf-8"))["rounds"]
    return max(float(entry["clipped_share"] or 0) for entry in rounds)


def _train(cell: Cell, workshop: Workshop, folder: Path, tell: Callable[[float], None]) -> None:
    """Trains in one place, and leaves the model in `folder`."""
    import torch

    from csasn.data.cases import load_site_data
    from csasn.finished.weights import save_model
    from csasn.learning.central import federation_steps, pool, train_centrally
    from csasn.model.network import image_size

    study = cell.study
    if study.deterministic and workshop.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    data = {name: load_site_data(study, workshop.sites[name], image_size(study.model)) for name in study.federation.sites}
    steps, done = federation_steps(study, data), count(1)
    chosen = pool({name: data[name] for name in cell.trained_on})
    name = POOLED if len(cell.trained_on) > 1 else f"single/{cell.trained_on[0]}"  # as a simulation's baselines
    num_steps = steps * study.federation.rounds
    trained = train_centrally(study, chosen, name, steps, lambda: tell(next(done) / num_steps), workshop.device)
    save_model(folder, study, trained.network, trained.round, trained.adjustment_K, "of the training cases")
