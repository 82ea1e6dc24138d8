"""One picture that shows the phantom at a glance: classes down, sites across, each nodule plain and below it outlined."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from csasn.phantom.case import Drawing, draw
from csasn.phantom.nodule import CLASSES, Nodule, draw_nodule
from csasn.phantom.scanner import SCANNERS
from csasn.platform.randomness import generator
from csasn.platform.storage import write_atomically

LEFT, HEAD, CAPTION, GAP = 84, 78, 44, 4
PAPER, INK, FAINT, OUTLINE = (250, 250, 248), (25, 25, 25), (110, 110, 110), (255, 196, 0)


def draw_contact_sheet(
    path: Path, seed: int, *, num_nodules: int = 3, picture_px: int = 176, advance: Callable[[int], None] | None = None
) -> tuple[int, int]:
    """Writes a PNG of `num_nodules` nodules for each class and site, and returns its width and height in pixels.

    Of each nodule the plain picture stands above, and the same with the nodule outlined below. The last of a site is a longitudinal
    view, the others are transverse. Every class is shown with every scanner, also where a site's mix lacks it.

    Raises:
        StorageError: `path` cannot be written.
    """
    width, height = sheet_size(num_nodules, picture_px)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write_heads(pen, num_nodules, picture_px)
    for row, label in enumerate(CLASSES):
        for column in range(len(SCANNERS) * num_nodules):
            site, index = list(SCANNERS)[column // num_nodules], column % num_nodules
            longitudinal = index == num_nodules - 1 and num_nodules > 1
            nodule, drawing = _nodule(seed, site, label, index, longitudinal=longitudinal, size_px=picture_px)
            left, top = _place(row, column, num_nodules, picture_px)
            sheet.paste(Image.fromarray(drawing.image), (left, top))
            sheet.paste(_outlined(drawing), (left, top + picture_px + 1))
            pen.multiline_text((left + 1, top + 2 * picture_px + 2), _caption(nodule), fill=INK, font=_font(11), spacing=2)
            if advance:
                advance(1)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
    return width, height


def sheet_size(num_nodules: int, picture_px: int) -> tuple[int, int]:
    """Width and height of the sheet in pixels."""
    left, top = _place(len(CLASSES) - 1, len(SCANNERS) * num_nodules - 1, num_nodules, picture_px)
    return left + picture_px + 3 * GAP, top + 2 * picture_px + CAPTION + 2 * GAP


def _place(row: int, column: int, num_nodules: int, picture_px: int) -> tuple[int, int]:
    """Upper left corner of a plain picture; sites stand a little apart."""
    return LEFT + column * (picture_px + GAP) + column // num_nodules * 3 * GAP, HEAD + row * (2 * picture_px + CAPTION + 2 * GAP)


def _nodule(seed: int, site: str, label: str, index: int, *, longitudinal: bool, size_px: int) -> tuple[Nodule, Drawing]:
    rng = generator(seed, "phantom", "contact sheet", site, label, index)
    nodule = draw_nodule(rng, label)
    return nodule, draw(rng, nodule, SCANNERS[site], "longitudinal" if longitudinal else "transverse", size_px=size_px)


def _write_heads(pen: ImageDraw.ImageDraw, num_nodules: int, picture_px: int) -> None:
    pen.text((LEFT, 6), "Synthetic thyroid ultrasound: drawn by a program, no patients", fill=INK, font=_font(22))
    for index, (site, scanner) in enumerate(SCANNERS.items()):
        left, _ = _place(0, index * num_nodules, num_nodules, picture_px)
        looks = "one look" if scanner.looks == 1 else f"{scanner.looks} looks"
        pen.text((left, 36), site, fill=INK, font=_font(17))
        pen.text((left, 57), f"{scanner.name}, {looks}, {scanner.dynamic_range_db:g} dB", fill=FAINT, font=_font(13))
    for row, label in enumerate(CLASSES):
        _, top = _place(row, 0, num_nodules, picture_px)
        pen.text((8, top + picture_px // 2), label, fill=INK, font=_font(18))
        pen.text((8, top + picture_px + picture_px // 2), "outlined", fill=FAINT, font=_font(13))


def _caption(nodule: Nodule) -> str:
    foci = "no foci" if nodule.foci == "none" else nodule.foci
    halo = f", {nodule.halo} halo" if nodule.halo != "none" else ""
    return f"{nodule.size_cm:.1f} cm {nodule.composition}, {nodule.echogenicity}\n{nodule.shape}, {nodule.margin}\n{foci}{halo}"


def _outlined(drawing: Drawing) -> Image.Image:
    colours = np.repeat(drawing.image[:, :, None], 3, axis=2)
    colours[drawing.mask & ~binary_erosion(drawing.mask)] = OUTLINE
    return Image.fromarray(colours)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
