"""Whether a site's manifest.csv is the one that was read: by time and size, or by its content."""

from pathlib import Path

from csasn.platform.share import require_folder, unreadable
from csasn.platform.storage import file_sha256


def manifest_stamp(manifest: Path) -> tuple[int, int]:
    """Time and size of manifest.csv, which change where it was changed; zeros where its folder is there without it.

    Raises:
        AwayError: its folder is away.
        DataError: this account may not read it.
    """
    require_folder(manifest.parent, "the folder of manifest.csv")
    try:
        status = manifest.stat()
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise unreadable(error, "manifest.csv", manifest) from None
    return status.st_mtime_ns, status.st_size


def manifest_sha256(manifest: Path) -> str:
    """SHA-256 (hex) of manifest.csv.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return file_sha256(manifest)
    except OSError as error:
        raise unreadable(error, "manifest.csv", manifest) from None
