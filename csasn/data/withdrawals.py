"""Patients who withdrew: nothing that the manifest says of them is in a training, a cache or a count from then on.

`withdrawn.json` in the site's state (0600), one list for all its studies, names them by keyed hashes (csasn/trust/pseudonyms.py),
so that it finds them in a manifest of patient numbers as in an imported one. Their rows still take part in splitting, so that no
other case moves.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Self

from pydantic import ValidationError

from csasn.errors import KeptError, StorageError, TrustError
from csasn.platform.configuration import Configuration
from csasn.platform.locks import open_locked
from csasn.platform.storage import private_folder, reason_of, write_json
from csasn.site import Site
from csasn.trust.pseudonyms import Pseudonyms, load_pseudonyms

WITHDRAWN_FILE, LOCK, PRIVATE = "withdrawn.json", "withdrawn.lock", 0o600
BRING_BACK = "bring it back with client restore: without it this site does not know whose cases it may not use"


class Withdrawal(Configuration):
    """One patient, by the hash of what the hospital calls them; `time` in UTC."""

    patient: str
    time: str
    why: str

    @property
    def sha256(self) -> str:
        """What ledger lines about it have in common; of a keyed hash, so that nobody can try patient numbers."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class _Contents(Configuration):
    key_mark: str
    withdrawals: tuple[Withdrawal, ...]


@dataclass(frozen=True)
class Withdrawn:
    """The withdrawals of a site, in their order, and the hashes that find them."""

    withdrawals: tuple[Withdrawal, ...] = ()
    _hashes: Pseudonyms | None = field(default=None, repr=False)

    @classmethod
    def of(cls, site: Site) -> Self:
        """Those of `site`; none where nobody withdrew.

        Raises:
            TrustError: the list is damaged, or its key is not there or another one.
        """
        try:
            contents = _Contents.model_validate_json((site.service_folder / WITHDRAWN_FILE).read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError):
            raise KeptError(f"{WITHDRAWN_FILE} is damaged, or may not be read", BRING_BACK) from None
        hashes = load_pseudonyms(site.keys_folder, make=False)
        if hashes.mark != contents.key_mark:
            raise TrustError(f"{WITHDRAWN_FILE} was written with another import.key", BRING_BACK)
        return cls(contents.withdrawals, hashes)

    def find(self, name: str) -> Withdrawal | None:
        """The withdrawal of who is called so, in the manifest or by the hospital."""
        if self._hashes is None:
            return None
        return self._by_hash.get(name) or self._by_hash.get(self._hashes.patient(name))

    @cached_property
    def _by_hash(self) -> Mapping[str, Withdrawal]:
        return {withdrawal.patient: withdrawal for withdrawal in self.withdrawals}

    def among(self, patients: Mapping[str, str]) -> frozenset[str]:
        """Who of `patients` (by case id) withdrew: by their own name, or by a case's, from when the manifest named cases alone."""
        if not self.withdrawals:
            return frozenset()
        withdrew = {name for name in {*patients, *patients.values()} if self.find(name)}
        return frozenset(patient for case, patient in patients.items() if case in withdrew or patient in withdrew)


def withdraw(site: Site, patient: str, why: str) -> Withdrawal:
    """Puts a patient on the list, by what the hospital or the manifest calls them.

    Raises:
        TrustError: see `Withdrawn.of`.
        StorageError: the list cannot be written.
    """
    state = private_folder(site.service_folder)
    try:
        lock = open_locked(state / LOCK)  # two at once would each write a list without the other's patient
    except OSError as error:
        raise StorageError(f"cannot lock the list of withdrawals: {reason_of(error)}", "see who owns the state folder") from None
    try:
        before, hashes = Withdrawn.of(site), load_pseudonyms(site.keys_folder)
        new = Withdrawal(patient=hashes.patient(patient), time=datetime.now(UTC).isoformat(timespec="seconds"), why=why)
        contents = _Contents(key_mark=hashes.mark, withdrawals=(*before.withdrawals, new))
        write_json(state / WITHDRAWN_FILE, contents.model_dump(mode="json"), PRIVATE)
    finally:
        os.close(lock)
    return new


def withdrawals_stamp(site: Site) -> int:
    """Changes with each withdrawal; 0 where there is none."""
    try:
        return (site.service_folder / WITHDRAWN_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
