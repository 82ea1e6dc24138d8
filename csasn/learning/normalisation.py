"""Normalisation statistics of a model, measured: moments over training images, as integers that add up over sites.

With `batchnorm: fixbn` or `silo` a step of the server moves parameters alone, and the model that it leads to has no running
statistics: those that training leaves at a site are of the weights that this site came to. So each model is measured before
anything is judged by it: a site counts n, Σx and Σx² of every BatchNorm channel over one image of each of some training cases
(mean over positions, each batch normalised by itself: Wu & Johnson, "Rethinking batch in BatchNorm", 2021, section 3), and the
sums over all sites give the statistics with which the model is evaluated, chosen and released.

Where pictures of the sites differ, a network that was only ever trained by batches of one site does not fit these statistics: each
site's logits are shifted by another amount. With `fixbn` sites train by them once half of the rounds are done (Zhong, Chen & Chao,
"Making batch normalization great in federated deep learning", 2023).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.data.cases import SiteData
from csasn.errors import ProtocolError
from csasn.learning.training import epoch_batches, load_images, load_maps, run_network
from csasn.measures.blocks import Blocks, Integers, Layout
from csasn.model.state import STATISTICS, normalisation_layers, write_tensors
from csasn.platform.randomness import generator
from csasn.study import Study
from csasn.trust.membership import WEIGHT_UNITS

FIXED_POINT = 1 << 16
MEASURED = 512  # cases over all sites, each by its weight; all of them gave the same figures
LIMIT = float(1 << 40)  # of one image's fixed-point moment; 2^22 images fit an int64
Statistics = Mapping[str, NDArray[np.float32]]


def is_measured(study: Study, network: nn.Module) -> bool:
    """Whether a model of the study has no statistics before they are measured."""
    return study.federation.measures and any(True for _ in normalisation_layers(network))


def has_own_statistics(study: Study, network: nn.Module) -> bool:
    """Whether a site could give a model other statistics than those that it is released with."""
    return (study.federation.measures or study.federation.batchnorm == "shared") and any(
        True for _ in normalisation_layers(network)
    )


def num_measured(weight_units: int) -> int:
    """Training cases that a site of this weight measures a model on, if it has as many."""
    return -(-MEASURED * weight_units // WEIGHT_UNITS)


def moments_layout(network: nn.Module) -> Layout:
    """n, then Σx and Σx² of every channel of every layer."""
    channels = sum(layer.num_features for _, layer in normalisation_layers(network))
    return Layout((("num", (1,)), ("moments", (2, channels))))


@torch.no_grad()
def measure_moments(
    network: nn.Module, data: SiteData, study: Study, site: str, num_cases: int | None = None
) -> dict[str, Integers]:
    """Fixed-point moments over one image of each training case of a site, or of the batches that make up `num_cases` of them.

    An image counts as often as the network looks at it, twice with `test_flip`. Leaves the running statistics changed.
    """
    device = next(network.parameters()).device
    layers = dict(normalisation_layers(network))
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [layer.register_forward_pre_hook(_recorder(name, seen)) for name, layer in layers.items()]
    total = np.zeros((2, sum(layer.num_features for layer in layers.values())), np.int64)
    num = done = 0
    network.eval()
    for layer in layers.values():
        layer.train()
    try:
        for indices in epoch_batches(data, study, generator(study.seed, "moments", site)):
            images = load_images(data, indices, device).contiguous(memory_format=torch.channels_last)
            run_network(network, images, load_maps(data, indices, device))
            moments_B2C = torch.cat([torch.cat(seen[name]) for name in layers], dim=2)
            for of_layer in seen.values():
                of_layer.clear()
            total += (moments_B2C * FIXED_POINT).round().clamp(-LIMIT, LIMIT).long().sum(0).cpu().numpy()
            num, done = num + len(moments_B2C), done + len(indices)
            if num_cases is not None and done >= num_cases:
                break
    finally:
        for hook in hooks:
            hook.remove()
        network.eval()
    return {"num": np.array([num]), "moments": total}


def _recorder(name: str, seen: dict[str, list[Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_BCHW = inputs[0].double()
        seen[name].append(torch.stack([x_BCHW.mean(dim=(2, 3)), x_BCHW.square().mean(dim=(2, 3))], dim=1))

    return record


def channels_of(network: nn.Module) -> tuple[tuple[str, int], ...]:
    """Name and number of channels of each layer, in the order of the moments."""
    return tuple((name, layer.num_features) for name, layer in normalisation_layers(network))


def statistics_from(blocks: Blocks, channels: Sequence[tuple[str, int]]) -> Statistics:
    """Running mean and variance of every layer, by tensor name, from summed moments.

    Raises:
        ProtocolError: the sums count no image, or give a mean square below the square of the mean by more than rounding.
    """
    num = int(blocks["num"][0])
    if num <= 0:
        raise ProtocolError(f"normalisation moments count {num} images, expected at least one", "")
    mean_C, square_C = blocks["moments"] / (num * FIXED_POINT)
    variance_C = square_C - mean_C**2
    if (variance_C < -1e-3 * np.maximum(1, square_C)).any():
        raise ProtocolError("normalisation moments give a negative variance", "a site's counts are broken")
    both_2C = mean_C.astype(np.float32), np.maximum(variance_C, 0).astype(np.float32)
    statistics, start = {}, 0
    for layer, size in channels:
        for name, values_C in zip(STATISTICS, both_2C, strict=True):
            statistics[f"{layer}.{name}"] = values_C[start : start + size]
        start += size
    return statistics


def apply_moments(network: nn.Module, blocks: Blocks) -> None:
    """Sets every layer's running mean and variance from summed moments.

    Raises:
        ProtocolError: see `statistics_from`.
    """
    write_tensors(network, statistics_from(blocks, channels_of(network)))
