"""Maps of frozen branches, computed once: without augmentation they are the same in every epoch of every round."""

from dataclasses import replace

import numpy as np
import torch

from csasn.data.cases import SiteData
from csasn.learning.training import load_images
from csasn.model.network import Csasn
from csasn.study import Study

BATCH_SIZE = 64


@torch.no_grad()
def with_frozen_maps(network: Csasn, data: SiteData, study: Study) -> SiteData:
    """`data` with the maps (N, C, h, w) of the frozen branches, in memory; as it is where augmentation or mixup changes the images.

    The network must hold the run's weights: those of a frozen branch do not change after that.
    """
    if study.changes_images:
        return data
    device = next(network.parameters()).device
    maps = {}
    for name, branch in network.frozen_branches().items():
        branch.eval()
        indices = np.arange(len(data.images_NHW))
        batches = (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))
        images = (load_images(data, batch, device).contiguous(memory_format=torch.channels_last) for batch in batches)
        maps[name] = np.concatenate([branch(batch).float().contiguous().cpu().numpy() for batch in images])
    return replace(data, maps_N=maps)
