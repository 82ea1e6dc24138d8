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
        return f"row {self.row}, column {self.column}: {self.problem}" if self.column else f"row {self.row}: {self.problem}"


def data_error(faults: Sequence[Fault]) -> DataError:
    """One error for all `faults` (at least one): the first ten in order of rows, and how many more."""
    ordered = sorted(faults, key=lambda fault: fault.row)
    text = "; ".join(str(fault) for fault in ordered[:MAX_FAULTS])
    least = "at least " if len(ordered) >= ENOUGH_FAULTS else ""
    more = f"; and {least}{len(ordered) - MAX_FAULTS} more" if len(ordered) > MAX_FAULTS else ""
    hint = next((fault.hint for fault in ordered if fault.hint), "correct these rows and try again")
    return DataError(f"manifest.csv {text}{more}", hint)


def in_rows(rows: Sequence[int], most: int = MAX_FAULTS) -> str:
    """`row 7`, or `rows 7, 9` up to `most` of them and how many more; `rows` holds at least one."""
    return f"row {rows[0]}" if len(rows) == 1 else f"rows {listed(rows, most)}"


def listed(numbers: Sequence[int], most: int = MAX_FAULTS) -> str:
    """`7, 9` up to `most` of them and how many more."""
    return ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
