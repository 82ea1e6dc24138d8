"""Cases and patients of a manifest: a case has one class and one patient, a patient one split.

Where no patient is named, a case is a patient.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from csasn.data.faults import ENOUGH_FAULTS, MAX_FAULTS, Fault
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
    pairs: dict[str, list[tuple[int, int]]] = {"zeros before it": [], "capitals or coded accents": []}
    for name, row in first.items():
        for by, written in zip(pairs, (_with_fewer_zeros(name), _written_otherwise(name)), strict=True):
            if other := next((first[like] for like in written if like != name and like in first), None):
                pairs[by].append((row.number, other.number))
                break
    yield from (f"column {column} differs by {by} alone in {_in_pairs(found)}" for by, found in pairs.items() if found)


def _with_fewer_zeros(name: str) -> Iterator[str]:
    while name[0] == "0" and len(name) > 1:
        name = name[1:]
        yield name


def _written_otherwise(name: str) -> Iterator[str]:
    """Small letters, and accents as one character with their letter; one that is so already has its twin to tell."""
    yield name.lower()
    if not name.isascii():
        yield unicodedata.normalize("NFC", name)


def _in_pairs(pairs: Sequence[tuple[int, int]]) -> str:
    ordered = sorted(sorted(pair) for pair in pairs)
    more = f" and {len(pairs) - MAX_FAULTS} pairs more" if len(pairs) > MAX_FAULTS else ""
    return "; ".join(f"rows {first} and {second}" for first, second in ordered[:MAX_FAULTS]) + more
