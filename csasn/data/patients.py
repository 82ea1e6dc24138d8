"""Cases and patients of a manifest: a case has one class and one patient, a patient one split.

Where no patient is named, a case is a patient.
"""

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from csasn.data.faults import ENOUGH_FAULTS, Fault, in_rows
from csasn.data.rows import Row


@dataclass(frozen=True)
class Cases:
    """By case id: class index or -1, split or "", and patient."""

    classes: Mapping[str, int] = field(repr=False)
    splits: Mapping[str, str] = field(repr=False)
    patients: Mapping[str, str] = field(repr=False)


def gather_cases(rows: Sequence[Row], has_patients: bool, faults: list[Fault]) -> tuple[Cases, list[str]]:
    """The cases of `rows`, and notes on ids that look like one another; adds a fault where rows of a case or patient differ."""
    classes: dict[str, Row] = {}
    first: dict[str, Row] = {}
    patients: dict[str, Row] = {} if has_patients else first
    whole = "patient" if has_patients else "case"
    for row in rows:
        if row.label >= 0 and row.label != (other := classes.setdefault(row.case, row)).label:
            hint = "a case is one nodule, or one patient: it has one class"
            faults.append(Fault(row.number, "label", f"differs from row {other.number} of the same case", hint))
        if row.patient != (other := first.setdefault(row.case, row)).patient:
            hint = "a case is of one patient, who may have several"
            faults.append(Fault(row.number, "patient_id", f"differs from row {other.number} of the same case", hint))
        if row.split != (other := patients.setdefault(row.patient, row)).split:
            problem = "differs from" if row.split and other.split else "is given in only one of this and"
            hint = "all images of a patient are in one split"
            faults.append(Fault(row.number, "split", f"{problem} row {other.number} of the same {whole}", hint))
        if len(faults) >= ENOUGH_FAULTS:
            break
    notes = list(_alike("case_id", first))
    if has_patients:
        notes += _alike("patient_id", patients)
    cases = Cases(
        classes={case: classes[case].label if case in classes else -1 for case in first},
        splits={case: row.split for case, row in first.items()},
        patients={case: row.patient for case, row in first.items()},
    )
    return cases, notes


def _alike(column: str, first: Mapping[str, Row]) -> Iterator[str]:
    """Notes on ids that differ from another by zeros before them, by capitals, or by how accents are coded, alone."""
    zeros, letters = [], []
    for name, row in first.items():
        if name[0] == "0" and any(short in first for short in _with_fewer_zeros(name)):
            zeros.append(row.number)
        elif _is_like_another(name, first):
            letters.append(row.number)
    if zeros:
        yield f"{in_rows(sorted(zeros))}, column {column}: differs from another by zeros before it alone"
    if letters:
        yield f"{in_rows(sorted(letters))}, column {column}: differs from another by capitals or coded accents alone"


def _with_fewer_zeros(name: str) -> Iterator[str]:
    while name[:1] == "0" and len(name) > 1:
        name = name[1:]
        yield name


def _is_like_another(name: str, names: Collection[str]) -> bool:
    if name.islower() and name.isascii():  # its twin will tell
        return False
    return any(other != name and other in names for other in (name.lower(), unicodedata.normalize("NFC", name)))
