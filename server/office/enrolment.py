"""The coordinator's folder: authority, server certificate, the sites enrolled, their kits, the membership and who approved it.

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
from typing import Annotated, Self

from pydantic import Field

from csasn import __version__
from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import Configuration, read_yaml, validate, write_yaml
from csasn.platform.storage import (
    atomic_writer,
    link_atomically,
    new_folder,
    private_folder,
    reason_of,
    write_atomically,
    write_json,
    write_new,
)
from csasn.site import Address, split_address
from csasn.study import MIN_SECURE_SITES, Name, Sha256, Study, read_study
from csasn.trust.certificates import (
    authority_pem,
    certificates_alone,
    create_authority,
    create_server_certificate,
    create_server_key,
    load_authority,
)
from csasn.trust.encrypted_key import encrypt_key
from csasn.trust.enrolment import AUTHORITY, KIT, STUDY, Enrolment, EnrolmentRequest, make_kit, read_request
from csasn.trust.identity import read_private
from csasn.trust.membership import Approval, Member, Membership, check_number, read_approval, share_weights, verify_approval
from server.run.run_directory import START

AUTHORITY_KEY, SERVER_KEY, SERVER_CERTIFICATE = "keys/ca.key", "keys/server.key", "keys/server.crt"
AUTHORITY_CERTIFICATE, BALANCER_AUTHORITY = f"keys/{AUTHORITY}", "keys/balancer.crt"
SETTINGS, MEMBERSHIP, REVOKED = "coordinator.yaml", "membership.json", "revoked.json"
PRIVATE = 0o600
RESTORE, NAME = "bring it back with server restore", "is the name right?"


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]


class Settings(Configuration):
    """coordinator.yaml. `address` is where sites reach the coordinator; the server's certificate answers to it and to `names`."""

    address: Address
    names: tuple[HostName, ...] = ()
    study_hash: Sha256
    software_version: str

    @property
    def certificate_names(self) -> list[str]:
        """Host names and addresses that the server's certificate answers to."""
        return list(dict.fromkeys([split_address(self.address)[0], *self.names]))


class Revocations(Configuration):
    """revoked.json."""

    keys: dict[str, Name]


def initialise(
    folder: Path,
    study: Study,
    address: str,
    names: Sequence[str],
    passphrase: str,
    *,
    start: Path | None = None,
    balancer: bytes = b"",
) -> None:
    """Makes the folder of a study, or a survey: its authority, whose key `passphrase` closes, and the server's key and certificate.
    The study says where each branch begins (`settle_weights`); `start` is the file of a model that it continues, `balancer` are the
    authorities (PEM) of a balancer that ends TLS.

    Raises:
        ConfigurationError: address, a name or the passphrase cannot be used, or a balancer would see what a site sends.
        TrustError: `balancer` holds no certificate.
        StorageError: the folder is there already, or cannot be written.
    """
    if balancer and not study.federation.secure_aggregation:
        raise ConfigurationError(
            "secure_aggregation is false in the study: who runs the balancer would see what each site sends",
            "set it true, or let nothing end TLS before the coordinator",
        )
    trusted = certificates_alone(balancer) if balancer else b""
    facts: dict[str, object] = {"address": address, "names": list(names)}
    facts |= {"study_hash": study.study_hash, "software_version": __version__}
    settings = validate(Settings, facts, "server init")
    authority = create_authority(study.name)
    encrypted, server_key = encrypt_key(authority.key, passphrase), create_server_key()
    certificate = create_server_certificate(authority, server_key, settings.certificate_names)
    with new_folder(folder) as staged:
        private_folder(staged / "keys")
        write_new(staged / AUTHORITY_KEY, encrypted, PRIVATE)
        write_new(staged / SERVER_KEY, server_key, PRIVATE)
        write_new(staged / AUTHORITY_CERTIFICATE, authority_pem(authority))
        write_new(staged / SERVER_CERTIFICATE, certificate)
        if trusted:
            write_new(staged / BALANCER_AUTHORITY, trusted)
        write_new(staged / STUDY, write_yaml(study).encode())
        if start is not None:
            link_atomically(start, staged / START)
        _write_settings(staged, settings)


def kit_authority(folder: Path) -> Path:
    """Whom kits have sites trust for TLS: the study's own authority, or that of the balancer."""
    balancer = folder / BALANCER_AUTHORITY
    return balancer if balancer.exists() else folder / AUTHORITY_CERTIFICATE


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

        The server's key stays: a certificate and its key are two files, and a crash between two renamings would leave none that
        work.

        Raises:
            ConfigurationError: address or a name cannot be used.
            TrustError: the passphrase is wrong, or a key is missing or open to others.
        """
        changes = {"address": address or self.settings.address, "names": self.settings.names if names is None else tuple(names)}
        settings = validate(Settings, self.settings.model_dump(mode="json") | changes, SETTINGS)
        authority = load_authority(
            read_private(self.folder / AUTHORITY_KEY, RESTORE), _read(self.folder / AUTHORITY_CERTIFICATE), passphrase
        )
        server_key = read_private(self.folder / SERVER_KEY, RESTORE)
        certificate = create_server_certificate(authority, server_key, settings.certificate_names)
        write_atomically(self.folder / SERVER_CERTIFICATE, certificate)
        _write_settings(self.folder, settings)
        moved = dataclasses.replace(self, settings=settings)
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
        files = {AUTHORITY: _read(authority), STUDY: _read(self.folder / STUDY)}
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(f"cannot read {path}: {reason_of(error)}", RESTORE) from None


@lru_cache(maxsize=64)
def _read_enrolment(file: Path, changed_ns: int) -> Enrolment:  # noqa: ARG001 - what tells old from new
    """Its signature is verified once, and not each time that somebody asks who is enrolled."""
    return read_request(file).enrolment


def _write_settings(folder: Path, settings: Settings) -> None:
    write_atomically(folder / SETTINGS, write_yaml(settings).encode())
