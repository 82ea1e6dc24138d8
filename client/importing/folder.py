"""A folder of DICOM files: told by content, whatever they are called. Files are read, never written."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from client.importing.objects import ELEMENTS, Advance, Listed, Listing, file_in_memory
from client.importing.pathology import Diagnosis
from csasn.errors import ConfigurationError, DataError, StorageError
from csasn.pictures.picture import UNREADABLE

DAMAGED = (*UNREADABLE, InvalidDicomError, BytesLengthException, NotImplementedError, MemoryError)
_DIRECTORY = "1.2.840.10008.1.3.10"
_STARTS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # group 2 or 8, as a file without preamble begins
NOT_DICOM, DIRECTORY, UNREADABLE_FILE = "a file that is not DICOM", "a table of contents (DICOMDIR)", "a file that cannot be read"
DAMAGED_FILE, CLOSED_FOLDER = "a damaged DICOM file", "a folder that this user may not enter"
NO_UID, COPY = "a DICOM file without SOP Instance UID", "a copy of another file"


class Folder:
    """The DICOM files in a folder and those below it, in the order of their paths. Links to folders are not followed."""

    def __init__(self, root: Path) -> None:
        """Raises:
        ConfigurationError: there is no such folder, or it may not be entered.
        """
        self._root = root
        try:
            os.listdir(root)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise ConfigurationError(
                f"cannot look into the folder {root}: {reason}", "check --dicom, and its owner and mode"
            ) from None

    def list(self, _: Sequence[Diagnosis], advance: Advance) -> Listing:
        """Every object of the folder, whether the list names it or not."""
        others: Counter[str] = Counter()
        paths = sorted(self._walk(others))
        objects: dict[str, Listed] = {}
        for done, path in enumerate(paths, 1):
            found = _identify(path)
            if isinstance(found, str):
                others[found] += 1
            elif found.uid in objects:
                others[COPY] += 1
            else:
                objects[found.uid] = found
            advance(done, len(paths))
        return Listing(tuple(objects.values()), others)

    @contextmanager
    def fetch(self, listed: Listed) -> Iterator[Path]:
        """The file itself, or one with a file header where it has none.

        Raises:
            StorageError: it was there, and is not any more: a disk or a network share went away.
        """
        assert listed.path is not None
        with ExitStack() as stack:
            try:
                with listed.path.open("rb") as file:
                    marked = file.read(132)[128:] == b"DICM"
                path = listed.path if marked else stack.enter_context(file_in_memory(pydicom.dcmread(listed.path, force=True)))
            except OSError as error:
                reason = (error.strerror or "error").lower()
                hint = "is its disk or network share still there? the same command goes on where this one stopped"
                raise StorageError(f"a file in {self._root} can no longer be read: {reason}", hint) from None
            except DAMAGED:
                raise DataError("the image is a damaged DICOM file", "export it again") from None
            yield path

    def _walk(self, others: Counter[str]) -> Iterator[Path]:
        def closed(_: OSError) -> None:
            others[CLOSED_FOLDER] += 1

        for folder, _, names in os.walk(self._root, onerror=closed):
            yield from (Path(folder, name) for name in names)


def _identify(path: Path) -> Listed | str:
    """The identity of a file's object, or why it has none."""
    marked = False
    try:
        if not path.is_file():
            return UNREADABLE_FILE
        with path.open("rb") as file:
            start = file.read(132)
            file.seek(0)
            marked = start[128:] == b"DICM"
            if not marked and not start.startswith(_STARTS):
                return NOT_DICOM
            header = pydicom.dcmread(file, stop_before_pixels=True, force=not marked, specific_tags=[*ELEMENTS.values()])
            values = {name: _text(header.get(keyword)) for name, keyword in ELEMENTS.items()}
            values["kind"] = values["kind"] or _text(header.file_meta.get("MediaStorageSOPClassUID"))
    except OSError:
        return UNREADABLE_FILE
    except DAMAGED:
        return DAMAGED_FILE if marked else NOT_DICOM
    faults = {
        DIRECTORY: values["kind"] == _DIRECTORY,
        NOT_DICOM: not (values["kind"] or marked),
        NO_UID: not values["uid"],
    }
    return next((reason for reason, is_so in faults.items() if is_so), None) or Listed(**values, path=path)


def _text(value: object) -> str:
    return str(value or "").strip(" \0")
