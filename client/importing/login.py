"""How an archive is reached: its address, the authority of its certificate, and its login."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from csasn.errors import ConfigurationError
from csasn.trust.login import BASIC, read_login

VARIABLE = "CSASN_ARCHIVE_LOGIN"
BEARER = "Bearer "
_ADDRESS = "such as https://pacs.hospital.example/dicom-web"
_FORM = (f"Bearer [!-~]+|{BASIC}", "one line, NAME:PASSWORD or Bearer TOKEN")


@dataclass(frozen=True)
class Access:
    """The base address of an archive's DICOMweb; `ca` is a file of certificates, None for those that the system's Python trusts;
    `login` is NAME:PASSWORD, "Bearer TOKEN", or empty."""

    url: str
    ca: Path | None = None
    login: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The archive as people are told of it: host and port."""
        return urlsplit(self.url).netloc


def read_access(url: str, ca: Path | None, login_file: Path | None, environment: Mapping[str, str]) -> Access:
    """The access that a command line asks for; the login is in a file that only its owner may read, or in the environment.

    Raises:
        ConfigurationError: the address is none, holds a login or would show one to others; the login has another form.
        TrustError: the login's file cannot be read, or others may read it.
    """
    try:
        place = urlsplit(url)
        good = place.scheme in ("http", "https") and bool(place.hostname) and not (place.query or place.fragment)
        _ = place.port
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError("--dicomweb is no address of an archive", _ADDRESS)
    if "@" in place.netloc:
        raise ConfigurationError(
            "--dicomweb holds a login, which others on this machine could read", f"use --login FILE, {_FORM[1]}"
        )
    login = read_login("the archive's", _FORM, login_file, VARIABLE, environment)
    if login and place.scheme == "http" and not _is_here(place.hostname or ""):
        raise ConfigurationError("over http:// everybody on the way could read the archive's login", "use its https:// address")
    if ca and not ca.is_file():
        raise ConfigurationError(f"there is no certificate file {ca}", "give --ca the hospital's CA certificate, in PEM")
    return Access(url.rstrip("/"), ca, login)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
