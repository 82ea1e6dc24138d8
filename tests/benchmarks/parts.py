"""The benchmarks, each a function that returns {ours, rival, ratio, unit} or, for a table, rows of figures."""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from csasn.data.cases import VALIDATION, load_site_data
from csasn.federated.weighting import class_weights
from csasn.learning.augmentation import augment
from csasn.learning.evaluation import count_split
from csasn.learning.loss import LossTerms
from csasn.learning.normalisation import renew_statistics
from csasn.learning.objectives.fedprox import FedProx, add_proximal_gradient
from csasn.learning.training import LocalPlan, epoch_batches, load_images, load_labels, train_locally
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.model.profiles import image_size
from csasn.phantom.dataset import write_phantom
from csasn.phantom.settings import PhantomSettings
from csasn.platform.randomness import generator
from csasn.recipe import Model
from csasn.report.events import RoundFinished, of_kind
from csasn.site import find_site
from csasn.study import Federation, Study, read_study
from server.run.run_directory import read_events
from variants import SWITCHES

Line = dict[str, object]
COMMAND = Path(sys.prefix) / "bin"
SITES = ("centerA", "centerB", "centerC", "centerD")
ROUNDS = 3


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Median seconds of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def cli_help_s() -> Line:
    """`client --help`, cold, against Python itself starting."""
    ours = seconds(lambda: subprocess.run([COMMAND / "client", "--help"], check=True, stdout=subprocess.DEVNULL), 5)
    rival = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), 5)
    return {"ours": ours, "rival": rival, "ratio": ours / rival, "unit": "s"}


def fedprox_step_vs_plain() -> Line:
    """A training step of csasn-lite with the proximal term, against one without; in pairs, either first in turn."""
    study = Study(
        name="bench", classes=("a", "b", "c", "d"), model=Model(profile="csasn-lite"), federation=Federation(sites=("s",))
    )
    network = build_network(study).train()
    parameters = list(network.parameters())
    received = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    side = image_size(study.model)
    images = torch.rand(16, 1, side, side).contiguous(memory_format=torch.channels_last)

    def step(mu: float) -> None:
        optimiser.zero_grad(set_to_none=False)
        network(images)["subtype"].square().mean().backward()
        if mu:
            add_proximal_gradient(parameters, received, mu)
        optimiser.step()

    for mu in (0.0, 0.01):
        step(mu)
    pairs = []
    for turn in range(20):
        first, second = (seconds(lambda mu=mu: step(mu)) for mu in ((0.01, 0.0) if turn % 2 else (0.0, 0.01)))
        pairs.append((first, second) if turn % 2 else (second, first))
    ours, rival = (statistics.median(part) for part in zip(*pairs, strict=True))
    return {"ours": ours, "rival": rival, "ratio": statistics.median(a / b for a, b in pairs), "unit": "s a step"}


def cached_epoch_data_wait_share() -> Line:
    """Seconds an epoch waits for images, labels and augmentation, of its seconds; csasn-lite on a phantom site, cache warm."""
    with tempfile.TemporaryDirectory() as folder:
        study, hospitals = _phantom(Path(folder), 64)
        data = load_site_data(study, find_site("centerA", folder=hospitals / "sites"), image_size(study.model))
        network, device = initial_network(study), torch.device("cpu")
        weights = class_weights(study.class_weighting, np.full(4, 20), [])
        random = generator(1, "bench")

        def load() -> None:
            for indices in epoch_batches(data, study, random):
                augment(load_images(data, indices, device), study.augmentation, random)
                load_labels(data, indices, device)

        def epoch() -> None:
            train_locally(network, data, study, LossTerms.of(study, weights), LocalPlan("centerA", 1, FedProx(proximal_mu=0.01)))

        load()
        wait, whole = seconds(load, 3), seconds(epoch, 3)
    return {"ours": wait, "rival": whole, "ratio": wait / whole, "unit": "s an epoch"}


def simulation_vs_bare_loop() -> Line:
    """Rounds of `server simulate` of the demo against the same steps and evaluations in two processes, no Flower, no messages."""
    with tempfile.TemporaryDirectory() as folder:
        _, hospitals = _phantom(Path(folder), PhantomSettings().num_cases)
        pairs = []
        for turn in range(2):
            out = Path(folder) / f"run{turn}"
            command = [COMMAND / "server", "simulate", hospitals / "study.yaml", "--out", out]
            subprocess.run(command, check=True, capture_output=True)
            finished = [event.seconds for event in of_kind(read_events(out), RoundFinished)]
            pairs.append((sum(finished), _bare_rounds(hospitals)))
    ours, rival = (statistics.median(part) for part in zip(*pairs, strict=True))
    return {"ours": ours, "rival": rival, "ratio": statistics.median(a / b for a, b in pairs), "unit": f"s for {ROUNDS} rounds"}


def _bare_rounds(hospitals: Path) -> float:
    """Seconds of the rounds alone, both processes starting each round together."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    processes = [context.Process(target=_bare_worker, args=(str(hospitals), SITES[slot::2], gate)) for slot in range(2)]
    for process in processes:
        process.start()
    gate.wait()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        gate.wait()
    taken = time.perf_counter() - started
    for process in processes:
        process.join()
    return taken


def _bare_worker(hospitals: str, sites: tuple[str, ...], gate: "multiprocessing.synchronize.Barrier") -> None:
    torch.set_num_threads(1)
    study = read_study(Path(hospitals) / "study.yaml")
    data = {
        site: load_site_data(study, find_site(site, folder=Path(hospitals) / "sites"), image_size(study.model)) for site in sites
    }
    networks = {site: initial_network(study) for site in sites}
    weights = class_weights(study.class_weighting, np.full(4, 20), [])
    gate.wait()
    for current in range(1, ROUNDS + 1):
        for site in sites:
            renew_statistics(networks[site], data[site], study, site)
            count_split(networks[site], data[site], VALIDATION, study, weights)
            plan = LocalPlan(site, current, FedProx(proximal_mu=0.01))
            train_locally(networks[site], data[site], study, LossTerms.of(study, weights), plan)
        gate.wait()


def _phantom(folder: Path, num_cases: int) -> tuple[Study, Path]:
    """Phantom hospitals of the demo study, three rounds."""
    hospitals = folder / "hospitals"
    write_phantom(hospitals, PhantomSettings(num_cases=num_cases))
    return read_study(hospitals / "study.yaml"), hospitals


def variants() -> Line:
    """Parameters in millions, and training and evaluation images a second on one thread, of each switch; csasn-lite."""
    rows: Line = {}
    for name, switches in SWITCHES.items():
        model = Model.model_validate({"profile": "csasn-lite", **switches})
        study = Study(name="bench", classes=("a", "b", "c", "d"), model=model, federation=Federation(sites=("s",)))
        network = build_network(study)
        images = torch.rand(16, 1, image_size(model), image_size(model)).contiguous(memory_format=torch.channels_last)

        def train(network: torch.nn.Module = network, images: torch.Tensor = images) -> None:
            network.train()(images)["subtype"].square().mean().backward()

        def evaluate(network: torch.nn.Module = network, images: torch.Tensor = images) -> None:
            with torch.no_grad():
                network.eval()(images)

        train()
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        rows[name] = {
            "parameters_m": round(parameters, 3),
            "train_images_s": 16 / seconds(train, 4),
            "evaluate_images_s": 16 / seconds(evaluate, 4),
        }
    return rows
