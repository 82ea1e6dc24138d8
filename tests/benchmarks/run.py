"""Measures our code against a rival in one run: `run.py OUT.json` writes {name: {ours, rival, ratio, unit}}."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from csasn.model.network import build_network, image_size
from csasn.study import Federation, Model, Study
from csasn.training import add_proximal_gradient


def seconds(work: Callable[[], None], times: int) -> float:
    """Median seconds of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def fedprox_step_vs_plain() -> dict[str, object]:
    """A training step of csasn-lite with the proximal term, against one without."""
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
    pairs = [(seconds(lambda: step(0.01), 1), seconds(lambda: step(0.0), 1)) for _ in range(15)]
    ours, rival = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ours": ours, "rival": rival, "ratio": statistics.median(a / b for a, b in pairs), "unit": "s a step"}


def main() -> None:
    """Runs every benchmark."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    results = {"fedprox_step_vs_plain": fedprox_step_vs_plain()}
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
