"""What a result depends on beside its study: the code, and the sites' data. Each becomes a short hash."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import csasn
from csasn import __version__
from csasn.errors import DataError
from csasn.site import Site

PACKAGES = ("csasn", "server", "client")
LENGTH = 12


@lru_cache
def code_version() -> str:
    """The version, and a hash of all our Python files, so that whatever changes is seen; whether it matters, the bits tell."""
    root = Path(csasn.__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:LENGTH]}"


def data_hash(sites: Mapping[str, Site]) -> str:
    """Of manifests, and of names and sizes of pictures, in the order of the sites.

    Raises:
        DataError: a manifest or a folder of images cannot be read.
    """
    digest = hashlib.sha256()
    for name, site in sites.items():
        try:
            manifest = hashlib.sha256(Path(site.manifest).read_bytes()).hexdigest()
            files = sorted((path.name, path.stat().st_size) for path in Path(site.images).iterdir() if path.is_file())
        except OSError as error:
            raise DataError(
                f"{name}: manifest.csv or the folder of images cannot be read: {str(error.strerror).lower()}",
                "is it where the site file says, or has the phantom to be drawn first?",
            ) from error
        digest.update(f"{name}\n{manifest}\n{files}\n".encode())
    return digest.hexdigest()[:LENGTH]
