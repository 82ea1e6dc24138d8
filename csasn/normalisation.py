"""Normalisation statistics of a finished model: exact moments over training images, as integers that add up over sites.

With `batchnorm: silo` running statistics never leave a site, so the finished model has none of its own. Each site measures
n, Σx and Σx² of every BatchNorm channel over one image of each training case (mean over positions, each batch normalised by
itself: Wu & Johnson, "Rethinking batch in BatchNorm", 2021, section 3); the sums over all sites give the model's statistics.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.data.cases import SiteData
from csasn.errors import ProtocolError
from csasn.metrics import Layout
from csasn.model.state import normalisation_layers, write_statistics
from csasn.randomness import generator
from csasn.study import Study
from csasn.training import epoch_batches, load_images

Integers = NDArray[np.int64]
FIXED_POINT = 1 << 16
LIMIT = float(1 << 40)  # of one image's fixed-point moment; 2^22 images fit an int64


def moments_layout(network: nn.Module) -> Layout:
    """n, then Σx and Σx² of every channel of every layer."""
    channels = sum(layer.num_features for _, layer in normalisation_layers(network))
    return Layout((("num", (1,)), ("moments", (2, channels))))


@torch.no_grad()
def measure_moments(network: nn.Module, data: SiteData, study: Study, site: str) -> dict[str, Integers]:
    """Fixed-point moments over one image of each training case of a site; leaves the running statistics changed."""
    device = next(network.parameters()).device
    layers = dict(normalisation_layers(network))
    seen: dict[str, Tensor] = {}
    hooks = [layer.register_forward_pre_hook(_recorder(name, seen)) for name, layer in layers.items()]
    total = np.zeros((2, sum(layer.num_features for layer in layers.values())), np.int64)
    num = 0
    network.eval()
    for layer in layers.values():
        layer.train()
    try:
        for indices in epoch_batches(data, study, generator(study.seed, "moments", site)):
            network(load_images(data, indices, device).contiguous(memory_format=torch.channels_last))
            moments_B2C = torch.cat([seen[name] for name in layers], dim=2)
            total += (moments_B2C * FIXED_POINT).round().clamp(-LIMIT, LIMIT).long().sum(0).cpu().numpy()
            num += len(indices)
    finally:
        for hook in hooks:
            hook.remove()
    return {"num": np.array([num]), "moments": total}


def _recorder(name: str, seen: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_BCHW = inputs[0].double()
        seen[name] = torch.stack([x_BCHW.mean(dim=(2, 3)), x_BCHW.square().mean(dim=(2, 3))], dim=1)

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
    write_statistics(network, statistics)
