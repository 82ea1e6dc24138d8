"""Random changes of training images, none of which changes the aspect: taller-than-wide is a sign of cancer.

The numbers are drawn on the CPU from the passed generator and applied on the images' device.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csasn.learning.scanners import change_scanner
from csasn.recipe import Augmentation


def augment(images_B1HW: Tensor, settings: Augmentation, random: np.random.Generator) -> Tensor:
    """Flip, rotation, isotropic scale, shift, contrast and brightness, then what scanners differ in, each drawn for each image;
    values stay in 0..1."""
    num = len(images_B1HW)
    draw = random.uniform(-1, 1, size=(6, num))
    mirror = np.where(settings.flip & (draw[0] < 0), -1.0, 1.0)
    angle = np.deg2rad(settings.rotation_deg) * draw[1]
    scale = np.exp(settings.scale * draw[2])
    shift_x, shift_z = 2 * settings.shift * random.uniform(-1, 1, size=(2, num))
    rows = np.array([
        [mirror * scale * np.cos(angle), -scale * np.sin(angle), shift_x],
        [mirror * scale * np.sin(angle), scale * np.cos(angle), shift_z],
    ])  # fmt: skip
    device = images_B1HW.device
    theta_B23 = torch.from_numpy(rows.transpose(2, 0, 1).astype(np.float32)).to(device)
    grid_BHW2 = F.affine_grid(theta_B23, list(images_B1HW.shape), align_corners=False)
    moved_B1HW = F.grid_sample(images_B1HW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False)
    contrast = torch.from_numpy((1 + settings.contrast * draw[3]).astype(np.float32)).to(device)[:, None, None, None]
    brightness = torch.from_numpy((settings.brightness * draw[4]).astype(np.float32)).to(device)[:, None, None, None]
    seen = moved_B1HW > 0  # the frame around the picture stays black
    shown_B1HW = (moved_B1HW * contrast + brightness).clamp(0, 1) * seen
    return change_scanner(shown_B1HW, seen, settings, random) if settings.changes_scanner else shown_B1HW
