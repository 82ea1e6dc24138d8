"""mixup (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, eq. 1): images of a batch mixed in pairs.

x̃ = λ x_i + (1 - λ) x_j with λ ~ Beta(α, α), one a batch, and j by a permutation of the batch. Labels are not mixed, since one of
two may be missing: the loss is λ loss(x̃, labels of i) + (1 - λ) loss(x̃, labels of j), each with its own mask and class weights.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Target = tuple[float, Mapping[str, Tensor]]  # a share of the loss, and the labels (B,) of each task that it is of


def mix(
    images_B1HW: Tensor, labels: Mapping[str, Tensor], alpha: float, random: np.random.Generator
) -> tuple[Tensor, list[Target]]:
    """The mixed images of a batch, and what they are to be; a permutation leaves |S_t| of the batch as it is."""
    share = float(random.beta(alpha, alpha))
    order_B = torch.from_numpy(random.permutation(len(images_B1HW))).to(images_B1HW.device)
    mixed_B1HW = share * images_B1HW + (1 - share) * images_B1HW[order_B]
    return mixed_B1HW, [(share, labels), (1 - share, {task: values_B[order_B] for task, values_B in labels.items()})]
