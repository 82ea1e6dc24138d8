"""Images that cannot be read: a few are left out and named by row, more stop the site (`policy.max_unreadable_share`).

Splits are those of the whole manifest, so that a broken file moves no other case. Where it is not the files that are broken but the
share that they are on, nothing is left out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csasn.data.faults import MAX_FAULTS, Fault, data_error, in_rows
from csasn.data.manifest import Manifest, Row
from csasn.data.split import SPLITS
from csasn.errors import AwayError, DataError
from csasn.platform.share import require_folder

MAX_ROWS = 50  # named with each problem
ROOT = "the image root"
PAUSES_S = (1.0, 2.0, 4.0)  # before images behind an error of disk or share are read again
ROUNDING = 1e-9  # so that .29 of 100 are 29


@dataclass(frozen=True)
class Unread:
    """An image that could not be read: its number among those asked for, what is wrong, and whether the way to it may be why."""

    number: int
    fault: Fault
    away: bool = False


@dataclass(frozen=True)
class Tolerance:
    """The share of images that may be unreadable, and the folder that all are in."""

    share: float = 0.0
    root: Path | None = field(default=None, repr=False)

    def num_allowed(self, num_images: int) -> int:
        """How many of so many images may be unreadable."""
        return int(self.share * num_images + ROUNDING)


NONE = Tolerance()


def require_few(
    unread: Sequence[Unread], num_images: int, tolerance: Tolerance, read_again: Callable[[int], object | Unread]
) -> None:
    """Stops where more images are unreadable than `tolerance` allows, or where the share is away rather than files broken.

    `read_again(number)` tries one once more: what was unreadable a moment ago and is no longer was away.

    Raises:
        AwayError: the share was or is away; waiting may help.
        DataError: too many images are broken; up to ten rows are named.
    """
    if not unread:
        return
    if tolerance.root is not None:
        require_folder(tolerance.root, ROOT)
    allowed = tolerance.num_allowed(num_images)
    looked_at = unread[: max(allowed, MAX_FAULTS)]
    for pause_s in (0.0, *(PAUSES_S if any(image.away for image in looked_at) else ())):
        time.sleep(pause_s)
        if not all(isinstance(read_again(image.number), Unread) for image in looked_at):
            raise AwayError("some images can be read at one time and not at another", "is their disk, or their share, sound?")
    if len(unread) <= allowed:
        return
    error = data_error([image.fault for image in unread])
    if sum(not image.away for image in unread) <= allowed:
        raise AwayError(error.message, error.hint)
    if not allowed:
        raise error
    few = f"{len(unread)} of {num_images} images cannot be read, at most {allowed} may be left out"
    raise DataError(f"{error.message}; {few}", f"{error.hint}; see max_unreadable_share in the site file")


def leave_out(
    manifest: Manifest, splits: Mapping[str, str], readable: Sequence[int]
) -> tuple[Manifest, dict[str, str], NDArray[np.int64]]:
    """Manifest and splits of the rows with a readable image, and (3, 2) cases and images of each split that are left out.

    A case goes when none of its images is left; what is left keeps its class and its split.
    """
    numbers = set(readable)
    gone = [row for number, row in enumerate(manifest.rows) if number not in numbers]
    kept, of_kept = keep_rows(manifest, splits, [manifest.rows[number] for number in readable])
    left_out = np.zeros((len(SPLITS), 2), np.int64)
    for case in {row.case for row in gone} - of_kept.keys():
        left_out[SPLITS.index(splits[case]), 0] += 1
    for row in gone:
        left_out[SPLITS.index(splits[row.case]), 1] += 1
    return kept, of_kept, left_out


def keep_rows(manifest: Manifest, splits: Mapping[str, str], rows: Sequence[Row]) -> tuple[Manifest, dict[str, str]]:
    """Manifest and splits of some of its rows alone; each case keeps its class and its split."""
    kept = {row.case for row in rows}
    return replace(
        manifest,
        rows=tuple(rows),
        classes={case: label for case, label in manifest.classes.items() if case in kept},
        splits={case: split for case, split in manifest.splits.items() if case in kept},
        patients={case: patient for case, patient in manifest.patients.items() if case in kept},
    ), {case: split for case, split in splits.items() if case in kept}


def describe_left_out(faults: Sequence[Fault], left_out_32: NDArray[np.int64]) -> tuple[str, ...]:
    """A note of what is left out, naming rows and what is wrong with each; none where nothing is."""
    if not faults:
        return ()
    rows_of: dict[str, list[int]] = {}
    for fault in sorted(faults, key=lambda fault: fault.row):
        rows_of.setdefault(fault.problem, []).append(fault.row)
    cases, images = left_out_32.sum(axis=0).tolist()
    listed = "; ".join(f"{in_rows(rows, MAX_ROWS)}: {problem}" for problem, rows in rows_of.items())
    return (f"left out: {images} {'image' if images == 1 else 'images'} that cannot be read, with {_number(cases)} ({listed})",)


def _number(cases: int) -> str:
    return "no case" if not cases else "1 case, which has no other" if cases == 1 else f"{cases} cases, which have no others"
