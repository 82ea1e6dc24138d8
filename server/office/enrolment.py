"""The coordinator's folder: who is enrolled, their kits, the membership and who approved it.

    coordinator.yaml  study.yaml     where the coordinator is; the study, in the bytes that every site gets
    keys/                            ca.key (under a passphrase), ca.crt, server.key, server.crt; balancer.crt where one ends TLS
    sites/  left/  revoked.json      requests taken; of sites that left; keys that are never accepted again
    kits/  approvals/                what goes to the sites, and what came back
    membership.json                  proposed when every site of the study is enrolled, or left

What a command writes follows from `sites/` and `revoked.json`, so that one that was cut short is simply run again.
"""

import dataclasses
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import Configuration, read_yaml, validate
from csasn.platform.storage import (
    atomic_writer,
    private_folder,
    write_atomically,
    write_json,
)
from csasn.study import MIN_SECURE_SITES, Name, Study, read_study
from csasn.trust.enrolment import AUTHORITY, KIT, STUDY, Enrolment, EnrolmentRequest, make_kit, read_request
from csasn.trust.membership import Approval, Member, Membership, check_number, read_approval, share_weights, verify_approval
from server.office.authority import (
    BALANCER_AUTHORITY,
    PRIVATE,
    SETTINGS,
    Settings,
    kit_authority,
    read_file,
    renew_certificate,
)

MEMBERSHIP, REVOKED = "membership.json", "revoked.json"
NAME = "is the name right?"


class Revocations(Configuration):
    """revoked.json."""

    keys: dict[str, Name]


