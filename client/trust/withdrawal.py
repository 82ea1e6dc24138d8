"""A patient who withdraws: the list, the ledger, and what holds or shows their images."""

import re
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from csasn.data.cache import forget_images
from csasn.data.manifest import read_manifest
from csasn.data.withdrawals import Withdrawn, withdraw
from csasn.errors import ConfigurationError, DataError, StorageError
from csasn.platform.storage import private_folder
from csasn.privacy.ledger import LEDGER_FILE, Ledger, Occasion
from csasn.site import Site
from csasn.study import Study
from csasn.trust.pseudonyms import load_pseudonyms

CACHE = "cache"
PAGES = ("fingerprint.png", "report")  # in the state folder: what shows patients' images, and can be made again
NOT_THERE = "is it written as in the list that was imported, or in column patient_id (case_id where there is none)?"


@dataclass(frozen=True)
class Done:
    """How much of manifest.csv is of a patient; `anew` unless they had withdrawn before; how many images were in the cache until
    now; pages that are gone, since they may have shown one."""

    rows: int
    cases: int
    anew: bool
    cached: int
    pages: tuple[str, ...]


def withdraw_patient(site: Site, study: Study, patient: str, why: str) -> Done:
    """Takes a patient out of all that this site does, from the next question on that it begins to work on.

    Cut short by a crash, it can be done again.

    Raises:
        ConfigurationError: `why` is empty, or names the patient.
        DataError: manifest.csv is at fault, or no row is of this patient.
        TrustError: the list of withdrawals, or its key, is not what it was.
        LedgerError, StorageError: something cannot be written.
    """
    if not why.strip() or re.search(rf"(?<!\w){re.escape(patient)}(?!\w)", why, re.IGNORECASE):
        raise ConfigurationError("the reason is empty, or names the patient", "say for example --why 'consent withdrawn by letter'")
    manifest = read_manifest(Path(site.manifest), study, site.labels)
    names = {patient, load_pseudonyms(site.keys_folder).patient(patient)}.intersection(manifest.patients.values())
    if not names:
        raise DataError("no row of manifest.csv is of this patient", NOT_THERE)
    before = Withdrawn.of(site)
    known = next((found for name in sorted(names) if (found := before.find(name))), None)
    withdrawal = known or withdraw(site, patient, why)
    ledger = Ledger(private_folder(site.run_folder) / LEDGER_FILE)
    if not ledger.has_withdrawal(withdrawal.sha256):
        ledger.note_withdrawal(withdrawal.sha256, Occasion(kind=""), why)
    rows = [row for row in manifest.rows if row.patient in names]
    return Done(
        rows=len(rows),
        cases=len({row.case for row in rows}),
        anew=known is None,
        cached=forget_images(Path(site.state) / CACHE, [row.name for row in rows]),
        pages=tuple(name for name in PAGES if _remove(Path(site.state) / name)),
    )


def _remove(path: Path) -> bool:
    """Whether there was something to remove."""
    try:
        if path.is_dir():
            rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError:
        raise StorageError(f"cannot remove {path}, which may show images of the patient", "remove it by hand") from None
    return True
