"""A site's data in one page of numbers: what it holds, how it looks, and what may mislead training. It stays at the site.

Rows are those of manifest.csv as a spreadsheet shows them; no case and no image is named.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import chdtrc

from csasn.data.cases import SPLITS, Records, same_pictures
from csasn.data.manifest import Row
from csasn.pictures.picture_facts import ImageFacts
from csasn.pictures.suspects import find_suspects
from csasn.platform.configuration import Configuration
from csasn.study import Study

SCHEMA_VERSION = 1
UNKNOWN, UNLABELLED = "unknown", "unlabelled"
NUM_SIZES = 5
CLEAR_DIFFERENCE, CHANCE, LEAST_IMAGES = 0.2, 0.001, 10  # of marked shares of classes, for a note


class Spread(Configuration):
    """The range of a number over images or cases."""

    least: float
    median: float
    most: float


class Group(Configuration):
    """Images that share a scanner: their number, and the means of their mean grey level, deviation and percentiles 1, 50, 99."""

    num_images: int
    mean: float
    deviation: float
    percentiles: tuple[float, float, float]


class Counts(Configuration):
    """Cases and images of one class in one split."""

    num_cases: int
    num_images: int


class Duplicate(Configuration):
    """A row that shows the same picture as an earlier one."""

    row: int
    same_as: int


class Fingerprint(Configuration):
    """What `fingerprint.json` holds; keys may be added. Shares are of 1; spacing is in mm a pixel, down."""

    schema_version: int
    study: str
    study_hash: str
    site: str
    num_cases: int
    num_images: int
    splits: dict[str, dict[str, Counts]]  # split -> class
    images_per_case: Spread
    height: Spread
    width: Spread
    sizes: dict[str, int]  # "width x height", the most frequent ones
    mean: Spread
    deviation: Spread
    black_share: Spread
    saturated_share: Spread
    scanners: dict[str, Group]
    spacing_mm: Spread | None
    num_without_spacing: int
    duplicates: tuple[Duplicate, ...]
    rows_with_text: tuple[int, ...]
    rows_with_calipers: tuple[int, ...]
    caliper_share: dict[str, float]  # of each class's images
    text_share: dict[str, float]
    suspects: dict[str, tuple[int, ...]]  # what is suspected -> rows
    readings: dict[str, tuple[int, ...]]  # what was read otherwise than its file asks for -> rows
    num_enlarged: int  # images smaller than the model's input
    notes: tuple[str, ...]


def take_fingerprint(study: Study, site: str, records: Records) -> Fingerprint:
    """The fingerprint of what `site` holds."""
    rows, facts = records.manifest.rows, records.images.facts
    names = [class_name(study, records, row) for row in rows]
    spacings = [image.spacing_mm[0] for image in facts if image.spacing_mm]
    marked = {kind: [image.shows(kind) for image in facts] for kind in ("text", "caliper")}
    shares = {kind: _shares(names, of_kind) for kind, of_kind in marked.items()}
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        study=study.name,
        study_hash=study.study_hash,
        site=site,
        num_cases=len(records.splits),
        num_images=len(rows),
        splits=_count(study, records, names),
        images_per_case=_spread(list(Counter(row.case for row in rows).values())),
        height=_spread([image.height for image in facts]),
        width=_spread([image.width for image in facts]),
        sizes=dict(Counter(f"{image.width} x {image.height}" for image in facts).most_common(NUM_SIZES)),
        mean=_spread([image.mean for image in facts]),
        deviation=_spread([image.deviation for image in facts]),
        black_share=_spread([image.black_share for image in facts]),
        saturated_share=_spread([image.saturated_share for image in facts]),
        scanners=_group([scanner_of(row, image) for row, image in zip(rows, facts, strict=True)], facts),
        spacing_mm=_spread(spacings) if spacings else None,
        num_without_spacing=len(facts) - len(spacings),
        duplicates=tuple(
            Duplicate(row=row.number, same_as=other.number) for row, other in same_pictures(rows, records.images.digests)
        ),
        rows_with_text=_numbers(rows, marked["text"]),
        rows_with_calipers=_numbers(rows, marked["caliper"]),
        caliper_share=shares["caliper"],
        text_share=shares["text"],
        suspects={kind: _numbers(rows, found.tolist()) for kind, found in find_suspects(facts).items() if found.any()},
        readings=_readings(rows, facts),
        num_enlarged=sum(max(image.height, image.width) < records.images.images_NHW.shape[1] for image in facts),
        notes=tuple(note for kind, of_kind in marked.items() for note in _shortcut(kind, names, of_kind)),
    )


def scanner_of(row: Row, facts: ImageFacts) -> str:
    """The manifest's word for the scanner, else DICOM's maker and model, else "unknown"."""
    return row.scanner or facts.device or UNKNOWN


def class_name(study: Study, records: Records, row: Row) -> str:
    """The class of the row's case, or "unlabelled"."""
    label = records.manifest.classes[row.case]
    return study.classes[label] if label >= 0 else UNLABELLED


