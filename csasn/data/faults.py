"""What is wrong in manifest.csv, by the rows that a spreadsheet shows (the header is row 1); never a case, an image or a cell."""

from collections.abc import Sequence
from dataclasses import dataclass

from csasn.errors import DataError

MAX_FAULTS = 10
ENOUGH_FAULTS = 1000  # after so many, the rest of the manifest is not read


@dataclass(frozen=True)
class Fault:
    """What is wrong in one cell of the manifest, or with the image that it names; `column` is a name, or a number from 1."""

    row: int
    column: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        return _said(f"row {self.row}", self.column, self.problem)


def _said(rows: str, column: str, problem: str) -> str:
    return f"{rows}, column {column}: {problem}" if column else f"{rows}: {problem}"


def data_error(faults: Sequence[Fault]) -> DataError:
    """One error for all `faults` (at least one): the first ten in order of rows, and how many more; alike ones together."""
    ordered = sorted(faults, key=lambda fault: fault.row)
    alike: dict[tuple[str, str], list[int]] = {}
    for fault in ordered:
        alike.setdefault((fault.column, fault.problem), []).append(fault.row)
    said = [_said(in_rows(rows), column, problem) for (column, problem), rows in alike.items()]
    rest = sum(len(rows) for rows in list(alike.values())[MAX_FAULTS:])
    least = "; later rows were not looked at" if len(ordered) >= ENOUGH_FAULTS else ""
    text, more = "; ".join(said[:MAX_FAULTS]), f"; and {rest} more" if rest else ""
    hint = next((fault.hint for fault in ordered if fault.hint), "correct these rows and try again")
    return DataError(f"manifest.csv {text}{more}{least}", hint)


def in_rows(rows: Sequence[int], most: int = MAX_FAULTS) -> str:
    """`row 7`, or `rows 7, 9` up to `most` of them and how many more; `rows` holds at least one."""
    return f"row {rows[0]}" if len(rows) == 1 else f"rows {listed(rows, most)}"


def listed(numbers: Sequence[int], most: int = MAX_FAULTS) -> str:
    """`7, 9` up to `most` of them and how many more."""
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
