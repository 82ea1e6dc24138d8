"""The data set of a site: letterboxed images, and the labels, split and case of each.

Axes: N images, sorted by case and name; C cases, sorted by case id, so that the order of the manifest does not matter.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from csasn.data.cache import Advance, Images, Source, load_images
from csasn.data.faults import MAX_FAULTS, Fault, data_error
from csasn.data.image_files import find_images
from csasn.data.left_out import Tolerance, describe_left_out, keep_rows, leave_out
from csasn.data.manifest import Manifest, Row, read_manifest
from csasn.data.manifest_file import manifest_stamp
from csasn.data.split import SPLITS, TEST, TRAIN, VALIDATION, split_patients
from csasn.data.withdrawals import Withdrawal, Withdrawn
from csasn.errors import DataError
from csasn.pictures.images import require_size
from csasn.site import Site
from csasn.study import MALIGNANCY, SUBTYPE, Study

__all__ = [
    "SPLITS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Records",
    "SiteData",
    "Views",
    "count_training_cases",
    "load_records",
    "load_site_data",
    "site_data",
]


@dataclass(frozen=True)
class Views:
    """Changed versions of the T training images, `num` of each: that of image n is row places_N[n] + T * view."""

    images_MHW: np.ndarray  # uint8 (num * T, size, size)
    maps_M: Mapping[str, np.ndarray]  # float16 (num * T, C, h, w) of frozen branches
    places_N: np.ndarray  # int64, -1 where the image does not train
    num: int

    def draw(self, indices: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Rows of one view of each of these images (B,)."""
        return np.asarray(self.places_N[indices] + len(self.images_MHW) // self.num * random.integers(self.num, size=len(indices)))


@dataclass(frozen=True)
class SiteData:
    """A site's images and labels. `notes` are things worth saying to the site; they name rows, never a case."""

    images_NHW: np.ndarray  # uint8 (N, size, size), letterboxed, memory-mapped
    case_N: np.ndarray  # int64, index of the image's case; ascending
    labels_N: Mapping[str, np.ndarray]  # task -> int64, -1 where missing
    split_C: np.ndarray  # int8: TRAIN, VALIDATION or TEST
    class_C: np.ndarray  # int64, -1 where missing
    notes: tuple[str, ...]
    maps_N: Mapping[str, np.ndarray] = field(default_factory=dict)  # float32 (N, C, h, w) of frozen branches, where known
    views: Views | None = None
    left_out_32: np.ndarray = field(default_factory=partial(np.zeros, (3, 2), np.int64))  # as `count_used`, of unreadable images
    patient_C: np.ndarray | None = None  # int64, index of the case's patient; None where a case is a patient

    def cases(self, split: int) -> np.ndarray:
        """Indices of the cases of a split (TRAIN, VALIDATION or TEST), ascending."""
        return np.flatnonzero(self.split_C == split)

    def patients_of(self, cases: np.ndarray) -> np.ndarray:
        """The patient (index) of each of `cases`."""
        return cases if self.patient_C is None else self.patient_C[cases]

    def images_of(self, case: int) -> np.ndarray:
        """Indices of the images of a case, ascending; never empty."""
        return np.arange(self._starts[case], self._starts[case + 1])

    def count_used(self) -> np.ndarray:
        """Cases and images of each split, int64 (3, 2)."""
        numbers = [np.bincount(split, minlength=len(SPLITS)) for split in (self.split_C, self.split_C[self.case_N])]
        return np.stack(numbers, axis=1).astype(np.int64)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.case_N, np.arange(len(self.split_C) + 1))


@dataclass(frozen=True)
class Records:
    """A site's manifest, the split of each case (sorted by case id), and its images in the order of the manifest's rows.

    None of the three holds what cannot be read; `left_out_32` counts cases and images of each split that are left out for that. Nor
    do they hold what is of patients who withdrew.
    """

    manifest: Manifest
    splits: Mapping[str, str] = field(repr=False)
    images: Images
    left_out_32: np.ndarray
    notes: tuple[str, ...] = ()  # on where the images are
    withdrawals: tuple[Withdrawal, ...] = ()  # all that are in effect
    withdrew: tuple[str, ...] = ()  # a note of how much of the manifest is left out for that

    @property
    def left_out(self) -> tuple[str, ...]:
        """Notes of what is left out: rows and why, no case and no image."""
        return describe_left_out(self.images.faults, self.left_out_32)


