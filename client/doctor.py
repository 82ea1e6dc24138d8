"""`client doctor`: everything about a site that can be checked before a run, a line each; and the fingerprint of its data."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from csasn.data.cases import SPLITS, Records, SiteData, load_records, site_data
from csasn.data.fingerprint import Fingerprint, take_fingerprint
from csasn.data.images import read_image
from csasn.model.network import image_size
from csasn.randomness import generator
from csasn.report.fingerprint import MAX_SAMPLES, Sample, draw_fingerprint
from csasn.site import Site
from csasn.storage import write_json
from csasn.study import Study

MAX_ROWS = 10  # named in a line


def check_site(study: Study, site: Site, advance: Callable[[int, int], None] | None = None) -> list[str]:
    """Reads every row and every image of a site; lines that say what was found. Fills the image cache, writes the fingerprint.

    Raises:
        CsasnError: the first thing that would keep the site from training.
    """
    records = load_records(study, site, image_size(study.model), advance)
    data = site_data(study, records)
    fingerprint = take_fingerprint(study, site.site, records)
    state = Path(site.state)
    write_json(state / "fingerprint.json", fingerprint.model_dump(mode="json"), 0o600)
    draw_fingerprint(fingerprint, records, _samples(site, study.seed, records), state / "fingerprint.png")
    return [
        f"configuration: study {study.name} ({study.study_hash[:12]}), site {site.site}",
        f"images: {len(data.images_NHW)} of {len(data.class_C)} cases read; cache in {state / 'cache'}",
        *(f"{split} cases: {_counts(study, data, number)}" for number, split in enumerate(SPLITS)),
        f"fingerprint: {state / 'fingerprint.json'}; pictures in fingerprint.png beside it, both for this site alone",
        *(f"note: {note}" for note in (*data.notes, *fingerprint.notes, *_mark_notes(fingerprint))),
    ]


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


def _mark_notes(fingerprint: Fingerprint) -> list[str]:
    found = {
        "burned-in text: see fingerprint.png, and crop or mask what may name a patient": fingerprint.rows_with_text,
        "calipers: see fingerprint.png, and export these images without measurements where you can": fingerprint.rows_with_calipers,
    }
    return [f"{_shown(rows)} suspected {what}" for what, rows in found.items() if rows]


def _shown(rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:MAX_ROWS]))
    more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
    return f"rows {listed}{more} show" if len(rows) > 1 else f"row {listed} shows"


def _counts(study: Study, data: SiteData, split: int) -> str:
    classes = data.class_C[data.cases(split)]
    known = np.bincount(classes[classes >= 0], minlength=len(study.classes))
    unknown = int((classes < 0).sum())
    shown = ", ".join(f"{name} {count}" for name, count in zip(study.classes, known, strict=True))
    return shown + (f", without a label {unknown}" if unknown else "")
