"""The objects that a source lists and hands out as files, and which of them are ultrasound pictures."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.importing.pathology import Diagnosis

ULTRASOUND = {
    "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
}
CAPTURE = {"1.2.840.10008.5.1.4.1.1.7", *(f"1.2.840.10008.5.1.4.1.1.7.{number}" for number in (2, 3, 4))}
MODALITY = "US"
ELEMENTS = {  # of DICOM, by the names of `Listed`
    "uid": "SOPInstanceUID", "series": "SeriesInstanceUID", "study": "StudyInstanceUID", "patient": "PatientID",
    "accession": "AccessionNumber", "kind": "SOPClassUID", "modality": "Modality",
}  # fmt: skip
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


@contextmanager
def file_in_memory(dataset: pydicom.Dataset) -> Iterator[Path]:
    """A path to an object in memory while the block lasts, also for child processes: what an archive hands out stays off the disk.

    A bare one gets the file header that it lacks, with its syntax as far as its elements tell.
    """
    if not getattr(dataset, "file_meta", None):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            dataset.save_as(file, enforce_file_format=True)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