def load_site_data(study: Study, site: Site, image_size: int, advance: Advance | None = None) -> SiteData:
    """The data set of `site`: `site_data` of its `load_records`, whose errors it raises."""
    return site_data(study, load_records(study, site, image_size, advance))


def load_records(study: Study, site: Site, image_size: int, advance: Advance | None = None) -> Records:
    """What `site` holds, in squares of `image_size` pixels; images come from the site's cache where they did not change.

    `advance(done, total)` is called as images become ready.

    Raises:
        AwayError: they cannot be reached now.
        DataError: manifest or too many images are at fault, or there are too few training cases.
        StorageError: the cache cannot be written.
    """
    root = Path(site.images)
    manifest_stamp(Path(site.manifest))
    listed = _list_cases(study, site)
    paths, misnamed, notes = find_images(root, listed.manifest.rows)
    rows = zip(listed.manifest.rows, paths, misnamed, strict=True)
    sources = [Source(row.number, path, row.frame, row.name, fault) for row, path, fault in rows]
    tolerance = Tolerance(site.policy.max_unreadable_share, root)
    images = load_images(Path(site.state) / "cache", sources, image_size, tolerance, advance)
    manifest, splits, left_out_32 = leave_out(listed.manifest, listed.splits, images.readable)
    _require_sizes(manifest, images, site.policy.min_image_px)
    _require_cases(manifest, splits, site, " with a readable image" if images.faults else "")
    return Records(manifest, splits, images, left_out_32, notes, listed.withdrawals, listed.withdrew)


def _require_sizes(manifest: Manifest, images: Images, least: int | None) -> None:
    """Refuses pictures that are smaller than the site's policy wants."""
    faults = []
    for row, facts in zip(manifest.rows, images.facts, strict=True):
        try:
            require_size(facts.height, facts.width, least)
        except DataError as error:
            faults.append(Fault(row.number, "image", error.message, error.hint))
    if faults:
        raise data_error(faults)


def site_data(study: Study, records: Records) -> SiteData:
    """The data set that training sees.

    Raises:
        DataError: two cases of different splits, or with different labels, hold the same picture.
    """
    manifest, splits, images = records.manifest, records.splits, records.images
    notes = [*manifest.said, *manifest.notes, *records.notes, *records.withdrew]
    notes += [*_split_notes(study, manifest, splits), *_duplicate_notes(manifest, splits, images), *records.left_out]
    ids = list(splits)
    index = {case: number for number, case in enumerate(ids)}
    patients = {patient: number for number, patient in enumerate(sorted(set(manifest.patients.values())))}
    return SiteData(
        images_NHW=images.images_NHW,
        case_N=np.array([index[row.case] for row in manifest.rows], np.int64),
        labels_N={task: _labels(task, study, manifest) for task in study.tasks},
        split_C=np.array([SPLITS.index(splits[case]) for case in ids], np.int8),
        class_C=np.array([manifest.classes[case] for case in ids], np.int64),
        notes=tuple(notes),
        left_out_32=records.left_out_32,
        patient_C=np.array([patients[manifest.patients[case]] for case in ids], np.int64) if manifest.has_patients else None,
    )


def count_training_cases(study: Study, site: Site) -> int:
    """Number of training cases of `site` that carry a label for some task, from manifest.csv alone: no image is read.

    Raises:
        DataError: the manifest is at fault, or there are too few training cases.
    """
    listed = _list_cases(study, site)
    return len(_training_cases(listed.manifest, listed.splits))


@dataclass(frozen=True)
class _Listed:
    """The manifest and the split of each case, cases sorted, without patients who withdrew; `withdrew` is a note of them."""

    manifest: Manifest
    splits: Mapping[str, str] = field(repr=False)
    withdrawals: tuple[Withdrawal, ...]
    withdrew: tuple[str, ...]


def _list_cases(study: Study, site: Site) -> _Listed:
    """What there is before any image is read. Where the manifest names splits, a case that names none trains.

    The policy's `minimum_cases` is asked of patients, since it is for their sake.
    """
    manifest = read_manifest(Path(site.manifest), study, site.labels)
    splits = dict(manifest.splits)
    if any(splits.values()):
        splits = {case: split or SPLITS[TRAIN] for case, split in splits.items()}
    else:
        splits = split_patients(manifest.classes, manifest.patients, study.split, study.seed, site.site)
    withdrawn, num_rows = Withdrawn.of(site), len(manifest.rows)
    note: tuple[str, ...] = ()
    if gone := withdrawn.among(manifest.patients):
        manifest, splits = keep_rows(manifest, splits, [row for row in manifest.rows if row.patient not in gone])
        note = (f"{num_rows - len(manifest.rows)} rows are left out, of {len(gone)} who withdrew",)
    _require_cases(manifest, splits, site)
    return _Listed(manifest, {case: splits[case] for case in sorted(splits)}, withdrawn.withdrawals, note)


