"""manifest.csv: a site's images, one a row, with their cases and labels.

Columns: `case_id,image,label`; optional `patient_id`, without which a case is a patient; optional `split`; optional descriptors,
which are labels where the study has a task of that name and are left out otherwise; optional `scanner`, which the fingerprint
shows; optional `view`, which is left out, as are columns that are not known. Empty cells are missing labels. Blanks around a cell
do not count, and rows without any content are skipped. A case is what gets a label, such as a nodule: a row that leaves its class
empty has that of the case's other rows. A patient is in one split with all cases.

A fault names the row as a spreadsheet shows it (the header is row 1), never a case or an image. No cell is quoted: with columns
out of order, any cell may hold a case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csasn.data.faults import ENOUGH_FAULTS, MAX_FAULTS, Fault, data_error, in_rows
from csasn.data.header import known_columns, read_columns
from csasn.data.patients import gather_cases
from csasn.data.rows import Row, RowReader, plain_word
from csasn.data.sheet import open_sheet
from csasn.errors import ConfigurationError, DataError
from csasn.study import Study

__all__ = ["MAX_FAULTS", "Manifest", "Row", "read_manifest"]
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class Manifest:
    """The rows, sorted by case and image; by case id `classes` (class index or -1), `splits` (split or "") and `patients`.

    `said` is how the sheet was read, and `notes` what may be wrong in it; they name rows alone.
    """

    rows: tuple[Row, ...]
    classes: Mapping[str, int] = field(repr=False)
    splits: Mapping[str, str] = field(repr=False)
    patients: Mapping[str, str] = field(repr=False)
    has_patients: bool = False
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_patients(self) -> int:
        """How many patients the cases are of."""
        return len(set(self.patients.values()))


def read_manifest(path: Path, study: Study, labels: Mapping[str, str] | None = None) -> Manifest:
    """The manifest at `path`, checked against the labels of `study`; `labels` maps words of its label column to classes.

    Raises:
        DataError: it cannot be read, or rows are at fault; up to ten are named at once.
        ConfigurationError: `labels` does not lead to classes of the study.
    """
    try:
        return _read_manifest(path, study, meant_classes(labels or {}, study))
    except MemoryError:
        raise DataError("manifest.csv needs more memory than there is", "end other programs, or split the site's data") from None


def meant_classes(labels: Mapping[str, str], study: Study) -> dict[str, int]:
    """The class of each word of a site's label map, by `plain_word`. Entries are told by their numbers, never by their words.

    Raises:
        ConfigurationError: an entry leads to no class of the study, or leads a class or a word to two.
    """
    meant = {plain_word(name): index for index, name in enumerate(study.classes)}
    own = {plain: index for plain, index in meant.items() if sum(plain_word(name) == plain for name in study.classes) == 1}
    found: dict[str, int] = {}
    for number, (word, name) in enumerate(labels.items(), 1):
        plain = plain_word(word)
        if name not in study.classes:
            what = f"entry {number} of labels leads to no class of the study, expected one of {', '.join(study.classes[:12])}"
        elif own.get(plain, study.classes.index(name)) != study.classes.index(name):
            what = f"entry {number} of labels leads a class of the study to another"
        elif found.setdefault(plain, study.classes.index(name)) != study.classes.index(name):
            what = f"entry {number} of labels leads the word of another entry to another class"
        else:
            continue
        raise ConfigurationError(f"site file: {what}", "write for example labels: {papillary carcinoma: PTC}")
    return found


def _read_manifest(path: Path, study: Study, meant: Mapping[str, int]) -> Manifest:
    sheet = open_sheet(path, known_columns(study))
    columns = read_columns(sheet.header_row, sheet.header, study)
    reader = RowReader(columns, study, meant)
    rows, repeated = [], []
    for number, cells in sheet.records:
        if cells == sheet.header:
            repeated.append(number)
        elif row := reader.read(number, cells):
            rows.append(row)
        if len(reader.faults) >= ENOUGH_FAULTS:
            raise data_error(reader.faults)
        if len(rows) > MAX_ROWS:
            raise DataError(f"manifest.csv has more than {MAX_ROWS} rows", "is this the right file?")
    if not rows and not reader.faults:
        raise DataError("manifest.csv has no rows", "write one row for each image below the header")
    has_patients = "patient_id" in columns.places
    cases, alike = gather_cases(rows, has_patients, reader.faults)
    _check_images(rows, reader.faults)
    if reader.faults:
        raise data_error(reader.faults)
    rows.sort(key=lambda row: (row.case, row.image, row.frame or 0))
    above = [f"{in_rows(repeated)}: repeats the header, and is left out"] if repeated else []
    said = (*sheet.said, *columns.said, *reader.said(), *above)
    notes = (*sheet.notes, *columns.notes, *reader.notes(), *alike)
    return Manifest(tuple(rows), cases.classes, cases.splits, cases.patients, has_patients, said, notes)


def _check_images(rows: Sequence[Row], faults: list[Fault]) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if (other := first.setdefault(row.name, row.number)) != row.number:
            faults.append(Fault(row.number, "image", f"is the same as in row {other}", "name each image once"))
