"""Checks of a site's manifest: how the sheet was read, its cases and patients, and pictures that stand in it more than once.

What is said names rows of manifest.csv, never a case, a patient or an image.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from client.doctor.context import DoctorContext
from client.doctor.findings import Finding, judge
from csasn.data.cases import SPLITS, Records, count_training_cases
from csasn.data.manifest import MAX_FAULTS, Row
from csasn.pictures.likeness import Facts, conflicting_pairs

MEANT = "see whether this is meant"
MOST_IMAGES = 200_000  # that are compared with one another: two minutes
ENOUGH_PAIRS = 1000
LIKE_FIX = "look at both: pictures of one patient get one patient_id, a picture that is there twice goes"


def check_labels(context: DoctorContext) -> Finding:
    """Every row of manifest.csv can be read, and its labels are the study's; how the sheet was read."""
    manifest = context.manifest
    of = f" of {manifest.num_patients} patients" if manifest.has_patients else ""
    counted = f"{len(manifest.rows)} rows of {len(manifest.classes)} cases{of} in manifest.csv"
    return judge("; ".join((counted, *manifest.said)), dict.fromkeys(manifest.notes, MEANT))


def check_cases(context: DoctorContext) -> Finding:
    """There are as many training cases, of as many patients, as the site's policy asks for."""
    number, least = count_training_cases(context.study, context.site), context.site.policy.minimum_cases
    of = " patients" if context.manifest.has_patients else ""
    return Finding("ok", f"{number} labelled training cases, this site's policy asks for {least}{of}")


def check_splits(context: DoctorContext) -> Finding:
    """No picture stands in two splits or two classes; what each split holds."""
    manifest, counts = context.manifest, context.data_fingerprint.splits
    told = {
        *manifest.said,
        *manifest.notes,
        *context.records.left_out,
        *context.records.withdrew,
    }  # by the checks of labels and images
    notes = [note for note in context.data.notes if note not in told]
    shown = (
        f"{split} cases: " + ", ".join(f"{name} {of_class.num_cases}" for name, of_class in counts[split].items())
        for split in SPLITS
    )
    return judge("; ".join(shown), dict.fromkeys(notes, MEANT))


def check_likeness(context: DoctorContext) -> Finding:
    """No picture is nearly that of another patient, or that of one with another class."""
    records, manifest = context.records, context.manifest
    rows, images, who = records.manifest.rows, records.images, "patients" if manifest.has_patients else "cases"
    if len(rows) > MOST_IMAGES:
        return Finding("skipped", f"not looked for among more than {MOST_IMAGES} images")
    facts = _facts(records)
    pairs = (pair for pair in conflicting_pairs(images.images_NHW, facts) if images.digests[pair[0]] != images.digests[pair[1]])
    found = list(islice(pairs, ENOUGH_PAIRS))  # the very same pictures are told by the check of splits
    troubles = {_said(rows, facts, pair, who): LIKE_FIX for pair in found[:MAX_FAULTS]}
    if len(found) > MAX_FAULTS:
        least = "at least " if len(found) == ENOUGH_PAIRS else ""
        troubles[f"and {least}{len(found) - MAX_FAULTS} pairs more"] = ""
    return judge("" if found else f"no two {who} with nearly the same picture", troubles)


def _facts(records: Records) -> Facts:
    rows = records.manifest.rows
    patients = {patient: number for number, patient in enumerate({row.patient: None for row in rows})}
    return Facts(
        patient_N=np.array([patients[row.patient] for row in rows], np.int64),
        split_N=np.array([SPLITS.index(records.splits[row.case]) for row in rows], np.int64),
        label_N=np.array([records.manifest.classes[row.case] for row in rows], np.int64),
    )


def _said(rows: Sequence[Row], facts: Facts, pair: tuple[int, int], who: str) -> str:
    """`rows 2 and 9 show nearly the same picture: two patients, two splits`."""
    first, second = pair
    labels = facts.label_N[[first, second]]
    differ = {
        f"two {who}": facts.patient_N[first] != facts.patient_N[second],
        "two splits": facts.split_N[first] != facts.split_N[second],
        "two classes": labels.min() >= 0 and labels[0] != labels[1],
    }
    numbers = " and ".join(map(str, sorted((rows[first].number, rows[second].number))))
    return f"rows {numbers} show nearly the same picture: {', '.join(what for what, is_so in differ.items() if is_so)}"
