"""What an object says of itself, and which frames of a clip are wanted.

Measured frames are those to which other objects or the clip itself point. Others are structured reports (measurements, key images;
DICOM PS3.3 C.17.3) and presentation states (drawings; C.11.11), which name an image by ReferencedSOPInstanceUID, and frames of it
by ReferencedFrameNumber.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from client.importing.folder import DAMAGED
from client.importing.objects import Listed, Source
from csasn.errors import DataError

MAX_MEASURED = 16  # frames of a clip; more of them, or all, say nothing
_REPORT, _PRESENTATION = "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11."
_OVERLAYS = range(0x6000, 0x6020, 2)
_GRAPHICS_FROM, _NUM_GRAPHICS = 0x51, 0x15  # first frame with graphics of an overlay, and the number of frames with any
_TISSUE = (1, 1)  # format and data type of a region: 2D, tissue
_ELEMENTS = [
    *map(Tag, ("NumberOfFrames", "BurnedInAnnotation", "SequenceOfUltrasoundRegions")),
    *map(Tag, ("FrameNumbersOfInterest", "RepresentativeFrameNumber")),
    *(Tag(group, element) for group in _OVERLAYS for element in (_GRAPHICS_FROM, _NUM_GRAPHICS)),
]


@dataclass(frozen=True)
class Object:
    """What an object says of itself: its number of frames, those that were measured, and whether its screen shows text.

    `cropped` tells whether reading it cuts a region out of the screen."""

    num_frames: int
    measured: tuple[int, ...]
    annotated: bool
    cropped: bool


def describe(path: Path) -> Object:
    """The facts of a DICOM file that decide what is taken of it.

    Raises:
        DataError: it is damaged.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_ELEMENTS)
        num_frames = int(header.get("NumberOfFrames") or 1)
        regions = header.get("SequenceOfUltrasoundRegions") or ()
        kinds = [(region.get("RegionSpatialFormat"), region.get("RegionDataType")) for region in regions]
        measured = sorted(frame for frame in _measured(header, num_frames) if 1 <= frame <= num_frames)
        annotated = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
    except DAMAGED:
        raise DataError("the image is a damaged DICOM file", "export it again") from None
    return Object(num_frames, tuple(measured), annotated, _TISSUE in kinds)


def find_pointed_frames(source: Source, objects: Iterable[Listed], studies: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The frames that reports and presentation states of `studies` point to, by SOP Instance UID; damaged ones point nowhere."""
    pointed: dict[str, set[int]] = defaultdict(set)
    for listed in objects:
        if listed.study in studies and listed.kind.startswith((_REPORT, _PRESENTATION)):
            with suppress(DataError, *DAMAGED), source.fetch(listed) as path:
                _point(pydicom.dcmread(path), pointed)
    return {uid: tuple(sorted(frames)) for uid, frames in pointed.items()}


def choose_frames(shown: Object, named: tuple[int, ...], pointed: tuple[int, ...], num_evenly: int) -> tuple[int | None, ...]:
    """The frames to take, None for the only one: those that the list names, else those that were measured, else some evenly spaced.

    Measured are those to which other objects point, else those that the object itself points to; all, or many, of them say nothing.

    Of T frames, the n evenly spaced ones are the middles of n equal parts.
    """
    if named:
        return named if shown.num_frames > 1 or named != (1,) else (None,)
    if shown.num_frames == 1:
        return (None,)
    for frames in (tuple(frame for frame in pointed if 1 <= frame <= shown.num_frames), shown.measured):
        if 1 <= len(frames) <= min(MAX_MEASURED, shown.num_frames - 1):
            return frames
    number = min(num_evenly, shown.num_frames)
    return tuple(-(-(2 * part + 1) * shown.num_frames // (2 * number)) for part in range(number))


def _point(report: pydicom.Dataset, pointed: Mapping[str, set[int]]) -> None:
    """Adds to `pointed` the frames that a report points to."""
    for element in report.iterall():
        for item in element.value if element.VR == "SQ" else ():
            if uid := str(item.get("ReferencedSOPInstanceUID") or ""):
                pointed[uid] |= _numbers(item.get("ReferencedFrameNumber"))


def _measured(header: pydicom.Dataset, num_frames: int) -> set[int]:
    """Frames that the object itself points to: as of interest, else by graphics over them, else as representative."""
    if interest := _numbers(header.get("FrameNumbersOfInterest")):
        return interest
    graphics: set[int] = set()
    for group in _OVERLAYS:
        first, number = header.get((group, _GRAPHICS_FROM)), header.get((group, _NUM_GRAPHICS))
        if first is not None and number is not None:
            graphics |= set(range(max(1, int(first.value)), min(num_frames, int(first.value) + int(number.value) - 1) + 1))
    return graphics or _numbers(header.get("RepresentativeFrameNumber"))


def _numbers(value: int | str | list[int] | MultiValue[int] | None) -> set[int]:
    """The whole numbers of an element that may have none, one or several."""
    values = value if isinstance(value, MultiValue | list) else [value] if value else []
    return {int(number) for number in values}
