"""What a site's processes note in its state folder, for one another and for `client status`; it stays at the site."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from csasn.errors import CsasnError, DiskFullError, KeptError, ProtocolError, StorageError, TrustError
from csasn.platform.configuration import Configuration
from csasn.platform.storage import TEMPORARY, atomic_writer, free_bytes, private_folder, write_json
from csasn.site import Site

DOING, TURN, AT_WORK, LEFT_OUT, ENDED = "doing.json", "node.json", "at-work.json", "left-out.json", "ended.json"
PRIVATE = 0o600
BLOCK = bytes(4096)
N = TypeVar("N", bound=BaseModel)


class Doing(Configuration):
    """doing.json: what the site does since `time`, in words for people; `finished` is the hash of a study that has ended, `trouble`
    whether somebody here has to mend something before the site answers."""

    doing: str
    time: float
    finished: str = ""
    trouble: bool = False


class Turn(Configuration):
    """node.json: when the coordinator answered last."""

    time: float


class AtWork(Configuration):
    """at-work.json, while the worker answers a study: what `--site` is given for that. Other studies wait for their turn."""

    called: str


class Ended(Configuration):
    """ended.json: why the client ended by itself, at `time`."""

    why: str
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


def note_doing(path: Path, doing: str, *, trouble: bool = False) -> None:
    """Notes what the worker does, or what keeps it from it."""
    note(path, Doing(doing=doing, time=time.time(), trouble=trouble))


@contextmanager
def taking_turn(site: Site) -> Iterator[None]:
    """Notes within the block that this study is the one at which the site is at work."""
    path = site.service_folder / AT_WORK
    note(path, AtWork(called=site.called))
    try:
        yield
    finally:
        forget_turn(site)


def forget_turn(site: Site) -> None:
    """Drops what a worker noted that has answered, or is gone."""
    with suppress(OSError):
        (site.service_folder / AT_WORK).unlink(missing_ok=True)


def in_turn(site: Site, line: str) -> str:
    """What the site does in a study, with the study that has its turn before, if another has it."""
    other = read_note(site.service_folder / AT_WORK, AtWork)
    return f"{line} (its turn comes after {other.called})" if other and other.called != site.called else line


def line_of(error: CsasnError) -> str:
    """What was wrong and what to do, on one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def say_trouble(error: CsasnError, state: Path) -> str:
    """What keeps a site from answering, for its people; training goes on by itself once they mended it."""
    goes_on = "training goes on by itself once"
    if isinstance(error, StorageError) and not isinstance(error, DiskFullError):
        return f"the state folder cannot be written: {error.message}; {goes_on} that is mended"
    if not isinstance(error, StorageError):
        refuses = isinstance(error, ProtocolError | TrustError) and not isinstance(error, KeptError)
        return f"no answer: {line_of(error)}" + ("" if refuses else f"; {goes_on} that is mended")
    return f"disk of the state folder is full: {error.message}, free {free_bytes(state) >> 20} MiB; {goes_on} there is room"


def find_disk_trouble(state: Path) -> str:
    """Why nothing can be written in the state folder now, not even a note; empty where that works."""
    proof = state / f"{secrets.token_hex(8)}{TEMPORARY}"
    try:
        with atomic_writer(proof, PRIVATE, sync=False) as file:
            file.write(BLOCK)
        proof.unlink(missing_ok=True)
    except StorageError as error:
        return say_trouble(type(error)(error.message.replace(proof.name, "notes"), error.hint), state)
    return ""


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
