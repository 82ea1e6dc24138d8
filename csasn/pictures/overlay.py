"""Burned-in text and caliper marks, found well enough to warn of; never a reason to refuse a picture.

Text may name a patient, and calipers tell a network where the examiner saw a nodule, or which ones he measured (label shortcuts).
Both are drawn by a machine: thin strokes of one brightness with edges as steep as a pixel, where speckle is as soft as the beam.

Measured on the phantom (268 pictures of 192 to 512 pixels; PIL's default font; one picture a try): of texts at grey level 255 with
letters of 12 to 32 points 94 to 100 % are found, at 10 points 93 %, at 8 points, where letters touch, 40 %; at level 200
about 90 %, and 40 % at level 140, which many pictures' tissue reaches. Of calipers at level 255 more than 98 %, at 200 above 70 %,
at 140 about 20 %; where they stand out by 80 levels, above 90 % of all. False alarms: text in 2 of 268 pictures (8 of 268
after their grey levels were raised by 40 %, until tissue saturates), calipers in none, through JPEG as well. About 20 ms for
800 x 600 pixels on one core. A text's box may hold only part of it.

Not found: text of one or two letters, upright, dark on bright, below grey level 100, or with letters above 48 pixels; calipers
that touch text or each other, with arms below 3 or above 20 pixels or strokes wider than 3; circles, dotted lines, arrows, logos,
scales and body marks; whatever stands out from the tissue around it by less than 40 grey levels, as colours do that are dark in
grey. A picture of more than 16 million pixels is not looked at.

Axes: H rows, W columns; p pixels of strokes; g glyphs; c candidates for the centre of a caliper; s steps along an arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

MAX_LOOKED_AT = 1 << 24  # pixels
MAX_MARKS = 32  # of one picture
CONTRAST = 40  # grey levels by which a mark stands out
EVEN = 28  # grey levels by which the brightness of one mark varies
STROKE_PX = 5  # half of what is too wide to be a stroke

MIN_LEVEL = 100  # grey level of text; below it, electronic noise is as crisp
MIN_GLYPH_PX, MAX_GLYPH_PX = 5, 48  # height of a letter
MAX_WORD_PX = 16  # height of words whose letters touch
MIN_STROKES = 4.0  # that a row of a text crosses, on average
MIN_EVEN = 0.4  # share of a letter within EVEN of its brightest pixel
MAX_GLYPHS = 1500  # looked at; so many are no text

MIN_ARM_PX, MAX_ARM_PX = 3, 20
MAX_CENTRES = 100_000  # looked at; so many are no calipers

_MARGIN = MAX_ARM_PX + 1

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]
_PLUS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
_CROSS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])


@dataclass(frozen=True, order=True)
class Mark:
    """A box around a suspected mark; `right` and `bottom` are the last column and row in it."""

    kind: Literal["text", "caliper"]
    left: int
    top: int
    right: int
    bottom: int


def find_marks(picture_HW: Grey) -> tuple[Mark, ...]:
    """Suspected texts and calipers of a picture (uint8) at full resolution, texts first; at most MAX_MARKS."""
    if picture_HW.size > MAX_LOOKED_AT:
        return ()
    texts = _find_texts(_find_strokes(picture_HW), picture_HW)
    calipers = [mark for mark in _find_calipers(picture_HW) if not any(_touch(mark, text) for text in texts)]
    return (*sorted(texts), *sorted(calipers))[:MAX_MARKS]


def _touch(one: Mark, other: Mark) -> bool:
    across = one.left <= other.right + 1 and other.left <= one.right + 1
    return across and one.top <= other.bottom + 1 and other.top <= one.bottom + 1


def _find_strokes(picture_HW: Grey) -> Mask:
    """What is thin (white top-hat: picture - opening), above halfway to the brightest around (Bernsen 1986), and steep."""
    from scipy import ndimage  # some 30 MB, which a process that reads no pictures, such as the coordinator's, does without

    side = 2 * STROKE_PX + 1
    opened_HW = ndimage.grey_opening(picture_HW, side, mode="nearest")
    low_HW = np.maximum(opened_HW, ndimage.minimum_filter(picture_HW, 5, mode="nearest"))
    halfway_HW = (ndimage.maximum_filter(picture_HW, side, mode="nearest") - low_HW) // 2
    result: Mask = picture_HW - low_HW >= np.maximum(halfway_HW, CONTRAST)
    return result


# Text


@dataclass(frozen=True)
class _Glyphs:
    """Connected strokes that may be letters, or words whose letters touch: inclusive edges, brightest grey level, and how many
    strokes a row crosses on average; each (g)."""

    left: Ints
    top: Ints
    right: Ints
    bottom: Ints
    level: Ints
    strokes: npt.NDArray[np.float64]


def _find_texts(strokes_HW: Mask, picture_HW: Grey) -> list[Mark]:
    glyphs = _find_glyphs(strokes_HW, picture_HW)
    if glyphs is None:
        return []
    from scipy.sparse.csgraph import connected_components

    _, line_g = connected_components(_neighbours(glyphs), directed=False)
    lines = [np.flatnonzero(line_g == line) for line in np.flatnonzero(np.bincount(line_g, glyphs.strokes) >= MIN_STROKES)]
    return [
        Mark("text", int(glyphs.left[g].min()), int(glyphs.top[g].min()), int(glyphs.right[g].max()), int(glyphs.bottom[g].max()))
        for g in lines
    ]


def _find_glyphs(strokes_HW: Mask, picture_HW: Grey) -> _Glyphs | None:
    """Components of the size of letters or words, thin, and in good part as bright as their brightest pixel."""
    from scipy import ndimage

    labels_HW, _ = ndimage.label(strokes_HW, np.ones((3, 3)))
    rows_p, columns_p = np.nonzero(strokes_HW)
    label_p = labels_HW[rows_p, columns_p]
    keep = np.flatnonzero((np.bincount(label_p) >= MIN_GLYPH_PX)[label_p])
    order = keep[np.argsort(label_p[keep], kind="stable")]
    if not len(order):
        return None
    rows_p, columns_p, label_p = rows_p[order], columns_p[order], label_p[order]
    level_p = picture_HW[rows_p, columns_p].astype(np.intp)
    starts_p = (columns_p == 0) | ~strokes_HW[rows_p, columns_p - 1]
    first = np.flatnonzero(np.diff(label_p, prepend=-1))
    count = np.diff(first, append=len(order))
    left, top = np.minimum.reduceat(columns_p, first), np.minimum.reduceat(rows_p, first)
    right, bottom = np.maximum.reduceat(columns_p, first), np.maximum.reduceat(rows_p, first)
    level = np.maximum.reduceat(level_p, first)
    height, width = bottom - top + 1, right - left + 1
    even = np.add.reduceat(level_p >= np.repeat(level - EVEN, count), first, dtype=float) / count
    num_starts = np.add.reduceat(starts_p, first, dtype=float)
    strokes, stroke_px = num_starts / height, count / num_starts
    widest = np.where(height <= MAX_WORD_PX, np.maximum(2, 2 * strokes), 2) * height
    good = (height >= MIN_GLYPH_PX) & (height <= MAX_GLYPH_PX) & (width <= widest) & (stroke_px <= 1 + 0.3 * height)
    g = np.flatnonzero(good & (even >= MIN_EVEN) & (level >= MIN_LEVEL))[:MAX_GLYPHS]
    return _Glyphs(left[g], top[g], right[g], bottom[g], level[g], strokes[g]) if len(g) else None


def _neighbours(glyphs: _Glyphs) -> Mask:
    """(g, g): whether two stand side by side on one line, alike in height and brightness."""
    height = glyphs.bottom - glyphs.top + 1
    tall = np.maximum(height[:, None], height)
    gap = np.maximum(glyphs.left[:, None], glyphs.left) - np.minimum(glyphs.right[:, None], glyphs.right) - 1
    result: Mask = (gap >= -1) & (gap <= 0.6 * tall)
    result &= tall <= 1.6 * np.minimum(height[:, None], height)
    result &= np.abs(glyphs.bottom[:, None] - glyphs.bottom) <= np.maximum(1, tall // 8)
    result &= np.abs(glyphs.level[:, None] - glyphs.level) <= EVEN
    return result


# Calipers


def _find_calipers(picture_HW: Grey) -> list[Mark]:
    """Plus signs and crosses: four arms of one brightness and about one length, darkness between them and at their ends."""
    around_HW = np.pad(picture_HW, _MARGIN)
    marks: list[Mark] = []
    for arms, gaps, first in ((_PLUS, _CROSS, 2), (_CROSS, _PLUS, 3)):
        centres_c2 = np.argwhere(_may_be_centres(around_HW, arms, gaps))[:MAX_CENTRES]
        good, arm_c = _measure(around_HW, centres_c2, arms, gaps, first)
        places = zip(centres_c2[good].tolist(), arm_c[good].tolist(), strict=True)
        marks += [Mark("caliper", column - arm, row - arm, column + arm, row + arm) for (row, column), arm in places]
    return _apart(marks)


def _may_be_centres(around_HW: Grey, arms: Ints, gaps: Ints) -> Mask:
    """(H, W): a quick look at eight pixels, MIN_ARM_PX steps from each."""
    height, width = np.array(around_HW.shape) - 2 * _MARGIN

    def shifted(direction: Ints) -> Grey:
        down, right = _MARGIN + MIN_ARM_PX * direction
        return around_HW[down : down + height, right : right + width]

    level_HW = shifted(np.zeros(2, np.intp))
    gap_HW = np.maximum.reduce([shifted(direction) for direction in gaps])
    result: Mask = (level_HW >= CONTRAST) & (level_HW - np.minimum(level_HW, CONTRAST) >= gap_HW)
    for direction in arms:
        end_HW = shifted(direction)
        result &= np.maximum(end_HW, level_HW) - np.minimum(end_HW, level_HW) <= EVEN
    return result


def _measure(around_HW: Grey, centres_c2: Ints, arms: Ints, gaps: Ints, first: int) -> tuple[Mask, Ints]:
    """(c), (c): whether a cross lies at each centre, its gaps dark from the step `first` on; and the length of its longest arm."""
    step_s = np.arange(1, MAX_ARM_PX + 2)
    level_c = around_HW[tuple((centres_c2 + _MARGIN).T)].astype(np.intp)

    def along(direction: Ints) -> Ints:
        """(c, s): grey levels."""
        places = centres_c2[:, None] + step_s[:, None] * direction + _MARGIN
        return np.asarray(around_HW[places[..., 0], places[..., 1]], np.intp)

    uneven = np.stack([np.abs(along(direction) - level_c[:, None]) > EVEN for direction in arms])
    length = np.where(uneven.any(2), uneven.argmax(2), len(step_s))
    shortest, longest = np.asarray(length.min(0)), np.asarray(length.max(0))
    gap_cs = np.stack([along(direction) for direction in gaps]).max(0)
    inside_cs = (step_s >= first) & (step_s <= shortest[:, None])
    good = (shortest >= MIN_ARM_PX) & (longest <= MAX_ARM_PX) & (longest - shortest <= np.maximum(1, shortest // 4))
    good &= ~(inside_cs & (gap_cs > level_c[:, None] - CONTRAST)).any(1)
    return good, longest


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """The largest of those that touch: a thick cross fits at several centres."""
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.left - mark.right, mark)):
        if not any(_touch(mark, other) for other in kept):
            kept.append(mark)
    return kept
