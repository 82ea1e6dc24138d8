"""Normalisation statistics of a model, measured: exact moments over training images, as integers that add up over sites.

With `batchnorm: silo` running statistics never leave a site, so the finished model has none of its own. Each site measures
n, Σx and Σx² of every BatchNorm channel over one image of each training case (mean over positions, each batch normalised by
itself: Wu & Johnson, "Rethinking batch in BatchNorm", 2021, section 3); the sums over all sites give the model's statistics.

A model that a site has just received has none either: those at the site are of the weights that it trained itself, and with them
the sum of all sites' updates validates worse than it is. A few cases give its own.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from csasn.data.cases import TRAIN, SiteData
from csasn.errors import ProtocolError
from csasn.learning.training import epoch_batches, load_images, load_maps, run_network
from csasn.measures.blocks import Integers, Layout
from csasn.model.state import normalisation_layers, write_tensors
from csasn.platform.randomness import generator
from csasn.study import Study

FIXED_POINT = 1 << 16
MEASURED_MODES = ("silo", "fedbn")  # of batchnorm: sites keep their running statistics, so the finished model needs its own
CASES_TO_VALIDATE = 64  # that a received model's statistics are measured on; 128 and all of them validated no better
LIMIT = float(1 << 40)  # of one image's fixed-point moment; 2^22 images fit an int64


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
    if not layers:  # a ViT alone, or frozen branches
        return {"num": np.array([len(data.cases(TRAIN))]), "moments": np.zeros((2, 0), np.int64)}
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
    return {"num": np.array([num]), "moments": total}


def renew_statistics(network: nn.Module, data: SiteData, study: Study, site: str) -> None:
    """Gives a model that was just received the running statistics of its own weights, where the mode leaves them to the site."""
    if study.federation.batchnorm in MEASURED_MODES:
        apply_moments(network, measure_moments(network, data, study, site, CASES_TO_VALIDATE))


def affine_layout(network: nn.Module) -> Layout:
    """Σ p over the sites, then Σ p γ and Σ p β of every channel of every layer."""
    channels = sum(layer.num_features for _, layer in normalisation_layers(network))
    return Layout((("units", (1,)), ("affine", (2, channels))))


def read_affine(network: nn.Module, weight_units: int) -> dict[str, Integers]:
    """A site's affine parameters of BatchNorm, weighted by its share: with `fedbn`, the finished model takes their mean."""
    layers = [layer for _, layer in normalisation_layers(network)]
    values_2C = np.stack([np.concatenate([part.detach().cpu().numpy() for part in parts]) for parts in (
        [layer.weight for layer in layers], [layer.bias for layer in layers])])  # fmt: skip
    return {
        "units": np.array([weight_units]),
        "affine": np.rint(values_2C.astype(np.float64) * FIXED_POINT).astype(np.int64) * weight_units,
    }


def apply_affine(network: nn.Module, blocks: dict[str, Integers]) -> None:
    """Sets every layer's affine parameters to the weighted mean of the sites'.

    Raises:
        ProtocolError: no site is in the sums.
    """
    units = int(blocks["units"][0])
    if units <= 0:
        raise ProtocolError(f"affine parameters come from sites of weight {units}, expected more than 0", "")
    mean_2C = (blocks["affine"] / (units * FIXED_POINT)).astype(np.float32)
    start = 0
    for name, layer in normalisation_layers(network):
        channels = slice(start, start + layer.num_features)
        write_tensors(network, {f"{name}.weight": mean_2C[0, channels], f"{name}.bias": mean_2C[1, channels]})
        start += layer.num_features


def _recorder(name: str, seen: dict[str, list[Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_BCHW = inputs[0].double()
        seen[name].append(torch.stack([x_BCHW.mean(dim=(2, 3)), x_BCHW.square().mean(dim=(2, 3))], dim=1))

    return record


def apply_moments(network: nn.Module, blocks: dict[str, Integers]) -> None:
    """Sets every layer's running mean and variance from summed moments.

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
    statistics, start = {}, 0
    for name, layer in normalisation_layers(network):
        channels = slice(start, start + layer.num_features)
        statistics[f"{name}.running_mean"] = mean_C[channels].astype(np.float32)
        statistics[f"{name}.running_var"] = np.maximum(variance_C[channels], 0).astype(np.float32)
        start += layer.num_features
    write_tensors(network, statistics)
