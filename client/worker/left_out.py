"""What a site leaves out, kept for `client status`: rows of manifest.csv whose images cannot be read. It stays at the site."""

import json
from collections.abc import Sequence
from pathlib import Path

from csasn.errors import StorageError
from csasn.platform.storage import private_folder, write_json
from csasn.site import Site

NOTES = "left-out.json"


def keep_left_out(site: Site, notes: Sequence[str]) -> None:
    """Keeps `notes` in place of those before.

    Raises:
        StorageError: they cannot be written.
    """
    path = private_folder(Path(site.state)) / NOTES
    if notes:
        write_json(path, list(notes), 0o600)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        raise StorageError(f"cannot remove {NOTES}", "see who owns the state folder") from None


def read_left_out(site: Site) -> list[str]:
    """The notes; none where nothing is left out, or nothing was read yet.

    Raises:
        PermissionError: this user may not read them.
    """
    try:
        notes = json.loads((Path(site.state) / NOTES).read_bytes())
    except PermissionError:
        raise
    except (OSError, ValueError):
        return []
    return [str(note) for note in notes] if isinstance(notes, list) else []
