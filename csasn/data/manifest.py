"""manifest.csv: a site's images, one a row, with their cases and labels.

Columns: `case_id,image,label`; optional `split`; optional descriptors, which are labels where the study has a task of that name
and are ignored otherwise; optional `scanner`, which the fingerprint shows; optional `view`, which is ignored. Empty cells are
missing labels. Blanks around a cell do not count, and rows without any content are skipped. The class belongs to the case: a row
that leaves it empty has that of the case's other rows.

A fault names the row as a spreadsheet shows it (the header is row 1), never a case or an image. No cell is quoted: with columns
out of order, any cell may hold a case.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from csasn.data.share import unreadable
from csasn.data.split import SPLITS
from csasn.errors import DataError
from csasn.study import Study

REQUIRED = ("case_id", "image", "label")
TIRADS = ("composition", "echogenicity", "shape", "margin", "foci")
OPTIONAL = ("split", "view", "scanner", *TIRADS)
MAX_MANIFEST_BYTES, MAX_ROWS = 64 << 20, 1_000_000
MAX_FAULTS = 10
ENOUGH_FAULTS = 1000  # after so many, the rest of the manifest is not read
_FRAME = re.compile(r"(?P<image>.*\S)#(?P<frame>[0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One image. `labels` holds the descriptors that are present, as indices; `frame` counts from 1, None is the middle one."""

    number: int
    case: str = field(repr=False)
    image: str = field(repr=False)
    frame: int | None
    label: int
    split: str
    labels: Mapping[str, int]
    scanner: str = ""

    @property
    def name(self) -> str:
        """What tells this image from the others of the manifest."""
        return self.image if self.frame is None else f"{self.image}#{self.frame}"


@dataclass(frozen=True)
class Manifest:
    """The rows, sorted by case and image; `classes` and `splits` by case id: class index or -1, split or ""."""

    rows: tuple[Row, ...]
    classes: Mapping[str, int] = field(repr=False)
    splits: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Fault:
    """What is wrong in one cell of the manifest, or with the image that it names; `column` is a name, or a number from 1."""

    row: int
    column: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column}: {self.problem}" if self.column else f"row {self.row}: {self.problem}"


def data_error(faults: Sequence[Fault]) -> DataError:
    """One error for all `faults` (at least one): the first ten in order of rows, and how many more."""
    ordered = sorted(faults, key=lambda fault: fault.row)
    text = "; ".join(str(fault) for fault in ordered[:MAX_FAULTS])
    least = "at least " if len(ordered) >= ENOUGH_FAULTS else ""
    more = f"; and {least}{len(ordered) - MAX_FAULTS} more" if len(ordered) > MAX_FAULTS else ""
    hint = next((fault.hint for fault in ordered if fault.hint), "correct these rows and try again")
    return DataError(f"manifest.csv {text}{more}", hint)


def read_manifest(path: Path, study: Study) -> Manifest:
    """The manifest at `path`, checked against the labels of `study`.

    Raises:
        DataError: it cannot be read, or rows are at fault; up to ten are named at once.
    """
    try:
        return _read_manifest(path, study)
    except MemoryError:
        raise DataError("manifest.csv needs more memory than there is", "end other programs, or split the site's data") from None


