"""The scan plane, and the soft shapes that everything in it is drawn with.

Legend: H rows (depth, downwards), W columns (across); z and x in cm, x = 0 in the middle; echo levels in dB against normal gland.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]  # float32 throughout, for speed
Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plane:
    """A square scan plane of `size_px` pixels and `depth_cm` centimetres a side."""

    size_px: int
    depth_cm: float

    @property
    def spacing_cm(self) -> float:
        """Side of a pixel."""
        return self.depth_cm / self.size_px

    @cached_property
    def z(self) -> Field:
        """Depth of each pixel."""
        rows = (np.arange(self.size_px, dtype=np.float32) + 0.5) * np.float32(self.spacing_cm)
        return np.repeat(rows[:, None], self.size_px, axis=1)

    @cached_property
    def x(self) -> Field:
        """Place of each pixel across."""
        return np.ascontiguousarray(self.z.T) - np.float32(self.depth_cm / 2)


@dataclass(frozen=True)
class Tissue:
    """What the beam meets: mean echo in dB, mirror-like reflection (amplitude, normal gland = 1) and loss in dB/cm beyond the
    loss that the scanner compensates (so fluid has a negative loss)."""

    echo: Field
    mirror: Field
    loss: Field

    def fill(self, weight_HW: Field, echo: Field | float, loss: Field | float = 0.0, mirror: float = 0.0) -> Self:
        """With `echo`, `loss` and `mirror` in place where the weight is 1, and unchanged where it is 0."""
        keep = 1 - weight_HW
        return replace(
            self,
            echo=self.echo * keep + weight_HW * np.float32(echo),
            mirror=self.mirror * keep + weight_HW * np.float32(mirror),
            loss=self.loss * keep + weight_HW * np.float32(loss),
        )

    def add(self, echo: Field | float = 0.0, mirror: Field | float = 0.0, loss: Field | float = 0.0) -> Self:
        """With echo (dB), mirror and loss (dB/cm) added."""
        return replace(
            self,
            echo=self.echo + np.float32(echo),
            mirror=self.mirror + np.float32(mirror),
            loss=self.loss + np.float32(loss),
        )


def inside(distance: Field, width: float | Field) -> Field:
    """1 where `distance` is well below 0, 0 well above, with a soft edge of `width` either side."""
    ramp = np.clip(0.5 - distance / (2 * np.float32(width)), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def ridge(distance: Field, width: float | Field) -> Field:
    """A line of height 1 along `distance` = 0."""
    return np.asarray(np.exp(-np.square(distance / np.float32(width))), np.float32)


def noise(rng: np.random.Generator, plane: Plane, along_z_cm: float, along_x_cm: float | None = None) -> Field:
    """Smooth noise of mean 0 and deviation 1 that changes over the given lengths: a cubic B-spline over random knots."""
    steps_z = plane.spacing_cm / along_z_cm
    steps_x = plane.spacing_cm / (along_x_cm or along_z_cm)
    shape = (int(plane.size_px * steps_z) + 5, int(plane.size_px * steps_x) + 5)
    knots = rng.standard_normal(shape, dtype=np.float32)
    rows = _spline(knots, steps_z, plane.size_px)
    columns = _spline(np.ascontiguousarray(rows.T), steps_x, plane.size_px)
    return np.asarray(columns.T / np.float32(151 / 315))


def _spline(knots: Field, step: float, length: int) -> Field:
    """Rows of `knots` interpolated to `length` rows, `step` knots apart."""
    place = np.arange(length, dtype=np.float32) * np.float32(step)
    first = place.astype(np.intp)
    t = (place - first.astype(np.float32))[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    total = np.zeros((length, knots.shape[1]), np.float32)
    for tap, weight in enumerate(weights):
        total += weight * knots[first + tap]
    result: Field = total / np.float32(6)
    return result
