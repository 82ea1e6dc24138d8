"""The neck around a nodule: skin, fat, muscle, the gland with its capsule, trachea, carotid artery, jugular vein, spine."""

from dataclasses import dataclass

import numpy as np

from csasn.phantom.nodule import Nodule
from csasn.phantom.plane import Field, Plane, Tissue, inside, noise, ridge

FLUID_DB, FLUID_LOSS = -48.0, -2.6  # echo-free, and the compensated loss of tissue is missing


@dataclass(frozen=True)
class Lobe:
    """Where the gland lies: centre and half-axes in cm; `top_cm` is the depth of the fascia above it."""

    z_cm: float
    x_cm: float
    half_z_cm: float
    half_x_cm: float
    top_cm: float


def place_lobe(rng: np.random.Generator, nodule: Nodule, view: str) -> Lobe:
    """A lobe of usual size under the strap muscles, enlarged where the nodule would not fit into it."""
    height, width = nodule.transverse_cm if view == "transverse" else nodule.longitudinal_cm
    usual = rng.uniform(0.8, 1.1) if view == "transverse" else rng.uniform(2.3, 3.0)
    half_z = max(rng.uniform(0.68, 0.95), height / 2 + rng.uniform(0.08, 0.25))
    half_x = max(usual, width / 2 + rng.uniform(0.12, 0.3))
    top = rng.uniform(0.75, 1.05)
    x = nodule.side * rng.uniform(-0.28, 0.02) if view == "transverse" else rng.uniform(-0.4, 0.4)
    return Lobe(z_cm=top + half_z, x_cm=x, half_z_cm=half_z, half_x_cm=half_x, top_cm=top)


def draw_neck(rng: np.random.Generator, plane: Plane, lobe: Lobe, side: int, view: str) -> Tissue:
    """The tissue of one view without a nodule: layers from the skin down, then the gland and its neighbours."""
    wave = 0.05 * noise(rng, plane, 3.0, 1.1)
    z = plane.z + wave
    tissue = _layers(rng, plane, z, lobe, view)
    tissue = _deep_muscle(rng, plane, tissue, lobe, view)
    if view == "transverse":
        tissue = _gland(rng, plane, tissue, lobe, isthmus=side)
        tissue = _trachea(rng, plane, tissue, lobe, side)
        return _vessels(rng, plane, tissue, lobe, side)
    return _gland(rng, plane, tissue, lobe, isthmus=0)


