"""A sheet as spreadsheets write it: any usual separator and encoding, lines before the header, rows without content.

Rows are numbered as a spreadsheet shows them: the first is row 1. A line `sep=;`, which tells a spreadsheet how to read the others
and is not shown by it, has no number.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from csasn.data.encoding import Encoding, find_encoding, without_end_mark
from csasn.errors import DataError
from csasn.platform.share import unreadable

MAX_MANIFEST_BYTES = 256 << 20
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEP_LINE = re.compile(r'"?sep=(.)"?[,;\t|"]*', re.IGNORECASE)
_APART = re.compile(r"[\s_.\-]+")


@dataclass(frozen=True)
class Sheet:
    """A header, and below it number and stripped cells of each row that has any content.

    `said` is how the sheet was read, and `notes` what may be wrong about that.
    """

    header_row: int
    header: list[str]
    records: Iterator[tuple[int, list[str]]]
    said: tuple[str, ...]
    notes: tuple[str, ...]


def squeeze(name: str) -> str:
    """What tells a column's name from others, however it is written: no capitals, blanks, hyphens, points or underscores."""
    return _APART.sub("", name).casefold()


def open_sheet(path: Path, known: Collection[str]) -> Sheet:
    """The sheet at `path`; of the separators it is that by which the header has most of the `known` columns.

    Raises:
        DataError: it cannot be read, or is no text. `records` raise it where the rows are not CSV.
    """
    data = _read_bytes(path)
    encoding = find_encoding(data)
    lines = _lines(data, encoding)
    said, rows_before, separator, first = _begin(lines)
    separator = separator or _find_separator(first, {squeeze(name) for name in known})
    if separator != ",":
        said = (*said, f"cells are separated by {SEPARATORS.get(separator, 'what the line sep= says')}")
    records = _records(csv.reader(chain([first], lines), delimiter=separator, strict=True), rows_before)
    header_row, header = next(records, (1, []))
    return Sheet(header_row, header, records, (*encoding.said, *said), encoding.guess)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(f"manifest.csv is larger than {MAX_MANIFEST_BYTES >> 20} MiB", "is this the right file?")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("manifest.csv does not exist", "check the key manifest of the site file") from None
    except OSError as error:
        raise unreadable(error, "manifest.csv", path) from None


def _lines(data: bytes, encoding: Encoding) -> Iterator[str]:
    """Lines with their ends: of Unix, Windows or old Macs. A line at a time, so that no second copy of the text is held."""
    stream = io.BytesIO(data)
    stream.seek(encoding.num_skipped)
    return map(without_end_mark, io.TextIOWrapper(stream, encoding.codec, newline=""))


def _begin(lines: Iterator[str]) -> tuple[tuple[str, ...], int, str, str]:
    """What is before the header: words on it, how many rows, the separator that is given or "", and the header's first line."""
    rows, comments, separator = 0, 0, ""
    for number, line in enumerate(lines):
        if number == 0 and (found := _SEP_LINE.fullmatch(line.strip("\r\n"))):
            separator = found[1]
            continue
        if line.strip() and not line.startswith(("#", '"#')):
            break
        rows, comments = rows + 1, comments + bool(line.strip())
    else:
        line = ""
    said = ((f"lines above the header that begin with #: {comments}",) if comments else ()) + (
        ("a line sep= stands above row 1, and is not counted",) if separator else ()
    )
    return said, rows, separator, line


def _find_separator(line: str, known: Collection[str]) -> str:
    def num_known(separator: str) -> int:
        try:
            return sum(squeeze(cell) in known for cell in next(csv.reader([line], delimiter=separator), []))
        except csv.Error:  # who reads the rows will tell
            return 0

    return max(SEPARATORS, key=num_known)  # the first of equals


def _records(rows: Iterator[list[str]], rows_before: int) -> Iterator[tuple[int, list[str]]]:
    number = rows_before
    try:
        for number, cells in enumerate(rows, rows_before + 1):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield number, stripped
    except csv.Error:
        raise DataError(
            f"manifest.csv row {number + 1} is not valid CSV", "check its quotes: each opening one needs its closing one"
        ) from None
