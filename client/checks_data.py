"""Checks of a site's files: configuration, and the data as training will read it.

What is said names rows of manifest.csv, never a case or an image.
"""

from collections.abc import Sequence
from pathlib import Path

from client.checks_manifest import check_cases, check_labels, check_likeness, check_splits
from client.findings import Check, Finding, judge
from client.situation import Situation
from csasn.data.cases import SPLITS, TRAIN, Records
from csasn.data.fingerprint import Fingerprint
from csasn.data.images import read_image
from csasn.errors import ConfigurationError
from csasn.randomness import generator
from csasn.report.fingerprint import MAX_SAMPLES, Sample, draw_fingerprint
from csasn.site import Site
from csasn.storage import private_folder, write_json

MAX_ROWS = 10  # named in a line
TEXT_FIX = "see fingerprint.png, and crop or mask what may name a patient"
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
    """Every image can be decoded; fills the cache."""
    private_folder(Path(situation.site.state))
    records = situation.records
    cache = Path(situation.site.state) / "cache"
    return Finding("ok", f"{len(records.manifest.rows)} images of {len(records.splits)} cases read; cache in {cache}")


def check_fingerprint(situation: Situation) -> Finding:
    """Writes fingerprint.json and fingerprint.png."""
    site, records, fingerprint = situation.site, situation.records, situation.fingerprint
    state = Path(site.state)
    write_json(state / "fingerprint.json", fingerprint.model_dump(mode="json"), 0o600)
    draw_fingerprint(fingerprint, records, _samples(site, situation.study.seed, records), state / "fingerprint.png")
    return Finding("ok", f"{state / 'fingerprint.json'}, and pictures in fingerprint.png beside it; both for this site alone")


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
    """Images to look at, read again: half of those with suspected text, half with calipers; any, where nothing is suspected."""
    rows, facts = records.manifest.rows, records.images.facts
    order = generator(seed, "fingerprint", site.site).permutation(len(rows)).tolist()
    texts = [place for place in order if facts[place].shows("text")]
    calipers = [place for place in order if facts[place].shows("caliper") and place not in set(texts)]
    num_texts = max(MAX_SAMPLES // 2, MAX_SAMPLES - len(calipers))
    chosen = (texts[:num_texts] + calipers)[:MAX_SAMPLES] or order[:MAX_SAMPLES]
    return [
        Sample(
            rows[place].number, read_image(Path(site.images) / rows[place].image, rows[place].frame).pixels_HW, facts[place].marks
        )
        for place in sorted(chosen, key=lambda place: rows[place].number)
    ]


def _shown(rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:MAX_ROWS]))
    more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
    return f"rows {listed}{more} show" if len(rows) > 1 else f"row {listed} shows"


CONFIGURATION = "configuration"
DATA_CHECKS = (
    Check(CONFIGURATION, check_configuration),
    Check("labels", check_labels, (CONFIGURATION,)),
    Check("cases", check_cases, ("labels",)),
    Check("images", check_images, ("labels",)),
    Check("splits", check_splits, ("images",)),
    Check("likeness", check_likeness, ("images",)),
    Check("fingerprint", check_fingerprint, ("images",)),
    Check("burned-in text", check_text, ("images",)),
    Check("calipers", check_calipers, ("images",)),
)