def _spread(values: Sequence[float]) -> Spread:
    return Spread(least=float(min(values)), median=float(np.median(values)), most=float(max(values)))


def _count(study: Study, records: Records, names: Sequence[str]) -> dict[str, dict[str, Counts]]:
    rows = records.manifest.rows
    images = Counter((records.splits[row.case], name) for row, name in zip(rows, names, strict=True))
    of_case = dict(zip((row.case for row in rows), names, strict=True))
    cases = Counter((records.splits[case], name) for case, name in of_case.items())
    shown = (*study.classes, *([UNLABELLED] if UNLABELLED in names else []))
    return {
        split: {name: Counts(num_cases=cases[split, name], num_images=images[split, name]) for name in shown} for split in SPLITS
    }


def _group(scanners: Sequence[str], facts: Sequence[ImageFacts]) -> dict[str, Group]:
    """Groups by scanner, the largest first."""
    groups = {}
    for scanner, number in Counter(scanners).most_common():
        images = [image for name, image in zip(scanners, facts, strict=True) if name == scanner]
        values = zip(*((image.mean, image.deviation, *image.percentiles) for image in images), strict=True)
        mean, deviation, low, middle, high = (round(float(np.mean(value)), 3) for value in values)
        groups[scanner] = Group(num_images=number, mean=mean, deviation=deviation, percentiles=(low, middle, high))
    return groups


def _numbers(rows: Sequence[Row], marked: Sequence[bool]) -> tuple[int, ...]:
    return tuple(sorted(row.number for row, shown in zip(rows, marked, strict=True) if shown))


def _readings(rows: Sequence[Row], facts: Sequence[ImageFacts]) -> dict[str, tuple[int, ...]]:
    notes = sorted({note for image in facts for note in image.notes})
    return {note: _numbers(rows, [note in image.notes for image in facts]) for note in notes}


def _shares(names: Sequence[str], marked: Sequence[bool]) -> dict[str, float]:
    total, shown = Counter(names), Counter(name for name, is_marked in zip(names, marked, strict=True) if is_marked)
    return {name: round(shown[name] / number, 4) for name, number in sorted(total.items())}


def _shortcut(kind: str, names: Sequence[str], marked: Sequence[bool]) -> Iterator[str]:
    """A note where one class has marks clearly more often than another one, beyond chance (chi-squared test of homogeneity)."""
    total = {name: number for name, number in Counter(names).items() if number >= LEAST_IMAGES and name != UNLABELLED}
    if len(total) < 2:
        return
    shown = np.array([sum(m for n, m in zip(names, marked, strict=True) if n == name) for name in total])
    size = np.array(list(total.values()))
    overall = shown.sum() / size.sum()
    if not 0 < overall < 1:
        return
    statistic = np.sum((shown - overall * size) ** 2 / (size * overall * (1 - overall)))
    share = dict(zip(total, shown / size, strict=True))
    most, least = max(share, key=lambda name: share[name]), min(share, key=lambda name: share[name])
    if share[most] - share[least] >= CLEAR_DIFFERENCE and chdtrc(len(total) - 1, statistic) < CHANCE:
        what = "burned-in text" if kind == "text" else "caliper marks"
        yield (
            f"suspected {what} on {share[most]:.0%} of the images of {most} and {share[least]:.0%} of {least}: "
            "a model may learn the marks instead of the tissue"
        )
