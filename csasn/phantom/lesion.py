"""A nodule drawn into the neck, one function for each group of its attributes."""

import math
from dataclasses import dataclass

import numpy as np

from csasn.phantom.neck import FLUID_DB, FLUID_LOSS, Lobe
from csasn.phantom.nodule import Nodule
from csasn.phantom.plane import Field, Mask, Plane, Tissue, inside, noise, ridge

NUM_ANGLES = 256


@dataclass(frozen=True)
class Outline:
    """Of one cut: `distance` to the edge in cm (negative inside), angle from straight down, and the centre and half-axes."""

    distance: Field
    angle: Field
    z_cm: float
    x_cm: float
    half_z_cm: float
    half_x_cm: float

    @property
    def mask(self) -> Mask:
        """Pixels of the nodule."""
        return np.asarray(self.distance < 0, np.bool_)

    @property
    def steep(self) -> Field:
        """1 where the edge runs along the beam, 0 where it faces it."""
        return np.asarray(np.abs(np.sin(self.angle)), np.float32)


def place_nodule(rng: np.random.Generator, plane: Plane, lobe: Lobe, nodule: Nodule, view: str) -> Outline:
    """The outline of this view's cut: height over width exactly as the attributes say, somewhere within the lobe.

    An extrathyroidal nodule lies across the front or the back of the capsule. Cuts of a case vary a little in size.
    """
    height, width = nodule.transverse_cm if view == "transverse" else nodule.longitudinal_cm
    cut = rng.uniform(0.92, 1.0)
    half_z, half_x = cut * height / 2, cut * width / 2
    room_z, room_x = lobe.half_z_cm - half_z, lobe.half_x_cm - half_x
    z = lobe.z_cm + rng.uniform(-0.75, 0.75) * max(room_z - 0.05, 0)
    x = lobe.x_cm + rng.uniform(-0.7, 0.7) * max(min(room_x, 0.8) - 0.05, 0)
    if nodule.margin == "extrathyroidal":
        above = lobe.half_z_cm * math.sqrt(1 - min(((x - lobe.x_cm) / lobe.half_x_cm) ** 2, 0.7))
        z = lobe.z_cm + (-1 if rng.random() < 0.7 else 1) * (above - 0.5 * half_z)
    profile = _profile(rng, nodule.margin)
    angles = np.linspace(0, 2 * np.pi, NUM_ANGLES, endpoint=False)
    scale_z = 2 / np.ptp(profile * np.cos(angles))
    scale_x = 2 / np.ptp(profile * np.sin(angles))
    u = (plane.z - z) / np.float32(half_z * scale_z)
    v = (plane.x - x) / np.float32(half_x * scale_x)
    angle = np.arctan2(v, u)
    turn = np.mod(angle, 2 * np.pi) * (NUM_ANGLES / (2 * np.pi))
    edge = np.interp(turn, np.arange(NUM_ANGLES + 1), np.append(profile, profile[0]))
    distance = (np.hypot(u, v) / edge - 1) * math.sqrt(half_z * half_x)
    return Outline(distance.astype(np.float32), angle.astype(np.float32), z, x, half_z, half_x)


def _profile(rng: np.random.Generator, margin: str) -> Field:
    """Radius over `NUM_ANGLES` angles, about 1: how the margin word looks."""
    angles = np.linspace(0, 2 * np.pi, NUM_ANGLES, endpoint=False)
    radius = 1 + _waves(rng, angles, range(2, 4), 0.03)
    if margin == "lobulated":
        height = rng.uniform(0.14, 0.22) * (1 + _waves(rng, angles, range(1, 4), 0.3))
        radius += height * np.abs(np.sin(rng.integers(4, 8) / 2 * angles + _waves(rng, angles, range(1, 4), 0.35)))
    elif margin in ("irregular", "extrathyroidal"):
        radius += _waves(rng, angles, range(3, 7), 0.05) + _waves(rng, angles, range(7, 16), 0.02)
    return np.clip(radius, 0.6, 1.5).astype(np.float32)


def _waves(rng: np.random.Generator, angles: Field, orders: range, amplitude: float) -> Field:
    total = np.zeros_like(angles)
    for order in orders:
        total += amplitude * rng.standard_normal() * np.sin(order * angles + rng.uniform(0, 2 * np.pi))
    return total


def draw_lesion(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline, nodule: Nodule) -> Tissue:
    """`tissue` with the nodule in it: solid part and edge, calcium, fluid, halo, colloid."""
    tissue = _solid(rng, plane, tissue, outline, nodule)
    calcium = {"punctate": _punctate, "macrocalcification": _coarse, "rim": _rim}.get(nodule.foci)
    if calcium:
        tissue = calcium(rng, plane, tissue, outline)
    tissue = _fluid(rng, plane, tissue, outline, nodule)
    tissue = _halo(rng, plane, tissue, outline, nodule)
    return _comets(rng, plane, tissue, outline) if nodule.foci == "comet-tail" else tissue


def _solid(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline, nodule: Nodule) -> Tissue:
    """The solid part, finer in texture than the gland, so that an isoechoic one can be told from it; flanks shade by refraction."""
    soft = 0.13 if nodule.margin == "ill-defined" else 0.025
    soft = min(soft, 0.45 * outline.half_z_cm)
    texture = rng.uniform(0.9, 1.6) * noise(rng, plane, 0.06) + rng.uniform(0.3, 1.3) * noise(rng, plane, 0.25)
    level = nodule.level_db + texture
    loss = max(-nodule.level_db, 0.0) * 0.09
    tissue = tissue.fill(inside(outline.distance, soft), level, loss)
    if nodule.margin == "ill-defined":
        return tissue
    flank = ridge(outline.distance, 0.05) * outline.steep**4
    facing = ridge(outline.distance, 0.02) * (1 - outline.steep**2)
    return tissue.add(loss=rng.uniform(6, 14) * flank, mirror=rng.uniform(0.3, 0.9) * facing)


