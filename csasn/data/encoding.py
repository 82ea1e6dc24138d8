"""The encoding of a text file that a spreadsheet wrote: known by its mark or by being valid UTF-8, or guessed, and then said."""

import codecs
import re
from dataclasses import dataclass

from csasn.errors import DataError

SAVE = "save it as CSV UTF-8 in the spreadsheet"
_WORKBOOK = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # XLSX and ODS; XLS
_HIGH = re.compile(rb"[\x80-\xff]+")
_LATIN, _LATIN_NAME = "cp1252", "Windows-1252"
_CTRL_Z = "\x1a"  # how programs of DOS end a text


@dataclass(frozen=True)
class Encoding:
    """How to decode a file: the codec, the bytes before the text, and what is to be said; `guess` where it is none too sure."""

    codec: str
    num_skipped: int = 0
    said: tuple[str, ...] = ()
    guess: tuple[str, ...] = ()


def find_encoding(data: bytes) -> Encoding:
    """The encoding of `data`, which decodes by it without an error and holds no NUL character.

    UTF-16 and UTF-8 are told by their marks, UTF-8 also by being valid. What remains may be of any code page: where most bytes
    above 127 stand alone, as accents between plain letters do, it is taken for Windows-1252, of which Latin-1's letters are part.

    Raises:
        DataError: it is a workbook, or of a code page that cannot be guessed, or holds what is no text.
    """
    if data.startswith(_WORKBOOK):
        raise DataError("manifest.csv is a workbook, expected CSV", SAVE)
    found = _by_marks(data) or _utf8(data)
    try:
        text = data[found.num_skipped :].decode(found.codec)
    except UnicodeDecodeError as error:
        line = 1 + data[: found.num_skipped + error.start].count(b"\n")
        raise DataError(f"manifest.csv line {line} is cut off or damaged, expected {found.codec.upper()}", SAVE) from None
    if "\0" in text:
        raise DataError(f"manifest.csv line {1 + text.count(chr(10), 0, text.index(chr(0)))} holds a NUL byte", SAVE)
    return found


def without_end_mark(line: str) -> str:
    """`line` without the character 26 at its end, by which some programs end a file."""
    return line.rstrip(_CTRL_Z)


def _by_marks(data: bytes) -> Encoding | None:
    if data.startswith(codecs.BOM_UTF8):
        size = len(codecs.BOM_UTF8)
        number = next(count for count in range(1, len(data)) if not data.startswith(codecs.BOM_UTF8, count * size))
        return Encoding("utf-8", number * size, (f"begins with {number} byte-order marks",) if number > 1 else ())
    for codec, mark in (("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)):
        if data.startswith(mark):
            return Encoding(codec, len(mark), ("is in UTF-16",))
    begin = data[:64]
    for codec, zeros, letters in (("utf-16-le", begin[1::2], begin[0::2]), ("utf-16-be", begin[0::2], begin[1::2])):
        if len(zeros) > 4 and not any(zeros) and all(letters):
            return Encoding(codec, 0, ("is in UTF-16 without its mark",))
    return None


def _utf8(data: bytes) -> Encoding:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
    else:
        return Encoding("utf-8")
    runs = [len(run) for run in _HIGH.findall(data)]
    try:
        data.decode(_LATIN)
    except UnicodeDecodeError:
        runs = []
    if 2 * runs.count(1) <= len(runs):
        raise DataError(f"manifest.csv line {line} is not UTF-8, but of a code page that the file does not name", SAVE)
    return Encoding(_LATIN, guess=(f"line {line} is not UTF-8: read as {_LATIN_NAME}, which is a guess",))
