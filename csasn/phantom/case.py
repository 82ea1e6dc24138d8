"""One case of the phantom: a nodule, one or two views of it, and their labels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from csasn.phantom.lesion import draw_lesion, place_nodule
from csasn.phantom.neck import draw_neck, place_lobe
from csasn.phantom.nodule import DESCRIPTORS, Nodule, draw_nodule
from csasn.phantom.plane import Mask, Picture, Plane
from csasn.phantom.scanner import Scanner, burn_calipers, scan, seen, turn_knobs
from csasn.platform.randomness import generator

View = Literal["transverse", "longitudinal"]
SECOND_VIEW_RATE, MULTI_FRAME_RATE, MISSING_RATE = 0.4, 0.1, 0.1
MOST_DEPTH_CM = 5.4


@dataclass(frozen=True)
class Drawing:
    """One picture: `frames` (T, H, W) of 8-bit grey, mostly one; `mask` (H, W) of the nodule; the side of a pixel in cm."""

    frames: Picture
    mask: Mask
    spacing_cm: float

    @property
    def image(self) -> Picture:
        """The first frame (H, W)."""
        return np.asarray(self.frames[0], np.uint8)


@dataclass(frozen=True)
class CaseView:
    """One row of the manifest: a view, its picture, and its descriptors, "" where a label is missing."""

    view: View
    drawing: Drawing
    descriptors: dict[str, str]


@dataclass(frozen=True)
class Case:
    """A nodule and its views."""

    nodule: Nodule
    views: tuple[CaseView, ...]


def draw(rng: np.random.Generator, nodule: Nodule, scanner: Scanner, view: View, *, size_px: int, num_frames: int = 1) -> Drawing:
    """A B-mode picture of `nodule`: `size_px` x `size_px` pixels that show 3.6 to 5.4 cm, as deep as the nodule needs.

    Neighbouring anatomy, cut, gain and speckle are drawn from `rng`; the class of the nodule is not known here.
    """
    lobe = place_lobe(rng, nodule, view)
    deepest = lobe.z_cm + lobe.half_z_cm
    depth = min(MOST_DEPTH_CM, max(scanner.depth_cm * rng.uniform(0.93, 1.05), deepest + rng.uniform(0.5, 0.8)))
    plane = Plane(size_px, depth)
    outline = place_nodule(rng, plane, lobe, nodule, view)
    tissue = draw_lesion(rng, plane, draw_neck(rng, plane, lobe, nodule.side, view), outline, nodule)
    frames = scan(rng, plane, tissue, scanner, turn_knobs(rng, scanner, outline.z_cm), num_frames=num_frames)
    mask = seen(outline.mask, plane, scanner)
    if rng.random() < scanner.caliper_rate and mask.any():
        frames = [burn_calipers(frame, mask, scanner.calipers) for frame in frames]
    return Drawing(np.stack(frames), mask, plane.spacing_cm)


def draw_case(seed: int, site: str, number: int, label: str, *, scanner: Scanner, size_px: int, stacks: bool) -> Case:
    """Case `number` (from 1) of a site, of class `label`: the same bits whoever draws it, and in whatever order.

    `stacks` lets some views be stacks of frames, which only DICOM can hold. The shape is labelled on transverse views only
    (Buda 2019), and a tenth of all descriptors is left out, so that missing labels are met.
    """
    rng = generator(seed, "phantom", site, number)
    nodule = draw_nodule(rng, label)
    first: View = "transverse" if rng.random() < 0.85 else "longitudinal"
    views = [first]
    if rng.random() < SECOND_VIEW_RATE:
        views.append("longitudinal" if first == "transverse" and rng.random() < 0.7 else "transverse")
    result = []
    for view in views:
        num_frames = int(rng.integers(3, 6)) if stacks and rng.random() < MULTI_FRAME_RATE else 1
        drawing = draw(rng, nodule, scanner, view, size_px=size_px, num_frames=num_frames)
        result.append(CaseView(view, drawing, _labels(rng, nodule, view)))
    return Case(nodule, tuple(result))


def _labels(rng: np.random.Generator, nodule: Nodule, view: View) -> dict[str, str]:
    kept = rng.random(len(DESCRIPTORS)) >= MISSING_RATE
    return {
        name: str(getattr(nodule, name)) if keep and (name != "shape" or view == "transverse") else ""
        for name, keep in zip(DESCRIPTORS, kept, strict=True)
    }