@dataclasses.dataclass(frozen=True)
class Enrolments:
    """An open coordinator's folder: `settings` and `study` are read once, who is enrolled each time it is asked."""

    folder: Path
    settings: Settings
    study: Study

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The folder that `initialise` made.

        Raises:
            ConfigurationError: there is none, or its study is another than it began with.
        """
        if not (folder / SETTINGS).exists():
            raise ConfigurationError(f"{folder} is no coordinator's folder", "make one with server init, or name it with --folder")
        settings, study = validate(Settings, read_yaml(folder / SETTINGS), SETTINGS), read_study(folder / STUDY)
        if study.study_hash != settings.study_hash:
            raise ConfigurationError(
                f"{folder / STUDY} is study {study.study_hash[:12]}, this folder was made for {settings.study_hash[:12]}",
                "put the old file back; another study wants a folder of its own, by server init",
            )
        return cls(folder, settings, study)

    @property
    def roster(self) -> list[str]:
        """The sites that the study names, then those that joined it, by name."""
        named = self.study.federation.sites
        return [*named, *sorted({file.stem for file in (self.folder / "sites").glob("*.json")} - set(named))]

    def sites(self) -> dict[str, Enrolment]:
        """Sites whose keys are accepted, in roster order."""
        revoked = self.revoked_keys().keys()
        files = {site: self._request_file(site) for site in self.roster}
        taken = {site: _read_enrolment(file, file.stat().st_mtime_ns) for site, file in files.items() if file.exists()}
        return {site: enrolment for site, enrolment in taken.items() if not enrolment.keys & revoked}

    def revoked_keys(self) -> dict[str, str]:
        """Keys that are never accepted again, identities and node keys alike, and whose they were."""
        path = self.folder / REVOKED
        return validate(Revocations, read_yaml(path), REVOKED).keys if path.exists() else {}

    def waiting_for(self) -> list[str]:
        """Sites of the study that have yet to enrol; one that left or was revoked is not waited for."""
        settled = {*self.sites(), *self.revoked_keys().values(), *(file.stem for file in (self.folder / "left").glob("*.json"))}
        return [site for site in self.study.federation.sites if site not in settled]

    def membership(self) -> Membership | None:
        """The membership that follows from who is enrolled; None while a site is awaited or too few are left."""
        return None if self.waiting_for() else self.membership_of(self.sites())

    def membership_of(self, sites: Mapping[str, Enrolment]) -> Membership | None:
        """The membership of these sites; None where they are too few."""
        federation = self.study.federation
        if len(sites) < (MIN_SECURE_SITES if federation.secure_aggregation else federation.min_sites):
            return None
        units = share_weights({site: enrolment.num_training_cases for site, enrolment in sites.items()})
        members = tuple(
            Member(site=site, weight_units=units[site], identity=enrolment.identity, node_key=enrolment.node_key)
            for site, enrolment in sites.items()
        )
        return Membership(study_hash=self.study.study_hash, members=members)

    def approvals(self) -> list[Approval]:
        """The approvals of the current membership; those of earlier ones are left out."""
        if (membership := self.membership()) is None:
            return []
        files = [self._approval_file(site) for site in membership.sites]
        approvals = [read_approval(file) for file in files if file.exists()]
        return [approval for approval in approvals if approval.membership_hash == membership.membership_hash]

    def check(self, request: EnrolmentRequest, *, replace: bool = False, join: bool = False) -> None:
        """Refuses a request that this study cannot take; `replace` lets a site come with a new identity, `join` one that the study
        does not name.

        Raises:
            TrustError: it is of another study, of no site of it, or with keys that are revoked, another site's, or new.
            ConfigurationError: it is one site more than the study can have.
        """
        asked, study = request.enrolment, self.study
        if asked.study_hash != study.study_hash:
            raise TrustError(
                f"{asked.site} asks for study {asked.study_hash[:12]}, this is {study.study_hash[:12]}",
                f"send {self.folder / STUDY} to {asked.site}, and have client enroll run with it",
            )
        if asked.site not in self.roster and not join:
            raise TrustError(
                f"{asked.site} is no site of this study, which has {', '.join(self.roster)}",
                f"is the name right? if {asked.site} shall join the study, give --join",
            )
        check_number(study, len(self.sites().keys() | {asked.site}))
        if asked.keys & self.revoked_keys().keys():
            raise TrustError(f"{asked.site} asks with a key that is revoked", f"{asked.site} makes new keys with client keygen")
        for site, known in self.sites().items():
            if site != asked.site and asked.keys & known.keys:
                raise TrustError(f"{asked.site} asks with a key of {site}", "each site makes its own with client keygen")
            if site == asked.site and asked.identity != known.identity and not replace:
                raise TrustError(
                    f"{site} is enrolled with another identity, fingerprint {known.fingerprint}",
                    "ask the site whether it made new ones; if so, give --replace, which revokes the old ones",
                )

    def enroll(self, request: EnrolmentRequest, *, replace: bool = False, join: bool = False) -> Path:
        """Takes a request whose fingerprint the caller has compared; the site's kit, a zip file.

        Raises:
            TrustError: see `check`.
        """
        self.check(request, replace=replace, join=join)
        asked = request.enrolment
        if before := self.sites().get(asked.site):
            self._revoke(asked.site, before.keys - asked.keys)
        private_folder(self.folder / "sites")
        write_json(self._request_file(asked.site), request.model_dump(mode="json"), PRIVATE)
        self._left_file(asked.site).unlink(missing_ok=True)
        kit = self._write_kit(asked.site)
        self.propose()
        return kit

    def revoke(self, site: str) -> None:
        """Accepts a site's keys no longer, and proposes the membership without it, until it enrols with new ones.

        Raises:
            TrustError: the site is not enrolled.
        """
        self._revoke(site, self._require_enrolled(site).keys)
        self.propose()

    def leave(self, site: str) -> None:
        """Goes on without a site, whose keys are good: it may enrol again with them. The membership without it is proposed.

        Raises:
            TrustError: the site is not enrolled.
        """
        self._require_enrolled(site)
        private_folder(self.folder / "left")
        self._request_file(site).rename(self._left_file(site))
        self.propose()

    def propose(self) -> None:
        """Writes the current membership to membership.json; where there is none, the file goes."""
        if (membership := self.membership()) is None:
            (self.folder / MEMBERSHIP).unlink(missing_ok=True)
        else:
            write_json(self.folder / MEMBERSHIP, membership.model_dump(mode="json"))

    def record(self, approval: Approval) -> None:
        """Keeps a site's approval of the current membership.

        Raises:
            TrustError: there is none, or the approval does not hold for it.
        """
        if (membership := self.membership()) is None:
            raise TrustError("no membership is proposed yet", f"first these enrol: {', '.join(self.waiting_for()) or 'more sites'}")
        verify_approval(membership, approval)
        private_folder(self.folder / "approvals")
        write_json(self._approval_file(approval.site), approval.model_dump(mode="json"))

    def renew(self, passphrase: str, address: str | None = None, names: Sequence[str] | None = None) -> None:
        """A new server certificate of the same authority, so that kits stay good; at a new address, kits with it are written too.

        Raises:
            ConfigurationError, TrustError: see `renew_certificate`.
        """
        moved = dataclasses.replace(self, settings=renew_certificate(self.folder, self.settings, passphrase, address, names))
        for site in moved.sites():
            moved._write_kit(site)

    def _require_enrolled(self, site: str) -> Enrolment:
        if site not in (sites := self.sites()):
            raise TrustError(f"{site} is not enrolled, those who are: {', '.join(sites) or 'none'}", NAME)
        return sites[site]

    def _revoke(self, site: str, keys: Collection[str]) -> None:
        write_json(self.folder / REVOKED, {"keys": self.revoked_keys() | dict.fromkeys(sorted(keys), site)})

    def _write_kit(self, site: str) -> Path:
        authority = kit_authority(self.folder)
        files = {AUTHORITY: read_file(authority), STUDY: read_file(self.folder / STUDY)}
        balanced = authority == self.folder / BALANCER_AUTHORITY
        kit = make_kit(site, self.settings.address, self.settings.study_hash, files, behind_balancer=balanced)
        files[KIT] = json.dumps(kit.model_dump(mode="json"), indent=1).encode() + b"\n"
        place = self.folder / "kits" / site
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(place / name, content)
        path = place.with_name(f"{site}.kit.zip")
        with atomic_writer(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980: the same kit is the same file
        return path

    def _request_file(self, site: str) -> Path:
        return self.folder / "sites" / f"{site}.json"

    def _left_file(self, site: str) -> Path:
        return self.folder / "left" / f"{site}.json"

    def _approval_file(self, site: str) -> Path:
        return self.folder / "approvals" / f"{site}.json"


@lru_cache(maxsize=64)
def _read_enrolment(file: Path, changed_ns: int) -> Enrolment:  # noqa: ARG001 - what tells old from new
    """Its signature is verified once, and not each time that somebody asks who is enrolled."""
    return read_request(file).enrolment
