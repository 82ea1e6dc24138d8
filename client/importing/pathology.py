"""The pathology list: a CSV that says, by accession number or patient number, what was found.

Columns, in any order and with any capitals, blanks and underscores: `label`; `accession_number`, `patient_number` or both;
optional `nodule` (or `case`), which tells a patient's nodules apart; optional `split`; optional `image` (a SOP Instance UID) and
`frame`, where a study shows more than one nodule, or a clip was measured in one frame. Other columns are not read.

Errors name the row as a spreadsheet shows it, and never a cell.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from csasn.data.split import SPLITS
from csasn.errors import ConfigurationError, DataError

MAX_LIST_BYTES = 64 << 20
MAX_FAULTS = 10
MAX_LABELS, MAX_LABEL_CHARS = 50, 64  # more or longer ones are not classes
_NAMES = {  # as they are shown, and as they are told without blanks and underscores
    "accession": ("accession_number", "accessionnumber", "accession"),
    "patient": ("patient_number", "patientnumber", "patientid", "patient"),
    "image": ("image", "sopinstanceuid"),
    "frame": ("frame",),
    "nodule": ("nodule", "case"),
    "label": ("label",),
    "split": ("split",),
}
_WILD = re.compile(r"[*?\\,]")  # an archive would take it for many numbers
_ROUNDED = re.compile(r"[0-9](\.[0-9]+)?[eE]\+[0-9]+")
_DELIMITERS = ",;\t"
_COLUMNS = "expected label, accession_number or patient_number, and optional nodule, split, image, frame"


@dataclass(frozen=True)
class Diagnosis:
    """One row: what pathology says of the images that it names. `frame` counts from 1; texts are empty where the list is silent."""

    row: int
    accession: str = field(default="", repr=False)
    patient: str = field(default="", repr=False)
    image: str = field(default="", repr=False)
    frame: int | None = None
    nodule: str = field(default="", repr=False)
    label: str = ""
    split: str = ""


def read_pathology(path: Path) -> tuple[Diagnosis, ...]:
    """The rows of a list, in UTF-8, UTF-16 or Windows-1252, separated by commas, semicolons or tabs.

    Raises:
        ConfigurationError: it cannot be read.
        DataError: columns are missing, or rows are at fault; up to ten are named at once.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the list {path}: {(error.strerror or 'error').lower()}", "check --labels") from None
    if len(data) > MAX_LIST_BYTES:
        raise DataError(f"the list is larger than {MAX_LIST_BYTES >> 20} MiB", "is --labels the pathology list?")
    try:
        rows = list(_rows(_decode(data)))
    except csv.Error:
        raise DataError("the list is not CSV", "export it as CSV, with its columns in the first row") from None
    if not rows:
        raise DataError("the list has no rows", _COLUMNS)
    columns = _find_columns(rows[0][1])
    faults: list[str] = []
    diagnoses = [_read_row(number, cells, columns, faults) for number, cells in rows[1:] if any(cells)]
    _check_labels(diagnoses)
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        raise DataError("the list: " + "; ".join(faults[:MAX_FAULTS] + more), "correct these rows, and import again")
    if not diagnoses:
        raise DataError("the list has no rows below its columns", _COLUMNS)
    return tuple(diagnoses)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Cells without blanks around them, with the number of their row."""
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    for number, cells in enumerate(reader, 1):
        yield number, [cell.strip() for cell in cells]


def _find_columns(header: list[str]) -> dict[str, int]:
    """Where each column is.

    Raises:
        DataError: one is missing or there twice.
    """
    plain = [re.sub(r"[\W_]", "", name).lower() for name in header]
    places = {key: [place for place, name in enumerate(plain) if name in names] for key, names in _NAMES.items()}
    if twice := [_NAMES[key][0] for key, found in places.items() if len(found) > 1]:
        raise DataError(f"the list has more than one column for {', '.join(twice)}", "keep the one that is meant")
    columns = {key: found[0] for key, found in places.items() if found}
    if "label" not in columns:
        raise DataError("the list has no column label", _COLUMNS)
    if not {"accession", "patient"} & set(columns):
        raise DataError("the list has neither a column accession_number nor patient_number", _COLUMNS)
    return columns


def _read_row(number: int, cells: list[str], columns: dict[str, int], faults: list[str]) -> Diagnosis:
    values = {key: cells[place] if place < len(cells) else "" for key, place in columns.items()}
    problems = []
    if not (values.get("accession") or values.get("patient")):
        problems.append("names neither accession number nor patient number")
    for key in ("accession", "patient", "image"):
        if _WILD.search(values.get(key, "")):
            problems.append(f"column {_NAMES[key][0]} holds *, ?, \\ or a comma")
        elif _ROUNDED.fullmatch(values.get(key, "")):
            problems.append(f"column {_NAMES[key][0]} was rounded by a spreadsheet (1.23E+11): format it as text")
    frame = values.pop("frame", "")
    if frame and not (frame.isascii() and frame.isdigit() and 0 < int(frame) < 10**9):
        problems.append("column frame is no number from 1 on")
    elif frame and not values.get("image"):
        problems.append("column frame is given without image")
    if values.get("split", "") not in ("", *SPLITS):
        problems.append(f"column split is none of {', '.join(SPLITS)}")
    if values["label"] and values["label"] in (values.get("accession"), values.get("patient")):
        problems.append("column label holds the number of the accession or the patient")
    faults += [f"row {number} {problem}" for problem in problems]
    return Diagnosis(number, frame=int(frame) if frame and not problems else None, **values)


def _check_labels(diagnoses: list[Diagnosis]) -> None:
    """Refuses a column that holds sentences or numbers: its words go into the manifest, and are shown.

    Raises:
        DataError: it does.
    """
    labels = {diagnosis.label for diagnosis in diagnoses}
    longest = max(map(len, labels), default=0)
    if len(labels) > MAX_LABELS or longest > MAX_LABEL_CHARS:
        raise DataError(
            f"the list's column label holds {len(labels)} different texts of up to {longest} characters, "
            f"expected at most {MAX_LABELS} classes of {MAX_LABEL_CHARS} characters",
            "name the class alone there, such as PTC; diagnoses in words belong into another column",
        )
