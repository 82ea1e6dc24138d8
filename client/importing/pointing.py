"""Objects that point to frames of clips: structured reports (measurements, key images) and presentation states (drawings).

Source: DICOM PS3.3 C.17.3 (content items) and C.11.11 (presentation states); each names an image by ReferencedSOPInstanceUID, and
frames of it by ReferencedFrameNumber.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import pydicom
from pydicom.multival import MultiValue

from client.importing.folder import DAMAGED
from client.importing.objects import Listed, Source
from csasn.errors import DataError

_REPORT = "1.2.840.10008.5.1.4.1.1.88."
_PRESENTATION = "1.2.840.10008.5.1.4.1.1.11."


def find_pointed_frames(source: Source, objects: Iterable[Listed], studies: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The frames that reports and presentation states of `studies` point to, by SOP Instance UID; damaged ones point nowhere."""
    pointed: dict[str, set[int]] = defaultdict(set)
    for listed in objects:
        if listed.study in studies and listed.kind.startswith((_REPORT, _PRESENTATION)):
            try:
                with source.fetch(listed) as path:
                    _read(path, pointed)
            except DataError:
                continue
    return {uid: tuple(sorted(frames)) for uid, frames in pointed.items()}


def _read(path: Path, pointed: dict[str, set[int]]) -> None:
    try:
        for element in pydicom.dcmread(path).iterall():
            if element.VR != "SQ":
                continue
            for item in element.value:
                frames = item.get("ReferencedFrameNumber")
                if frames and (uid := str(item.get("ReferencedSOPInstanceUID") or "")):
                    pointed[uid] |= {int(frame) for frame in (frames if isinstance(frames, MultiValue | list) else [frames])}
    except DAMAGED:
        raise DataError("the report is damaged", "export it again") from None
