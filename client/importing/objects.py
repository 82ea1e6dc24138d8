"""The objects that a source lists, and which of them are ultrasound pictures."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydicom.uid import UID

from client.importing.pathology import Diagnosis

ULTRASOUND = {
    "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
}
CAPTURE = {"1.2.840.10008.5.1.4.1.1.7", *(f"1.2.840.10008.5.1.4.1.1.7.{number}" for number in (2, 3, 4))}
MODALITY = "US"
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Listed:
    """An object as its source lists it: the UIDs of object, series and study, the numbers of patient and accession, SOP class and
    modality; texts are empty where the source does not say. `path` is of a file, None in an archive."""

    uid: str = field(repr=False)
    series: str = field(repr=False)
    study: str = field(repr=False)
    patient: str = field(repr=False)
    accession: str = field(repr=False)
    kind: str
    modality: str
    path: Path | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Listing:
    """What a source has; `others` counts what is no DICOM object, by reason."""

    objects: tuple[Listed, ...]
    others: Counter[str]


class Source(Protocol):
    """A folder or an archive."""

    def list(self, diagnoses: Sequence[Diagnosis], advance: Advance) -> Listing:
        """What there is, at least of the patients and studies that `diagnoses` name; `advance(done, total)` tells how far it is.

        Raises:
            CsasnError: it cannot be looked through.
        """

    def fetch(self, listed: Listed) -> AbstractContextManager[Path]:
        """A DICOM file to read while the context lasts.

        Raises:
            DataError: the source does not hand it out.
            CsasnError: the source is gone, so that the import ends, to go on later.
        """


def reason_to_leave(listed: Listed) -> str:
    """Why an object is no ultrasound picture, "" where it is one."""
    if listed.kind in ULTRASOUND and listed.modality in ("", MODALITY):
        return ""
    if listed.kind in CAPTURE and listed.modality == MODALITY:
        return ""
    if listed.kind in ULTRASOUND | CAPTURE:
        return f"a picture of another modality than {MODALITY}"
    name = UID(listed.kind).name
    return "an object of an unknown kind" if name == listed.kind else f"no picture of ultrasound: {name}"