def _fluid(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline, nodule: Nodule) -> Tissue:
    """Echo-free parts: all of a cyst, many small ones in a spongiform nodule, a few large ones in a mixed one."""
    depth = -outline.distance
    if nodule.composition == "solid":
        return tissue
    if nodule.composition == "cystic":
        wall = inside(outline.distance + 0.04, 0.03)
        return tissue.fill(wall, FLUID_DB, loss=FLUID_LOSS).add(mirror=0.7 * ridge(outline.distance, 0.03) * (1 - outline.steep))
    small = nodule.composition == "spongiform"
    length = rng.uniform(0.06, 0.09) if small else rng.uniform(0.35, 0.6) * math.sqrt(outline.half_z_cm * outline.half_x_cm)
    pattern = noise(rng, plane, max(length, 1.5 * plane.spacing_cm))
    values = pattern[depth > 0.05]
    share = rng.uniform(0.5, 0.65) if small else rng.uniform(0.25, 0.6)
    cut = float(np.quantile(values, 1 - share)) if values.size else np.inf
    pocket = inside(cut - pattern, 0.22) * inside(0.06 - depth, 0.03)
    fluid = FLUID_DB * (0.45 if small else 1.0)
    walls = ridge(pattern - cut + 0.3, 0.2) * inside(0.06 - depth, 0.03)
    return tissue.fill(pocket, fluid, loss=FLUID_LOSS).add(echo=2.5 * walls)


def _halo(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline, nodule: Nodule) -> Tissue:
    """A dark rim; without a halo still a faint one around iso- and hyperechoic nodules, whose edge could not be seen otherwise."""
    if nodule.halo == "uneven":
        width, depth = np.clip(0.075 + 0.04 * noise(rng, plane, 0.7), 0.02, 0.16), rng.uniform(10, 15)
    elif nodule.halo == "thin":
        width, depth = np.full_like(outline.angle, rng.uniform(0.05, 0.07)), rng.uniform(10, 15)
    elif nodule.level_db > -3:
        blurred = nodule.margin == "ill-defined"
        width, depth = np.full_like(outline.angle, 0.1 if blurred else 0.05), rng.uniform(3, 5) if blurred else rng.uniform(6, 10)
    else:
        return tissue
    return tissue.add(echo=-depth * ridge(outline.distance - width / 2, width))


def _spots(rng: np.random.Generator, outline: Outline, number: int, within: float) -> list[tuple[float, float]]:
    """Places (z, x) in cm, evenly spread over the middle `within` of the half-axes."""
    radius, angle = within * np.sqrt(rng.random(number)), rng.uniform(0, 2 * np.pi, number)
    z, x = outline.z_cm + outline.half_z_cm * radius * np.cos(angle), outline.x_cm + outline.half_x_cm * radius * np.sin(angle)
    return list(zip(z.tolist(), x.tolist(), strict=True))


def _punctate(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline) -> Tissue:
    """Microcalcifications: bright points of up to 1 mm without a shadow, more of them in a larger nodule."""
    number = int(rng.integers(5, 10) + 5 * outline.half_z_cm * outline.half_x_cm * rng.uniform(0.5, 2))
    bright = np.zeros_like(tissue.mirror)
    for z, x in _spots(rng, outline, number, 0.8):
        squared = np.square(plane.z - z) + np.square(plane.x - x)
        bright += np.float32(rng.uniform(5, 10)) * np.exp(-squared / np.float32(0.028**2))
    return tissue.add(mirror=bright)


def _coarse(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline) -> Tissue:
    """One to three coarse calcifications with a shadow."""
    for z, x in _spots(rng, outline, int(rng.integers(1, 4)), 0.55):
        half_z, half_x = rng.uniform(0.04, 0.08), rng.uniform(0.07, 0.18)
        ragged = 0.25 * noise(rng, plane, 0.07)
        blob = inside(np.hypot((plane.z - z) / half_z, (plane.x - x) / half_x) - 1 + ragged, 0.4)
        tissue = tissue.add(echo=10 * blob, mirror=4.5 * blob, loss=rng.uniform(90, 180) * blob)
    return tissue


def _rim(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline) -> Tissue:
    """A broken shell of calcium: bright towards the transducer, with a shadow."""
    broken = np.clip(0.7 + 0.8 * noise(rng, plane, 0.4), 0, 1)
    shell = ridge(outline.distance, 0.045) * broken * (0.25 + 0.75 * (np.cos(outline.angle) < 0))
    return tissue.add(echo=6 * shell, mirror=5.0 * shell, loss=rng.uniform(40, 80) * shell)


def _comets(rng: np.random.Generator, plane: Plane, tissue: Tissue, outline: Outline) -> Tissue:
    """Colloid: bright points with a short tail of reverberation below, best seen in fluid."""
    bright = np.zeros_like(tissue.mirror)
    for z, x in _spots(rng, outline, int(rng.integers(2, 6)), 0.6):
        below = plane.z - z
        tail = np.exp(-np.maximum(below, 0) / 0.09) * (below > -0.5 * plane.spacing_cm)
        tail *= 0.55 + 0.45 * np.cos(2 * np.pi * below / 0.06)  # each echo of the reverberation on its own
        width = 0.015 + 0.03 * np.exp(-np.maximum(below, 0) / 0.1)
        bright += np.float32(rng.uniform(4, 6)) * (tail * ridge(plane.x - x, width)).astype(np.float32)
    return tissue.add(mirror=bright)