def _read_manifest(path: Path, study: Study) -> Manifest:
    records = _records(_read_text(path))
    header = _check_header(*next(records, (1, [])), study)
    faults: list[Fault] = []
    rows = []
    for number, cells in records:
        if len(cells) != len(header):
            faults.append(Fault(number, "", f"has {len(cells)} cells, expected {len(header)}", "quote cells that hold commas"))
        elif row := _parse_row(number, dict(zip(header, cells, strict=True)), study, faults):
            rows.append(row)
        if len(faults) >= ENOUGH_FAULTS:
            raise data_error(faults)
        if number > MAX_ROWS:
            raise DataError(f"manifest.csv has more than {MAX_ROWS} rows", "is this the right file?")
    if not rows and not faults:
        raise DataError("manifest.csv has no rows", "write one row for each image below the header")
    classes, splits = _check_cases(rows, faults)
    _check_images(rows, faults)
    if faults:
        raise data_error(faults)
    return Manifest(tuple(sorted(rows, key=lambda row: (row.case, row.image, row.frame or 0))), classes, splits)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(f"manifest.csv is larger than {MAX_MANIFEST_BYTES >> 20} MiB", "is this the right file?")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("manifest.csv does not exist", "check the key manifest of the site file") from None
    except OSError as error:
        raise unreadable(error, "manifest.csv") from None
    save = "save it as CSV UTF-8 in the spreadsheet"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"manifest.csv line {1 + data[: error.start].count(10)} is not UTF-8", save) from None
    if "\0" in text:
        raise DataError(f"manifest.csv line {1 + text[: text.index(chr(0))].count(chr(10))} holds a NUL byte", save)
    return text


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Row number and stripped cells of each row that has any content."""
    number = 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield number, stripped
    except csv.Error:
        raise DataError(
            f"manifest.csv row {number + 1} is not valid CSV", "check its quotes: each opening one needs its closing one"
        ) from None


def _check_header(number: int, header: list[str], study: Study) -> list[str]:
    known = {*REQUIRED, *OPTIONAL, *study.descriptors}
    if missing := [name for name in REQUIRED if name not in header]:
        semicolons = any(";" in name for name in header)
        hint = (
            "separate cells by commas, not semicolons" if semicolons else f"the first row names the columns: {','.join(REQUIRED)}"
        )
        raise DataError(f"manifest.csv has no column {', '.join(missing)}", hint)
    if unknown := [column for column, name in enumerate(header, 1) if name not in known]:
        hint = f"remove it, or rename it; known are {', '.join(sorted(known))}"
        raise data_error([Fault(number, str(column), "is unknown", hint) for column in unknown[:ENOUGH_FAULTS]])
    if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
        raise DataError(f"manifest.csv has column {', '.join(repeated)} more than once", "keep one of them")
    return header


def _parse_row(number: int, cells: Mapping[str, str], study: Study, faults: list[Fault]) -> Row | None:
    """The row, or None after its faults were added to `faults`."""
    num_before = len(faults)
    if not cells["case_id"]:
        faults.append(Fault(number, "case_id", "is empty", "every image belongs to a case"))
    image, frame = split_frame(cells["image"])
    if problem := _path_problem(image):
        faults.append(Fault(number, "image", problem, "name images relative to the image root, with / between folders"))
    if frame == 0:
        faults.append(Fault(number, "image", "names frame 0, expected 1 or more", "frames count from 1"))
    known = {"label": study.classes, "split": SPLITS, **study.descriptors}
    labels = {}
    for column, values in known.items():
        value = cells.get(column, "")
        if value in values:
            labels[column] = values.index(value)
        elif value:
            faults.append(Fault(number, column, _unknown(column, values), "correct it, or leave it empty"))
    if len(faults) > num_before:
        return None
    label, _ = labels.pop("label", -1), labels.pop("split", -1)
    return Row(number, cells["case_id"], image, frame, label, cells.get("split", ""), labels, cells.get("scanner", ""))


def split_frame(cell: str) -> tuple[str, int | None]:
    """Image and frame of an image cell: `clip.dcm#12` is frame 12 of clip.dcm."""
    if match := _FRAME.fullmatch(cell):
        return _normal(match["image"]), int(match["frame"])
    return _normal(cell), None


def _normal(name: str) -> str:
    return str(PurePosixPath(name)) if name else ""


def _path_problem(image: str) -> str:
    if not image or image == ".":
        return "is empty"
    if image.startswith("/") or PureWindowsPath(image).drive:
        return "is an absolute path"
    if "\\" in image:
        return "holds a backslash"
    return "leaves the image root" if ".." in PurePosixPath(image).parts else ""


def _unknown(column: str, values: Sequence[str]) -> str:
    what = {"label": "a class of the study", "split": "a split"}.get(column, "a value of the study")
    expected = ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
    return f"is not {what}, expected one of {expected}"


def _check_cases(rows: Sequence[Row], faults: list[Fault]) -> tuple[dict[str, int], dict[str, str]]:
    """Class and split of each case; adds a fault where its rows differ."""
    labelled: dict[str, Row] = {}
    first: dict[str, Row] = {}
    one = "a case is one patient: it has one class and one split"
    for row in rows:
        if row.label >= 0 and row.label != (other := labelled.setdefault(row.case, row)).label:
            faults.append(Fault(row.number, "label", f"differs from row {other.number} of the same case", one))
        if row.split != (other := first.setdefault(row.case, row)).split:
            problem = "differs from" if row.split and other.split else "is given in only one of this and"
            faults.append(Fault(row.number, "split", f"{problem} row {other.number} of the same case", one))
    classes = {case: labelled[case].label if case in labelled else -1 for case in first}
    return classes, {case: row.split for case, row in first.items()}


def _check_images(rows: Sequence[Row], faults: list[Fault]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        if (other := first.setdefault(row.name, row)) is not row:
            faults.append(Fault(row.number, "image", f"is the same as in row {other.number}", "name each image once"))
