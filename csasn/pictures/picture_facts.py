"""What is kept about each image besides its square: measured once, when it is decoded at full resolution."""

import numpy as np

from csasn.pictures.images import Picture
from csasn.pictures.overlay import Mark, find_marks
from csasn.platform.configuration import Configuration


class ImageFacts(Configuration):
    """Size, spacing (down, across; mm a pixel), grey levels of 0..255, scanner as DICOM names it ("" if not), suspected marks.

    `notes` say in fixed words what was read otherwise than the file asks for.
    """

    height: int
    width: int
    spacing_mm: tuple[float, float] | None
    mean: float
    deviation: float
    percentiles: tuple[int, int, int]  # 1, 50, 99
    black_share: float
    saturated_share: float
    num_levels: int
    colour_share: float
    notes: tuple[str, ...]
    device: str
    marks: tuple[Mark, ...]

    def shows(self, kind: str) -> bool:
        """Whether there are suspected marks of a kind."""
        return any(mark.kind == kind for mark in self.marks)


def measure(picture: Picture) -> ImageFacts:
    """The facts of a picture; grey levels come from one histogram."""
    height, width = picture.pixels_HW.shape
    share = np.bincount(picture.pixels_HW.ravel(), minlength=256) / picture.pixels_HW.size
    levels = np.arange(256)
    mean = float(share @ levels)
    low, middle, high = (int(level) for level in np.searchsorted(share.cumsum(), (0.01, 0.5, 0.99)))
    return ImageFacts(
        height=height,
        width=width,
        spacing_mm=picture.spacing_mm,
        mean=round(mean, 3),
        deviation=round(float(np.sqrt(share @ (levels - mean) ** 2)), 3),
        percentiles=(low, middle, high),
        black_share=round(float(share[0]), 5),
        saturated_share=round(float(share[255]), 5),
        num_levels=int(np.count_nonzero(share)),
        colour_share=round(picture.colour_share, 5),
        notes=picture.notes,
        device=picture.device,
        marks=find_marks(picture.pixels_HW),
    )