def _layers(rng: np.random.Generator, plane: Plane, z: Field, lobe: Lobe, view: str) -> Tissue:
    """Skin, fat with septa, strap muscle with its striations, and loose tissue below."""
    skin = rng.uniform(0.11, 0.17)
    fat = skin + (lobe.top_cm - skin) * rng.uniform(0.25, 0.5)
    long_fibres = view == "longitudinal"
    deep = -11 + 3.0 * noise(rng, plane, 0.12, 0.6)
    shape = plane.z.shape
    tissue = Tissue(deep, np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    fibres = np.maximum(noise(rng, plane, 0.045, 2.0 if long_fibres else 0.35), 0)
    tissue = tissue.fill(inside(z - lobe.top_cm, 0.04), -15 + 5.0 * fibres)
    septa = np.maximum(noise(rng, plane, 0.05, 0.7) - 0.4, 0)
    tissue = tissue.fill(inside(z - fat, 0.03), -10 + 6 * septa + 1.2 * noise(rng, plane, 0.3, 0.8))
    tissue = tissue.fill(inside(z - skin, 0.02), 1.0)
    fascia = 2.6 * ridge(z - fat, 0.022) + 2.2 * ridge(z - lobe.top_cm, 0.024) + 1.8 * ridge(z - skin, 0.02)
    platysma = 1.1 * ridge(z - (fat + rng.uniform(0.08, 0.14)), 0.018)
    broken = np.clip(0.75 + 0.4 * noise(rng, plane, 1.0, 0.35), 0.1, 1.4)
    return tissue.add(mirror=(fascia + platysma) * broken)


def _deep_muscle(rng: np.random.Generator, plane: Plane, tissue: Tissue, lobe: Lobe, view: str) -> Tissue:
    """Longus colli behind the gland, and the bright front of the spine with its shadow."""
    bottom = lobe.z_cm + lobe.half_z_cm
    z = plane.z + 0.06 * noise(rng, plane, 2.0, 0.8)
    along = 2.5 if view == "longitudinal" else 0.3
    muscle = ridge(z - (bottom + rng.uniform(0.42, 0.55)), rng.uniform(0.38, 0.5))
    tissue = tissue.fill(np.clip(1.5 * muscle, 0, 1), -16 + 4.5 * np.maximum(noise(rng, plane, 0.05, along), 0))
    spine = bottom + rng.uniform(0.95, 1.3) + 0.10 * noise(rng, plane, 9.0, 0.7)
    surface = ridge(plane.z - spine, 0.035) * np.clip(0.5 + 0.6 * noise(rng, plane, 2.0, 0.5), 0, 1.3)
    return tissue.add(mirror=2.6 * surface, loss=18 * inside(spine - plane.z, 0.05))


def _gland(rng: np.random.Generator, plane: Plane, tissue: Tissue, lobe: Lobe, isthmus: int) -> Tissue:
    """The lobe: uneven outline, patchy texture, small vessels, and a capsule that is bright where the beam meets it square."""
    u, v = (plane.z - lobe.z_cm) / lobe.half_z_cm, (plane.x - lobe.x_cm) / lobe.half_x_cm
    skew = rng.uniform(-0.25, 0.25)
    radius = np.sqrt(np.square(u * (1 + skew * v)) + np.abs(v) ** rng.uniform(2.0, 2.8))
    distance = (radius - 1) * min(lobe.half_z_cm, lobe.half_x_cm) + 0.05 * noise(rng, plane, 0.6)
    if isthmus:
        bridge = np.abs(plane.z - lobe.top_cm - 0.2 - 0.1 * np.square(v)) - rng.uniform(0.13, 0.2)
        away = isthmus * (lobe.x_cm - plane.x)  # positive on the far side of the trachea
        distance = _smooth_minimum(distance, np.maximum(bridge, away), 0.12)
    patchy = rng.uniform(0.5, 1.5)
    texture = patchy * (0.8 * noise(rng, plane, 0.35) + 0.7 * noise(rng, plane, 0.13))
    vessels = -rng.uniform(4, 11) * ridge(noise(rng, plane, 0.5, 0.9), 0.05) * (noise(rng, plane, 0.5) > 0.9)
    tissue = tissue.fill(inside(distance, 0.05), texture + vessels)
    facing = np.abs(u) / np.sqrt(np.square(u) + np.square(v * lobe.half_z_cm / lobe.half_x_cm) + 1e-3)
    broken = np.clip(0.7 + 0.35 * noise(rng, plane, 0.5), 0, 1.3)
    return tissue.add(mirror=1.7 * ridge(distance, 0.022) * facing**3 * broken)


def _smooth_minimum(a: Field, b: Field, width: float) -> Field:
    share = np.clip(0.5 + (b - a) / (2 * width), 0, 1)
    return np.asarray(b + (a - b) * share - width * share * (1 - share), np.float32)


def _trachea(rng: np.random.Generator, plane: Plane, tissue: Tissue, lobe: Lobe, side: int) -> Tissue:
    """Medial to the lobe: dark cartilage around air, a bright front wall, and reverberations that fade into a dirty shadow."""
    half_x, half_z = rng.uniform(0.75, 0.95), rng.uniform(0.75, 0.95)
    x = lobe.x_cm + side * (lobe.half_x_cm + half_x * rng.uniform(0.9, 1.15))
    z = lobe.top_cm + rng.uniform(0.35, 0.5) + half_z
    radius = np.hypot((plane.x - x) / half_x, (plane.z - z) / half_z)
    distance = (radius - 1) * half_z + 0.02 * noise(rng, plane, 0.5)
    front = np.clip((z - plane.z) / half_z / np.maximum(radius, 0.3), 0, 1) ** 2  # 1 where the wall faces the probe
    off_axis = np.abs(plane.x - x) + 0.08 * noise(rng, plane, 1.0, 0.5)
    under = inside(off_axis - 0.9 * half_x, 0.1 + 0.08 * plane.z)  # the air shadows all that lies below
    column = np.maximum(inside(distance, 0.03), under * inside(z - plane.z, 0.05))
    below = np.maximum(plane.z - (z - half_z * np.sqrt(np.clip(1 - np.square((plane.x - x) / half_x), 0.02, 1))), 0)
    rings = 3.5 * front * np.cos(2 * np.pi * below / rng.uniform(0.14, 0.2) + 0.7 * noise(rng, plane, 0.4)) * np.exp(-below / 0.3)
    tissue = tissue.fill(inside(distance - 0.1, 0.04) * inside(plane.z - z, 0.2), -13.0)
    tissue = tissue.fill(column, np.maximum(-7 - 22 * below, -34) + rings + 2 * noise(rng, plane, 0.5, 0.12))
    mirror = 3.4 * ridge(distance, 0.03) + 0.7 * ridge(distance - 0.11, 0.02)
    return tissue.add(mirror=mirror * front * np.clip(0.85 + 0.3 * noise(rng, plane, 0.4), 0.2, 1.3))


def _vessels(rng: np.random.Generator, plane: Plane, tissue: Tissue, lobe: Lobe, side: int) -> Tissue:
    """Carotid artery beside the lobe and, mostly, a flatter jugular vein beside and in front of it."""
    radius = rng.uniform(0.26, 0.36)
    x = lobe.x_cm - side * (lobe.half_x_cm + radius * rng.uniform(0.85, 1.25))
    z = lobe.z_cm + rng.uniform(-0.1, 0.5) * lobe.half_z_cm
    if rng.random() < 0.75:
        place = (z - radius - rng.uniform(0.1, 0.3), x - side * rng.uniform(0.35, 0.7))
        tissue = _vessel(rng, plane, tissue, centre=place, half=(rng.uniform(0.1, 0.22), rng.uniform(0.3, 0.5)), wall=0.03)
    return _vessel(rng, plane, tissue, centre=(z, x), half=(radius * rng.uniform(0.85, 1.0), radius), wall=0.07)


def _vessel(
    rng: np.random.Generator, plane: Plane, tissue: Tissue, *, centre: tuple[float, float], half: tuple[float, float], wall: float
) -> Tissue:
    """A tube of blood cut across: nearly echo-free, hazy under its front wall, with walls that reflect at top and bottom."""
    u, v = (plane.z - centre[0]) / half[0], (plane.x - centre[1]) / half[1]
    radius = np.hypot(u, v)
    distance = (radius - 1) * min(half) + 0.02 * noise(rng, plane, 0.3)
    haze = 14 * np.exp(-np.maximum(u + 1, 0) * half[0] / 0.12)
    tissue = tissue.fill(inside(distance - wall, 0.03), -5.0)
    tissue = tissue.fill(inside(distance, 0.035), FLUID_DB + 6 + haze, loss=FLUID_LOSS)
    facing = np.clip(np.abs(u) / np.maximum(radius, 0.2), 0, 1) ** 2
    return tissue.add(mirror=(1.6 * ridge(distance - wall, 0.022) + 1.2 * ridge(distance, 0.02)) * facing)
