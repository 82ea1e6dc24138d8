"""Checks of a site's files: configuration, and the data as training will read it.

What is said names rows of manifest.csv, never a case or an image.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from client.doctor.checks_manifest import check_cases, check_labels, check_likeness, check_splits
from client.doctor.findings import Check, Finding, judge
from client.doctor.situation import Situation
from csasn.data.cases import SPLITS, TRAIN, Records
from csasn.data.fingerprint import Fingerprint
from csasn.data.images import read_image
from csasn.data.picture import FLOW, SQUARED
from csasn.data.suspects import KINDS, find_suspects
from csasn.errors import ConfigurationError
from csasn.platform.randomness import generator
from csasn.platform.storage import private_folder, write_json
from csasn.report.fingerprint import MAX_SAMPLES, Sample, draw_fingerprint
from csasn.site import Site

MAX_ROWS = 10  # named in a line
TEXT_FIX = "see fingerprint.png, and crop or mask what may name a patient"
LEFT_OUT_FIX = "export these images again, or take their rows out of manifest.csv; training goes on without them"
READING_FIX = "compare them with a viewer"
CALIPER_FIX = "see fingerprint.png, and export these images without measurements where you can"


def check_configuration(situation: Situation) -> Finding:
    """Site file and study can be read and belong together."""
    site, study = situation.site, situation.study
    if site.site not in study.federation.sites:
        raise ConfigurationError(
            f"{site.site} is no site of study {study.name}, which has {', '.join(study.federation.sites)}", "ask the coordinator"
        )
    return Finding("ok", f"study {study.name} ({study.study_hash[:12]}), site {site.site}")


def check_images(situation: Situation) -> Finding:
    """Every image can be decoded, or so few cannot that they are left out; fills the cache."""
    private_folder(Path(situation.site.state))
    records = situation.records
    cache = Path(situation.site.state) / "cache"
    read = f"{len(records.manifest.rows)} images of {len(records.splits)} cases read; cache in {cache}"
    return judge("; ".join((read, *records.withdrew)), dict.fromkeys(records.left_out, LEFT_OUT_FIX))


def check_fingerprint(situation: Situation) -> Finding:
    """Writes fingerprint.json and fingerprint.png."""
    site, records, fingerprint = situation.site, situation.records, situation.fingerprint
    state = Path(site.state)
    write_json(state / "fingerprint.json", fingerprint.model_dump(mode="json"), 0o600)
    draw_fingerprint(fingerprint, records, _samples(site, situation.study.seed, records), state / "fingerprint.png")
    return Finding("ok", f"{state / 'fingerprint.json'}, and pictures in fingerprint.png beside it; both for this site alone")


def check_pixels(situation: Situation) -> Finding:
    """Pictures look as they should: nothing suggests that they were exported or read wrongly."""
    found = situation.fingerprint
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


def check_text(situation: Situation) -> Finding:
    """No image seems to hold burned-in text."""
    found = situation.fingerprint
    return _marks("burned-in text", found.rows_with_text, TEXT_FIX, found)


def check_calipers(situation: Situation) -> Finding:
    """No image seems to hold calipers."""
    found = situation.fingerprint
    return _marks("calipers", found.rows_with_calipers, CALIPER_FIX, found)


def num_training_units(situation: Situation) -> int:
    """What an epoch goes through: cases, or images where the study asks for all of a case, or patients where it asks for these."""
    study, splits = situation.study, situation.records.splits
    rows = [row for row in situation.records.manifest.rows if splits[row.case] == SPLITS[TRAIN]]
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


CONFIGURATION = "configuration"
DATA_CHECKS = (
    Check(CONFIGURATION, check_configuration),
    Check("labels", check_labels, (CONFIGURATION,)),
    Check("cases", check_cases, ("labels",)),
    Check("images", check_images, ("labels",)),
    Check("splits", check_splits, ("images",)),
    Check("likeness", check_likeness, ("images",)),
    Check("fingerprint", check_fingerprint, ("images",)),
    Check("pixels", check_pixels, ("images",)),
    Check("burned-in text", check_text, ("images",)),
    Check("calipers", check_calipers, ("images",)),
)
