"""`client doctor`: everything about a site that can be checked before a run, a line each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from csasn.data.cases import SPLITS, SiteData, load_site_data
from csasn.model.network import image_size
from csasn.site import Site
from csasn.study import Study


def check_site(study: Study, site: Site, advance: Callable[[int, int], None] | None = None) -> list[str]:
    """Reads every row and every image of a site; lines that say what was found. Fills the image cache.

    Raises:
        CsasnError: the first thing that would keep the site from training.
    """
    data = load_site_data(study, site, image_size(study.model), advance)
    return [
        f"configuration: study {study.name} ({study.study_hash[:12]}), site {site.site}",
        f"images: {len(data.images_NHW)} of {len(data.class_C)} cases read; cache in {Path(site.state) / 'cache'}",
        *(f"{split} cases: {_counts(study, data, number)}" for number, split in enumerate(SPLITS)),
        *(f"note: {note}" for note in data.notes),
    ]


def _counts(study: Study, data: SiteData, split: int) -> str:
    classes = data.class_C[data.cases(split)]
    known = np.bincount(classes[classes >= 0], minlength=len(study.classes))
    unknown = int((classes < 0).sum())
    shown = ", ".join(f"{name} {count}" for name, count in zip(study.classes, known, strict=True))
    return shown + (f", without a label {unknown}" if unknown else "")
