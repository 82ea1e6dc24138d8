"""The tables of a survey at one site: every case once in each (csasn/data/survey_tables.py)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from csasn.data import survey_tables as t
from csasn.data.cases import SPLITS, Records
from csasn.data.manifest import Row
from csasn.measures.blocks import Integers
from csasn.pictures.picture_facts import ImageFacts
from csasn.study import Study

Image = tuple[Row, ImageFacts]


def count_survey(study: Study, records: Records) -> dict[str, Integers]:
    """The tables of what a site holds, as it is: nothing is hidden yet."""
    images_C = _images_of_cases(records)
    num_cases, num_patients = len(images_C), records.manifest.num_patients
    tables = {
        t.CASES: np.array([num_cases]),
        t.PATIENTS: np.array([num_patients, num_cases - num_patients]),
        t.CLASSES: _classes(study, records),
        t.SCANNERS: _count((t.MAKERS.index(_maker(images)) for images in images_C), len(t.MAKERS)),
        t.SIZES: _count_bins([min(max(facts.height, facts.width) for _, facts in images) for images in images_C], t.SIZE_EDGES_PX),
        t.IMAGES: _count_bins([len(images) for images in images_C], t.IMAGE_EDGES),
    }
    if study.descriptors:
        tables[t.LABELS] = np.stack([_labels(task, images_C) for task in study.descriptors])
    return {name: counts.astype(np.int64) for name, counts in tables.items()}


def _images_of_cases(records: Records) -> list[list[Image]]:
    images = defaultdict(list)
    for row, facts in zip(records.manifest.rows, records.images.facts, strict=True):
        images[row.case].append((row, facts))
    return list(images.values())


def _classes(study: Study, records: Records) -> Integers:
    """(S, K + 1) cases by split and class, those without one last."""
    width = len(study.classes) + 1
    cells = (SPLITS.index(split) * width + records.manifest.classes[case] % width for case, split in records.splits.items())
    return _count(cells, len(SPLITS) * width).reshape(len(SPLITS), width)


def _labels(task: str, images_C: Sequence[Sequence[Image]]) -> Integers:
    """(2,) cases with a label of a task, and without."""
    with_label = sum(any(task in row.labels for row, _ in images) for images in images_C)
    return np.array([with_label, len(images_C) - with_label])


def _maker(images: Sequence[Image]) -> str:
    """The maker of a case's images, as far as it is known: by the manifest's word for the scanner, else by DICOM's."""
    makers = {t.maker_of(row.scanner or facts.device) for row, facts in images} - {t.UNKNOWN}
    return t.SEVERAL if len(makers) > 1 else makers.pop() if makers else t.UNKNOWN


def _count_bins(values: Sequence[int], edges: Sequence[int]) -> Integers:
    return _count(np.searchsorted(edges, values, side="right"), len(edges) + 1)


def _count(cells: Iterable[int], num_cells: int) -> Integers:
    return np.bincount(np.fromiter(cells, np.int64), minlength=num_cells)
