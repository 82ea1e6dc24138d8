"""Checks of a site's files: configuration, and the data as training will read it.

What is said names rows of manifest.csv, never a case or an image.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from client.doctor.checks_manifest import check_cases, check_labels, check_likeness, check_splits
from client.doctor.context import DoctorContext
from client.doctor.findings import Check, Finding, judge
from client.trust.enrolment import check_is_site
from csasn.data.cases import SPLITS, TRAIN, Records
from csasn.data.fingerprint import Fingerprint
from csasn.errors import StorageError
from csasn.pictures.images import read_image
from csasn.pictures.picture import FLOW, SQUARED
from csasn.pictures.suspects import KINDS, find_suspects
from csasn.platform.command import user_name
from csasn.platform.randomness import generator
from csasn.platform.storage import private_folder, rights_of, write_json
from csasn.report.fingerprint import MAX_SAMPLES, Sample, draw_fingerprint
from csasn.site import Site

MAX_ROWS = 10  # named in a line
TEXT_FIX = "see fingerprint.png, and crop or mask what may name a patient"
LEFT_OUT_FIX = "export these images again, or take their rows out of manifest.csv; training goes on without them"
READING_FIX = "compare them with a viewer"
CALIPER_FIX = "see fingerprint.png, and export these images without measurements where you can"


def check_configuration(context: DoctorContext) -> Finding:
    """Site file and study can be read and belong together."""
    site, study = context.site, context.study
    check_is_site(site, study)
    return Finding("ok", f"study {study.name} ({study.study_hash[:12]}), site {site.site}")


def check_state(context: DoctorContext) -> Finding:
    """The state folder is there, or can be made, and is this user's."""
    folder, user = Path(context.site.state), user_name(os.geteuid())
    there = next(one for one in (folder, *folder.parents) if os.path.exists(one))  # none that may not be seen
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        mend = f"chown -R {user} {folder}" if there == folder else f"install -d -o {user} -m 0700 {folder}"
        fix = f"run this as the service's own user, such as runuser -u csasn -- COMMAND; or as root: {mend}"
        raise StorageError(f"{folder} is not for user {user}: {rights_of(there)}", fix)
    return Finding("ok", f"{private_folder(folder)}, for user {user} alone")


def check_images(context: DoctorContext) -> Finding:
    """Every image can be decoded, or so few cannot that they are left out; fills the cache."""
    records = context.records
    cache = Path(context.site.state) / "cache"
    read = f"{len(records.manifest.rows)} images of {len(records.splits)} cases read; cache in {cache}"
    return judge("; ".join((read, *records.withdrew)), dict.fromkeys(records.left_out, LEFT_OUT_FIX))


def check_fingerprint(context: DoctorContext) -> Finding:
    """Writes fingerprint.json and fingerprint.png."""
    site, records, fingerprint = context.site, context.records, context.data_fingerprint
    state = Path(site.state)
    write_json(state / "fingerprint.json", fingerprint.model_dump(mode="json"), 0o600)
    draw_fingerprint(fingerprint, records, _samples(site, context.study.seed, records), state / "fingerprint.png")
    return Finding("ok", f"{state / 'fingerprint.json'}, and pictures in fingerprint.png beside it; both for this site alone")


def check_pixels(context: DoctorContext) -> Finding:
    """Pictures look as they should: nothing suggests that they were exported or read wrongly."""
    found = context.data_fingerprint
    troubles = {f"{_rows(rows)} suspected: {kind}": KINDS[kind] for kind, rows in found.suspects.items()}
    said = {f"{_rows(rows)}: {note}": READING_FIX for note, rows in found.readings.items() if note not in (SQUARED, FLOW)}
    squared = found.readings.get(SQUARED, ())
    message = [
        f"{len(squared)} images had pixels that are not square, and were resampled" if squared else "",
        f"{found.num_enlarged} of {found.num_images} images ({found.num_enlarged / found.num_images:.0%}) are smaller than the "
        "model's input and are enlarged (policy.min_image_px refuses them)" if found.num_enlarged else "",
    ]  # fmt: skip
    usual = "" if troubles or said else "nothing suspected"
    finding = judge("; ".join(filter(None, message)) or usual, {**troubles, **said})
    return replace(finding, fix=f"see fingerprint.png: {finding.fix}") if troubles else finding


