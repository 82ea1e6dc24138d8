"""The learning rate: of a round, and of each layer within it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from csasn.model.backbones import Branch
from csasn.recipe import Optimiser

SMALLEST_RATE_SHARE = 0.05


def learning_rate(settings: Optimiser, current_round: int, num_rounds: int) -> float:
    """The rate of a round, 1-based: it rises evenly in warm-up, then is constant, or half a cosine over the other rounds down to
    5 %."""
    warmup = settings.warmup_rounds
    if current_round <= warmup:
        return settings.learning_rate * current_round / (warmup + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    cosine = (1 + np.cos(np.pi * (current_round - warmup - 1) / (num_rounds - warmup))) / 2
    return settings.learning_rate * float(SMALLEST_RATE_SHARE + (1 - SMALLEST_RATE_SHARE) * cosine)


def layer_groups(network: nn.Module, parameters: Sequence[Tensor], decay: float, rate: float) -> list[dict[str, object]]:
    """The parameters in groups by their rates, as torch's optimisers take them.

    A parameter behind the branches learns at `rate`, one in layer l = 0..L-1 of a branch of L layers, the stem first, at
    rate · decay^(L - l) (Bao et al., "BEiT: BERT pre-training of image transformers", ICLR 2022).
    """
    if decay == 1:
        return [{"params": list(parameters), "lr": rate}]
    powers = {
        id(parameter): power
        for branch in network.children()
        if isinstance(branch, Branch)
        for parameter, power in branch.layers_behind()
    }
    groups: dict[int, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(powers.get(id(parameter), 0), []).append(parameter)
    return [{"params": members, "lr": rate * decay**power} for power, members in sorted(groups.items())]
