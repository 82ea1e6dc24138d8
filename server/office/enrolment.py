"""The coordinator's folder: who is enrolled, their kits, the membership and who approved it.

    coordinator.yaml  study.yaml     where the coordinator is; the study, in the bytes that every site gets
    keys/                            ca.key (under a passphrase), ca.crt, server.key, server.crt; balancer.crt where one ends TLS
    sites/  left/  revoked.json      requests taken; of sites that left; keys that are never accepted again
    kits/  approvals/                what goes to the sites, and what came back
    membership.json                  proposed when every site of the study is enrolled, or left
    studies/NAME/                    a further study: the same but for keys/ and revoked.json, which hold for all

What a command writes follows from `sites/` and `revoked.json`, so that one that was cut short is simply run again.
"""

import dataclasses
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import Field

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
    read_settings,
    renew_certificate,
)

MEMBERSHIP, REVOKED, STUDIES = "membership.json", "revoked.json", "studies"
NAME = "is the name right?"


class Revocations(Configuration):
    """revoked.json: keys that are never accepted again, identities and node keys alike, and whose they were; and which node key an
    identity has made in the place of an older one."""

    keys: dict[str, Name] = Field(default_factory=dict)
    renewed: dict[str, str] = Field(default_factory=dict)


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
        settings, study = read_settings(folder), read_study(folder / STUDY)
        if study.study_hash != settings.study_hash:
            raise ConfigurationError(
                f"{folder / STUDY} is study {study.study_hash[:12]}, this folder was made for {settings.study_hash[:12]}",
                "put the old file back; for another study: server study, or server init where it shares nothing with this one",
            )
        opened = cls(folder, settings, study)
        if opened.office == folder:
            return opened
        first = read_settings(opened.office)
        return cls(folder, settings.model_copy(update={"address": first.address, "names": first.names}), study)

    @property
    def office(self) -> Path:
        """The coordinator's folder, whose address, keys and revocations hold for each of its studies."""
        above = (self.folder if self.folder.parent.name else self.folder.absolute()).parent.parent
        is_further = self.folder.absolute().parent.name == STUDIES and (above / SETTINGS).exists()
        return above if is_further else self.folder

    def all_studies(self) -> "list[Enrolments]":
        """The studies of the coordinator, the first one before the further ones."""
        return [self if folder == self.folder else Enrolments.open(folder) for folder in study_folders(self.office)]

    @property
    def roster(self) -> list[str]:
        """The sites that the study names, then those that joined it, by name."""
        named = self.study.federation.sites
        return [*named, *sorted({file.stem for file in (self.folder / "sites").glob("*.json")} - set(named))]

    def sites(self) -> dict[str, Enrolment]:
        """Sites whose keys are accepted, in roster order."""
        revoked = self.revoked()
        files = {site: self.request_file(site) for site in self.roster}
        taken = {site: _read_enrolment(file, file.stat().st_mtime_ns) for site, file in files.items() if file.exists()}
        newest = {site: _with_newest_key(enrolment, revoked.renewed) for site, enrolment in taken.items()}
        return {site: enrolment for site, enrolment in newest.items() if not enrolment.keys & revoked.keys.keys()}

    def everybody(self) -> dict[str, Enrolment]:
        """Sites whose keys are accepted in any of the coordinator's studies; a name is one hospital's in all of them."""
        found = [each.sites() for each in self.all_studies()]
        return {site: enrolment for sites in reversed([*found, self.sites()]) for site, enrolment in sites.items()}

    def revoked(self) -> Revocations:
        """What holds of keys in all studies."""
        path = self.office / REVOKED
        return validate(Revocations, read_yaml(path), REVOKED) if path.exists() else Revocations()

    def waiting_for(self) -> list[str]:
        """Sites of the study that have yet to enrol; one that left or was revoked is not waited for."""
        settled = {*self.sites(), *self.revoked().keys.values(), *(file.stem for file in (self.folder / "left").glob("*.json"))}
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
        if asked.keys & self.revoked().keys.keys():
            raise TrustError(f"{asked.site} asks with a key that is revoked", f"{asked.site} makes new keys with client keygen")
        for site, known in self.everybody().items():
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
        before = self.everybody().get(asked.site)
        private_folder(self.folder / "sites")
        write_json(self.request_file(asked.site), request.model_dump(mode="json"), PRIVATE)
        self._left_file(asked.site).unlink(missing_ok=True)
        if before:
            renewed = before.identity == asked.identity and before.node_key != asked.node_key
            self._revoke(asked.site, before.keys - asked.keys, {before.node_key: asked.node_key} if renewed else None)
        kit = self.write_kit(asked.site)
        self.propose()
        return kit

    def revoke(self, site: str) -> None:
        """Accepts a site's keys no longer, and proposes the membership without it, until it enrols with new ones.

        Raises:
            TrustError: the site is not enrolled.
        """
        self._revoke(site, self._require_enrolled(site).keys)

    def leave(self, site: str) -> None:
        """Goes on without a site, whose keys are good: it may enrol again with them. The membership without it is proposed.

        Raises:
            TrustError: the site is not enrolled.
        """
        self._require_enrolled(site)
        private_folder(self.folder / "left")
        self.request_file(site).rename(self._left_file(site))
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
        renew_certificate(self.office, read_settings(self.office), passphrase, address, names)
        for each in Enrolments.open(self.office).all_studies():
            for site in each.sites():
                each.write_kit(site)

    def _require_enrolled(self, site: str) -> Enrolment:
        if site not in (sites := self.sites()):
            raise TrustError(f"{site} is not enrolled, those who are: {', '.join(sites) or 'none'}", NAME)
        return sites[site]

    def _revoke(self, site: str, keys: Collection[str], renewed: dict[str, str] | None = None) -> None:
        """Accepts these keys of a site no longer, in any study; what follows of it is proposed."""
        before = self.revoked()
        after = Revocations(keys=before.keys | dict.fromkeys(sorted(keys), site), renewed=before.renewed | (renewed or {}))
        write_json(self.office / REVOKED, after.model_dump(mode="json"))
        for each in self.all_studies():
            each.propose()

    def write_kit(self, site: str) -> Path:
        """The kit of a site, a zip file."""
        authority = kit_authority(self.office)
        files = {AUTHORITY: read_file(authority), STUDY: read_file(self.folder / STUDY)}
        balanced = authority == self.office / BALANCER_AUTHORITY
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

    def request_file(self, site: str) -> Path:
        """Where the request of an enrolled site is."""
        return self.folder / "sites" / f"{site}.json"

    def _left_file(self, site: str) -> Path:
        return self.folder / "left" / f"{site}.json"

    def _approval_file(self, site: str) -> Path:
        return self.folder / "approvals" / f"{site}.json"


def study_folders(office: Path) -> list[Path]:
    """The folders of a coordinator's studies, the first one before the further ones; none that is still being made."""
    further = (file.parent for file in (office / STUDIES).glob(f"*/{SETTINGS}"))
    return [office, *sorted(folder for folder in further if not folder.name.startswith("."))]


def _with_newest_key(enrolment: Enrolment, renewed: Mapping[str, str]) -> Enrolment:
    """A node key that was renewed in one study is renewed in all."""
    newest = enrolment.node_key
    while newest in renewed:
        newest = renewed[newest]
    return enrolment if newest == enrolment.node_key else enrolment.model_copy(update={"node_key": newest})


@lru_cache(maxsize=64)
def _read_enrolment(file: Path, changed_ns: int) -> Enrolment:  # noqa: ARG001 - what tells old from new
    """Its signature is verified once, and not each time that somebody asks who is enrolled."""
    return read_request(file).enrolment