def check_text(context: DoctorContext) -> Finding:
    """No image seems to hold burned-in text."""
    found = context.data_fingerprint
    return _marks("burned-in text", found.rows_with_text, TEXT_FIX, found)


def check_calipers(context: DoctorContext) -> Finding:
    """No image seems to hold calipers."""
    found = context.data_fingerprint
    return _marks("calipers", found.rows_with_calipers, CALIPER_FIX, found)


def num_training_units(context: DoctorContext) -> int:
    """What an epoch goes through: cases, or images where the study asks for all of a case, or patients where it asks for these."""
    study, splits = context.study, context.records.splits
    rows = [row for row in context.records.manifest.rows if splits[row.case] == SPLITS[TRAIN]]
    if study.images_per_case == "all":
        return len(rows)
    return len({row.patient if study.unit == "patient" else row.case for row in rows})


def _marks(what: str, rows: Sequence[int], fix: str, fingerprint: Fingerprint) -> Finding:
    if not rows:
        return Finding("ok", "none suspected")
    word = what.removesuffix("s")  # "caliper marks" in the fingerprint's notes
    notes = {note: fix for note in fingerprint.notes if note.startswith(f"suspected {word}")}
    return judge("", {f"{_shown(rows)} suspected {what}": fix, **notes})


def _samples(site: Site, seed: int, records: Records) -> list[Sample]:
    """Images to look at, read again: some of each suspicion in turn, and of text and calipers; any, where nothing is suspected."""
    rows, facts = records.manifest.rows, records.images.facts
    order = generator(seed, "fingerprint", site.site).permutation(len(rows)).tolist()
    groups = {kind: [place for place in order if found[place]] for kind, found in find_suspects(facts).items()}
    groups |= {kind: [place for place in order if facts[place].shows(kind)] for kind in ("text", "caliper")}
    chosen = _in_turn(list(groups.values()))[:MAX_SAMPLES] or order[:MAX_SAMPLES]
    return [
        Sample(
            rows[place].number,
            read_image(Path(site.images) / rows[place].image, rows[place].frame).pixels_HW,
            facts[place].marks,
            tuple(kind for kind in KINDS if place in groups[kind]),
        )
        for place in sorted(chosen, key=lambda place: rows[place].number)
    ]


def _in_turn(groups: Sequence[Sequence[int]]) -> list[int]:
    """The first of each group, then the second of each, ..., each once."""
    return list(dict.fromkeys(place for turn in zip_longest(*groups) for place in turn if place is not None))


def _shown(rows: Sequence[int]) -> str:
    return f"{_rows(rows)} show" if len(rows) > 1 else f"{_rows(rows)} shows"


def _rows(rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:MAX_ROWS]))
    more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
    return f"rows {listed}{more}" if len(rows) > 1 else f"row {listed}"


CONFIGURATION, STATE = "configuration", "state folder"
DATA_CHECKS = (
    Check(CONFIGURATION, check_configuration),
    Check(STATE, check_state, (CONFIGURATION,)),
    Check("labels", check_labels, (CONFIGURATION,)),
    Check("cases", check_cases, (STATE, "labels")),
    Check("images", check_images, (STATE, "labels")),
    Check("splits", check_splits, ("images",)),
    Check("likeness", check_likeness, ("images",)),
    Check("fingerprint", check_fingerprint, ("images",)),
    Check("pixels", check_pixels, ("images",)),
    Check("burned-in text", check_text, ("images",)),
    Check("calipers", check_calipers, ("images",)),
)
