"""What a site's processes note in its state folder, for one another and for `client status`; it stays at the site."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from csasn.errors import StorageError
from csasn.platform.configuration import Configuration
from csasn.platform.storage import private_folder, write_json
from csasn.site import Site

DOING, TURN, LEFT_OUT, PRIVATE = "doing.json", "node.json", "left-out.json", 0o600
N = TypeVar("N", bound=BaseModel)


class Doing(Configuration):
    """doing.json: what the site does since `time`, in words for people; `finished` is the hash of a study that has ended."""

    doing: str
    time: float
    finished: str = ""


class Turn(Configuration):
    """node.json: when the coordinator answered last."""

    time: float


class LeftOut(RootModel[tuple[str, ...]]):
    """left-out.json: which rows of manifest.csv are left out, since their images cannot be read."""

    model_config = ConfigDict(frozen=True)


def read_note(path: Path, kind: type[N]) -> N | None:
    """What a process of this site noted; nothing where it did not yet, or what it wrote is damaged.

    Raises:
        PermissionError: this user may not read it, which is no word on whether it is there.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except PermissionError:
        raise
    except (OSError, ValidationError):
        return None


def note(path: Path, said: BaseModel) -> None:
    """Writes a note. On a full disk it goes missing: whoever keeps what matters says so."""
    with suppress(StorageError):
        write_json(path, said.model_dump(mode="json", exclude_defaults=True), PRIVATE)


def note_doing(path: Path, doing: str) -> None:
    """Notes what the worker does."""
    note(path, Doing(doing=doing, time=time.time()))


def keep_left_out(site: Site, notes: Sequence[str]) -> None:
    """Keeps `notes` on what is left out in place of those before.

    Raises:
        StorageError: they cannot be written.
    """
    path = private_folder(Path(site.state)) / LEFT_OUT
    if notes:
        write_json(path, list(notes), PRIVATE)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        raise StorageError(f"cannot remove {LEFT_OUT}", "see who owns the state folder") from None


def read_left_out(site: Site) -> tuple[str, ...]:
    """The notes on what is left out; none where nothing is, or nothing was read yet.

    Raises:
        PermissionError: this user may not read them.
    """
    kept = read_note(Path(site.state) / LEFT_OUT, LeftOut)
    return kept.root if kept else ()
