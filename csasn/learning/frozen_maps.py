"""Maps of frozen branches, computed once: without augmentation they are the same in every epoch of every round, and with a few
views of each image, drawn at the beginning, there are as many."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csasn.data.beside import find_array, keep_array
from csasn.data.cases import TRAIN, SiteData, Views
from csasn.errors import TrainingError
from csasn.learning.augmentation import augment
from csasn.learning.training import load_images
from csasn.model.backbones import Branch
from csasn.model.initial_weights import initial_network
from csasn.model.network import Csasn
from csasn.platform.randomness import generator
from csasn.study import Study

BATCH_SIZE = 64
MAX_BYTES = 6 << 30  # of maps and views that a site holds in memory
Indices = NDArray[np.int64]


@torch.no_grad()
def with_frozen_maps(network: Csasn, data: SiteData, study: Study) -> SiteData:
    """`data` with the maps (N, C, h, w) of the frozen branches, in memory, at the size of the fused map; with `frozen_views` also
    with views of the training images and their maps. As it is where augmentation or mixup changes the images anew each time.

    The network must hold the run's weights: those of a frozen branch do not change after that. Maps that are there already stay,
    and those of the images themselves are kept beside the cached pixels for the next start, of this study or of another.

    Raises:
        TrainingError: they would take more than 6 GiB.
    """
    frozen, num_views = network.frozen_branches(), study.augmentation.frozen_views
    if data.maps_N or not frozen or study.loss.mixup or (study.augmentation.changes_images and not num_views):
        return data
    every = np.arange(len(data.images_NHW))
    training = every[data.split_C[data.case_N] == TRAIN]
    _check_memory(network, data, len(every), num_views * len(training))
    for branch in frozen.values():
        branch.eval()
    device = next(network.parameters()).device
    names = {name: _name(branch, data, network.side) for name, branch in frozen.items()}
    maps = {name: values for name in frozen if (values := find_array(data.images_NHW, names[name])) is not None}
    missing = {name: branch for name, branch in frozen.items() if name not in maps}
    computed = _maps(network, missing, (load_images(data, batch, device) for batch in _batches(every)), len(every), np.float32)
    for name, values in computed.items():
        keep_array(data.images_NHW, names[name], values)
    data = replace(data, maps_N=maps | computed)
    return replace(data, views=_views(network, data, study, training)) if num_views else data


def sites_with_frozen_maps(study: Study, sites: Mapping[str, SiteData], device: str = "cpu") -> dict[str, SiteData]:
    """`sites` with the maps of the study's initial weights, before their cases are pooled: each site's own images keep theirs."""
    network = initial_network(study).to(device)
    return {name: with_frozen_maps(network, data, study) for name, data in sites.items()}


def _name(branch: Branch, data: SiteData, side: int) -> str:
    """What tells these maps from others: the images, the branch's weights, and, since code and machine take part, what it makes of
    the first image."""
    device = next(branch.parameters()).device
    first = branch(load_images(data, np.zeros(1, np.int64), device)).cpu().numpy()
    found = hashlib.sha256(f"{data.images_NHW.shape} {side} {device.type} {torch.get_num_threads()}".encode())
    for array in (first, *(tensor.cpu().numpy() for tensor in branch.state_dict().values()), data.images_NHW):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:32]


def _batches(indices: Indices) -> Iterator[Indices]:
    return (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))


def _check_memory(network: Csasn, data: SiteData, num_images: int, num_views: int) -> None:
    values = sum(branch.num_channels for branch in network.frozen_branches().values()) * network.side**2
    size = num_images * values * 4 + num_views * (values * 2 + data.images_NHW[0].size)
    if size > MAX_BYTES:
        raise TrainingError(
            f"maps of frozen branches would take {size / 2**30:.1f} GiB of memory, expected at most {MAX_BYTES >> 30}",
            "take a smaller augmentation.frozen_views or model.image_size, or leave model.frozen out",
        )


def _maps(
    network: Csasn, branches: Mapping[str, Branch], images: Iterator[Tensor], num: int, kind: type[np.floating]
) -> dict[str, np.ndarray]:
    """Maps (num, C, h, w) of each of the frozen `branches`, of batches of images (B, 1, S, S)."""
    side = network.side
    if not branches:
        return {}
    maps = {name: np.empty((num, branch.num_channels, side, side), kind) for name, branch in branches.items()}
    start = 0
    for batch in images:
        given, end = batch.contiguous(memory_format=torch.channels_last), start + len(batch)
        for name, branch in branches.items():
            maps[name][start:end] = network.pool(branch(given).float()).contiguous().cpu().numpy()
        start = end
    return maps


def _views(network: Csasn, data: SiteData, study: Study, training: Indices) -> Views:
    """The views of the training images, view by view: every other one mirrored, where images are flipped at all."""
    settings, num = study.augmentation, study.augmentation.frozen_views * len(training)
    still, random = settings.model_copy(update={"flip": False}), generator(study.seed, "views")
    images_MHW = np.empty((num, *data.images_NHW.shape[1:]), np.uint8)
    device = next(network.parameters()).device

    def draw() -> Iterator[Tensor]:
        start = 0
        for view in range(settings.frozen_views):
            for batch in _batches(training):
                images_B1HW = load_images(data, batch, device)
                if still.changes_images:
                    images_B1HW = augment(images_B1HW, still, random)
                if settings.flip and view % 2:
                    images_B1HW = images_B1HW.flip(-1)
                drawn_B1HW = (images_B1HW * 255).round()
                images_MHW[start : start + len(batch)] = drawn_B1HW[:, 0].byte().cpu().numpy()
                start += len(batch)
                yield drawn_B1HW / 255  # as it will be read

    places_N = np.full(len(data.images_NHW), -1)
    places_N[training] = np.arange(len(training))
    return Views(images_MHW, _maps(network, network.frozen_branches(), draw(), num, np.float16), places_N, settings.frozen_views)
