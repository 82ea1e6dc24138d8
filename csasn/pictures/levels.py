"""From decoded samples to grey levels of 0..255: depth, colour, transparency.

Axes: H rows, W columns, 3 colours.
"""

import numpy as np
from PIL import Image

STRIP = 1 << 20  # values that are scaled at once
COLOURFUL = 48  # levels between the brightest and the darkest of red, green and blue; JPEG makes up to 30 of grey
_MARGIN_BITS = 2  # a picture whose brightest value lies this far below what its file claims does not use the file's range
_CONTAINER_BITS = 16  # what files call a picture of whatever depth above 8


def depth(values: np.ndarray, bits: int) -> int:
    """How many bits the values use, where they use clearly fewer than the `bits` that their file claims, and it claims all it has.

    Pictures of 10 or 12 bits are stored in 16, and called so: scaled by this claim, they would be black. A claim of 12 bits is
    meant.
    """
    used = max(8, int(values.max(initial=0)).bit_length())
    return used if used <= bits - _MARGIN_BITS and bits >= _CONTAINER_BITS else bits


def to_uint8(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of `bits` bits scaled to 0..255, rounded; in strips, since 64-bit copies of a large frame take gigabytes."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    top = (1 << bits) - 1
    scaled = np.empty(values.shape, np.uint8)
    num_rows = max(1, STRIP * len(values) // max(1, values.size))
    for start in range(0, len(values), num_rows):
        strip = np.clip(values[start : start + num_rows], 0, top).astype(np.int64)
        scaled[start : start + num_rows] = (strip * 255 + top // 2) // top
    return scaled


def rgb_of_ybr(pixels_HW3: np.ndarray) -> np.ndarray:
    """Red, green and blue (uint8) of YBR_FULL, which are the colours of JPEG: ITU-R 601, each over 0..255 (PS3.3 C.7.6.3.1.2)."""
    return np.asarray(Image.fromarray(pixels_HW3, "YCbCr").convert("RGB"))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Grey (H, W) of uint8 grey or RGB: 0.299 red, 0.587 green, 0.114 blue (ITU-R 601)."""
    return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))


def share_of_colour(pixels: np.ndarray) -> float:
    """Share of pixels (uint8 grey or RGB) that clearly have a colour."""
    if pixels.ndim == 2 or not pixels.size:
        return 0.0
    red, green, blue = np.moveaxis(pixels, -1, 0)
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float((highest - lowest > COLOURFUL).mean())


def over_black(pixels: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Grey or RGB (uint8) as it looks over black: what was erased stays erased. `alpha_HW` is 0 (transparent) to 255."""
    if (alpha_HW == 255).all():
        return pixels
    weight = alpha_HW if pixels.ndim == 2 else alpha_HW[..., None]
    return np.asarray((pixels.astype(np.uint16) * weight + 127) // 255, np.uint8)
