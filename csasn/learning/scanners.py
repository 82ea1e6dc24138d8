"""What pictures of one nodule differ in between scanners: focus, speckle, acoustic shadows, depth gain, gain curve, in this order.

B images, H x W pixels, depth down. Numbers are drawn on the CPU, only for what is switched on; csasn/recipe.py has the strengths.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from csasn.recipe import Augmentation

DEPTHS = 6  # sliders of a depth gain curve
EDGE = 0.02  # softness of a shadow's edges, as a share of the picture's side
WIDTHS = (0.05, 0.25)  # of a shadow, as shares of the picture's side


def change_scanner(images_B1HW: Tensor, seen_B1HW: Tensor, settings: Augmentation, random: np.random.Generator) -> Tensor:
    """The images (B, 1, H, W) in 0..1 as other scanners might show them; what is not `seen`, the frame, stays black."""
    num, device = len(images_B1HW), images_B1HW.device

    def one_each(values_B: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values_B.astype(np.float32)).to(device)[:, None, None, None]

    changed_B1HW = images_B1HW
    if settings.blur:
        changed_B1HW = blur(changed_B1HW, seen_B1HW, settings.blur * random.uniform(0, 1, num))
    if settings.speckle:
        height, width = images_B1HW.shape[2:]
        grains_B1HW = random.standard_normal((num, 1, height, -(-width // 2)), dtype=np.float32)
        noise_B1HW = F.interpolate(torch.from_numpy(grains_B1HW).to(device), (height, width), mode="bilinear")  # wider than deep
        changed_B1HW = changed_B1HW * (1 + one_each(settings.speckle * random.uniform(0, 1, num)) * noise_B1HW)
    if settings.shadow:
        lost_B = settings.shadow * random.uniform(-1, 1, num).clip(0)
        changed_B1HW = changed_B1HW * (1 - one_each(lost_B) * _shadows(images_B1HW, random))
    if settings.depth_gain:
        sliders_B1D1 = torch.from_numpy(random.uniform(-1, 1, (num, 1, DEPTHS, 1)).astype(np.float32)).to(device)
        curve_B1H1 = F.interpolate(sliders_B1D1, (images_B1HW.shape[2], 1), mode="bilinear", align_corners=True)
        changed_B1HW = changed_B1HW + settings.depth_gain * curve_B1H1
    changed_B1HW = changed_B1HW.clamp(0, 1)
    if settings.gain:
        changed_B1HW = changed_B1HW ** one_each(np.exp(settings.gain * random.uniform(-1, 1, num)))
    return changed_B1HW * seen_B1HW


def blur(images_B1HW: Tensor, seen_B1HW: Tensor, sigma_B: NDArray[np.float64]) -> Tensor:
    """Each image under a Gaussian of its own standard deviation (B,) in pixels; what is not seen darkens nothing."""
    radius = max(1, int(np.ceil(3 * sigma_B.max())))
    offsets_W = np.arange(-radius, radius + 1)
    weights_BW = np.exp(-0.5 * (offsets_W / np.maximum(sigma_B, 1e-3)[:, None]) ** 2)
    kernels_B1W = torch.from_numpy((weights_BW / weights_BW.sum(axis=1, keepdims=True)).astype(np.float32)).to(images_B1HW.device)[
        :, None
    ]

    def smooth(x_B1HW: Tensor) -> Tensor:
        x_1BHW, num = x_B1HW.transpose(0, 1), len(x_B1HW)
        x_1BHW = F.conv2d(x_1BHW, kernels_B1W[:, :, None], padding=(0, radius), groups=num)
        return F.conv2d(x_1BHW, kernels_B1W[..., None], padding=(radius, 0), groups=num).transpose(0, 1)

    return smooth(images_B1HW) / smooth(seen_B1HW.float()).clamp(min=1e-3) * seen_B1HW


def _shadows(images_B1HW: Tensor, random: np.random.Generator) -> Tensor:
    """(B, 1, H, W): 1 in a vertical band that begins between the upper and the lower quarter, soft at its edges, 0 elsewhere."""
    centre_B, start_B = random.uniform(0, 1, len(images_B1HW)), random.uniform(0.25, 0.75, len(images_B1HW))
    half_B = random.uniform(*WIDTHS, len(images_B1HW)) / 2
    z_H, x_W = ((np.arange(size) + 0.5) / size for size in images_B1HW.shape[2:])
    inside_BW = _step(half_B[:, None] - np.abs(x_W - centre_B[:, None]))
    inside_BHW = _step(z_H - start_B[:, None])[:, :, None] * inside_BW[:, None]
    return torch.from_numpy(inside_BHW.astype(np.float32)).to(images_B1HW.device)[:, None]


def _step(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 below 0 and 1 above it, with a soft edge (a logistic curve)."""
    return np.asarray(1 / (1 + np.exp(-(distance / EDGE).clip(-30, 30))))
