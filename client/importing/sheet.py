"""Contact sheets: every picture of an import beside its row and label, for a person to look through before it is approved."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from csasn.platform.plain_text import plain

COLUMNS, ROWS, CELL_PX, CAPTION_PX, GAP_PX = 6, 5, 300, 20, 6
MAX_CAPTION = 40
HEAD_PX, PAPER, INK = 30, 40, 235


@dataclass(frozen=True)
class Cell:
    """A picture to show, and what stands below it."""

    path: Path = field(repr=False)
    caption: str


def draw_sheets(cells: Sequence[Cell], title: str) -> Iterator[bytes]:
    """PNG pages of thirty pictures each; one is shrunk where it is larger than its cell, and never enlarged."""
    pages = [cells[start : start + COLUMNS * ROWS] for start in range(0, len(cells), COLUMNS * ROWS)]
    yield from (_draw(page, f"{plain(title)}, page {number} of {len(pages)}") for number, page in enumerate(pages, 1))


def _draw(cells: Sequence[Cell], title: str) -> bytes:
    num_rows = -(-len(cells) // COLUMNS)
    width, height = COLUMNS * (CELL_PX + GAP_PX) + GAP_PX, HEAD_PX + num_rows * (CELL_PX + CAPTION_PX + GAP_PX)
    sheet = Image.new("L", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP_PX, GAP_PX), title, fill=INK, font=ImageFont.load_default(17))
    font = ImageFont.load_default(14)
    for place, cell in enumerate(cells):
        row, column = divmod(place, COLUMNS)
        left, top = GAP_PX + column * (CELL_PX + GAP_PX), HEAD_PX + row * (CELL_PX + CAPTION_PX + GAP_PX)
        with Image.open(cell.path) as picture:
            picture.thumbnail((CELL_PX, CELL_PX))
            sheet.paste(picture, (left + (CELL_PX - picture.width) // 2, top + (CELL_PX - picture.height) // 2))
        pen.text((left, top + CELL_PX + 2), plain(cell.caption)[:MAX_CAPTION], fill=INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
