"""The coordinator's authority and its server's certificate: made with the folder of a study, renewed once a year."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from csasn import __version__
from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import Configuration, Sha256, read_yaml, validate, write_yaml
from csasn.platform.storage import link_atomically, new_folder, private_folder, reason_of, write_atomically, write_new
from csasn.site import Address, split_address
from csasn.study import Study
from csasn.trust.certificates import (
    authority_pem,
    certificates_alone,
    create_authority,
    create_server_certificate,
    create_server_key,
    load_authority,
)
from csasn.trust.encrypted_key import encrypt_key
from csasn.trust.enrolment import AUTHORITY, STUDY
from csasn.trust.identity import read_private
from server.run.run_directory import START

AUTHORITY_KEY, SERVER_KEY, SERVER_CERTIFICATE = "keys/ca.key", "keys/server.key", "keys/server.crt"
AUTHORITY_CERTIFICATE, BALANCER_AUTHORITY = f"keys/{AUTHORITY}", "keys/balancer.crt"
SETTINGS, PRIVATE = "coordinator.yaml", 0o600
RESTORE = "bring it back with server restore"
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]


class Settings(Configuration):
    """coordinator.yaml. `address` is where sites reach the coordinator; the server's certificate answers to it and to `names`. Of a
    `rehearsal` no model is kept."""

    address: Address
    names: tuple[HostName, ...] = ()
    study_hash: Sha256
    software_version: str
    rehearsal: bool = False

    @property
    def certificate_names(self) -> list[str]:
        """Host names and addresses that the server's certificate answers to."""
        return list(dict.fromkeys([split_address(self.address)[0], *self.names]))


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
    The study says where each branch begins (`settle`); `start` is the file of a model that it continues, `balancer` are the
    authorities (PEM) of a balancer that ends TLS.

    Raises:
        ConfigurationError: address, a name or the passphrase cannot be used, or a balancer would see what a site sends.
        TrustError: `balancer` holds no certificate.
        StorageError: the folder is there already, or cannot be written.
    """
    if balancer:
        check_behind_balancer(study)
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
        write_study(staged, study, settings, start)


def check_behind_balancer(study: Study) -> None:
    """Refuses a study of which a balancer that ends TLS would see what each site sends.

    Raises:
        ConfigurationError: it is so.
    """
    if not study.federation.secure_aggregation:
        raise ConfigurationError(
            "secure_aggregation is false in the study: who runs the balancer would see what each site sends",
            "set it true, or let nothing end TLS before the coordinator",
        )


def write_study(folder: Path, study: Study, settings: Settings, start: Path | None) -> None:
    """Writes what makes a new folder one of a study; `start` is the file of a model that it continues. Settings come last."""
    write_new(folder / STUDY, write_yaml(study).encode())
    if start is not None:
        link_atomically(start, folder / START)
    _write_settings(folder, settings)


def read_settings(folder: Path) -> Settings:
    """coordinator.yaml in a folder.

    Raises:
        ConfigurationError: it is missing, or is none.
    """
    return validate(Settings, read_yaml(folder / SETTINGS), SETTINGS)


def kit_authority(folder: Path) -> Path:
    """Whom kits have sites trust for TLS: the study's own authority, or that of the balancer."""
    balancer = folder / BALANCER_AUTHORITY
    return balancer if balancer.exists() else folder / AUTHORITY_CERTIFICATE


def renew_certificate(
    folder: Path, before: Settings, passphrase: str, address: str | None = None, names: Sequence[str] | None = None
) -> Settings:
    """A new server certificate of the same authority, at another address or other names where they are given; the settings then.

    The server's key stays: a certificate and its key are two files, and a crash between two renamings would leave none that work.

    Raises:
        ConfigurationError: address or a name cannot be used.
        TrustError: the passphrase is wrong, or a key is missing or open to others.
    """
    changes = {"address": address or before.address, "names": before.names if names is None else tuple(names)}
    settings = validate(Settings, before.model_dump(mode="json") | changes, SETTINGS)
    authority = load_authority(read_private(folder / AUTHORITY_KEY, RESTORE), read_file(folder / AUTHORITY_CERTIFICATE), passphrase)
    certificate = create_server_certificate(authority, read_private(folder / SERVER_KEY, RESTORE), settings.certificate_names)
    write_atomically(folder / SERVER_CERTIFICATE, certificate)
    _write_settings(folder, settings)
    return settings


def read_file(path: Path) -> bytes:
    """A file of the folder.

    Raises:
        TrustError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(f"cannot read {path}: {reason_of(error)}", RESTORE) from None


def _write_settings(folder: Path, settings: Settings) -> None:
    write_atomically(folder / SETTINGS, write_yaml(settings).encode())