def _require_cases(manifest: Manifest, splits: Mapping[str, str], site: Site, which: str = "") -> None:
    cases, least = _training_cases(manifest, splits), site.policy.minimum_cases
    if (number := len({manifest.patients[case] for case in cases})) < least:
        of = f" of {number} patients" if manifest.has_patients else ""
        what = f"{len(cases)} labelled training cases{of}{which}" if cases else f"no labelled training case{which}"
        expected = f"{least} patients" if manifest.has_patients else least
        hint = "add cases, or see minimum_cases in the site file"
        raise DataError(f"manifest.csv has {what}, expected at least {expected}", hint)


def _training_cases(manifest: Manifest, splits: Mapping[str, str]) -> set[str]:
    """Those with a label for some task."""
    labelled = {row.case for row in manifest.rows if row.labels or manifest.classes[row.case] >= 0}
    return {case for case in labelled if splits[case] == SPLITS[TRAIN]}


def _labels(task: str, study: Study, manifest: Manifest) -> np.ndarray:
    """Labels of one task, int64 (N); -1 where missing."""
    if task not in (SUBTYPE, MALIGNANCY):
        return np.array([row.labels.get(task, -1) for row in manifest.rows], np.int64)
    class_N = np.array([manifest.classes[row.case] for row in manifest.rows], np.int64)
    if task == SUBTYPE:
        return class_N
    return np.where(class_N < 0, -1, np.isin(class_N, study.malignant_classes)).astype(np.int64)


def _split_notes(study: Study, manifest: Manifest, splits: Mapping[str, str]) -> Iterator[str]:
    present = Counter((splits[case], label) for case, label in manifest.classes.items())
    for split in SPLITS if study.split.test or "test" in splits.values() else SPLITS[:TEST]:
        word = "training" if split == SPLITS[TRAIN] else split
        yield from (f"no {word} case of {name}" for label, name in enumerate(study.classes) if not present[split, label])
    if num_unlabelled := sum(present[split, -1] for split in SPLITS):
        yield f"cases without a class: {num_unlabelled}"
    unnamed = sum(not split for split in manifest.splits.values())
    if 0 < unnamed < len(splits):
        yield f"cases without a split, where others name one, so that they train: {unnamed}"


def same_pictures(rows: Sequence[Row], digests: Sequence[str]) -> Iterator[tuple[Row, Row]]:
    """Each row that shows the same picture as an earlier one, and the first that does."""
    first: dict[str, Row] = {}
    for row, digest in sorted(zip(rows, digests, strict=True), key=lambda pair: pair[0].number):
        if (other := first.setdefault(digest, row)) is not row:
            yield row, other


def _duplicate_notes(manifest: Manifest, splits: Mapping[str, str], images: Images) -> list[str]:
    """Notes on rows that hold the same picture.

    Raises:
        DataError: two cases of different splits, or with different labels, hold the same picture.
    """
    notes: list[str] = []
    faults: list[Fault] = []
    for row, other in same_pictures(manifest.rows, images.digests):
        same = f"shows the same picture as row {other.number}"
        if problem := _conflict(row, other, manifest, splits):
            faults.append(Fault(row.number, "image", f"{same}, {problem}", "remove one of them"))
        else:
            whose = "the same case" if row.case == other.case else "another case"
            whose = "another patient" if manifest.has_patients and row.patient != other.patient else whose
            notes.append(f"row {row.number} {same} of {whose}")
    if faults:
        raise data_error(faults)
    more = len(notes) - MAX_FAULTS
    return notes if more <= 0 else [*notes[:MAX_FAULTS], f"rows that show the same picture as another, beyond these ten: {more}"]


def _conflict(row: Row, other: Row, manifest: Manifest, splits: Mapping[str, str]) -> str:
    """Why two rows with the same picture cannot both be right, or nothing."""
    if row.case == other.case:
        return ""
    if splits[row.case] != splits[other.case]:
        return "of a case in another split"
    classes: Sequence[int] = (manifest.classes[row.case], manifest.classes[other.case])
    if min(classes) >= 0 and classes[0] != classes[1]:
        return "of a case of another class"
    different = [task for task, value in row.labels.items() if other.labels.get(task, value) != value]
    return f"of a case with another {different[0]}" if different else ""
