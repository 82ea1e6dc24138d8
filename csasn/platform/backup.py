"""Backup of folders as one tar file (0600), and back, for the owner alone: links and whatever is no plain file left out.

Keys lie in it as they lie on disk; keep it as you keep them.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from csasn.errors import StorageError
from csasn.platform.storage import TEMPORARY, atomic_writer, file_sha256, new_folder, reason_of

MODE, FOLDER_MODE = 0o600, 0o700
HASHES = "sha256.json"


def write_backup(path: Path, folders: Mapping[str, Path], leave_out: Collection[Path] = ()) -> int:
    """Writes the files of `folders` (name in the archive -> folder) to `path`; the number of files.

    A folder that lies within another is kept under its own name alone. Hashes of all files come last, so that a backup that was cut
    short is known for one.

    Raises:
        StorageError: nothing is there to back up, some of it cannot be read, or the backup cannot be written.
    """
    skipped = {*(place.resolve() for place in leave_out), *(place.resolve() for place in folders.values()), path.resolve()}
    hashes: dict[str, str] = {}
    with atomic_writer(path, MODE) as file, tarfile.open(fileobj=file, mode="w", dereference=True) as archive:
        # two names of one file, such as a run's newest and best checkpoint, are two files in it
        for name, folder in folders.items():
            with _reading(name):
                places = list(_walk(folder, skipped))
            for place in places:
                kept = str(PurePosixPath(name, place.relative_to(folder).as_posix()))
                if place.is_dir():
                    archive.add(place, kept, recursive=False)
                    continue
                with _open(place, kept) as source:
                    hashed = _Hashed(source, kept)
                    archive.addfile(archive.gettarinfo(arcname=kept, fileobj=source), hashed)
                hashes[kept] = hashed.sha256.hexdigest()
        if not hashes:
            raise StorageError("there is nothing to back up", "see --help for which folders are meant")
        content = json.dumps(hashes).encode()
        last = tarfile.TarInfo(HASHES)
        last.size = len(content)
        archive.addfile(last, io.BytesIO(content))
    return len(hashes)


def restore_backup(path: Path, folders: Mapping[str, Path]) -> int:
    """Brings back what `write_backup` wrote, whole or not at all; the number of files. Nothing is overwritten.

    Raises:
        StorageError: it is no whole backup of these folders, or one of them is there and not empty.
    """
    try:
        with tarfile.open(path, "r:") as archive, ExitStack() as stack:
            *members, last = archive.getmembers()
            hashes = _read_hashes(path, archive, last)
            _check(path, members, folders, hashes)
            staged = _stage(folders, stack)
            for member in members:
                name, *rest = PurePosixPath(kept := member.name).parts
                member.name = str(PurePosixPath(*rest)) if rest else "."
                member.mode = FOLDER_MODE if member.isdir() else MODE  # whatever the archive says
                _extract(archive, member, staged[name])
                if member.isfile() and file_sha256(staged[name] / member.name) != hashes[kept]:
                    raise _damaged(path)
            for folder in staged.values():
                _close(folder)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(path) from error
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {reason_of(error)}", "check the path") from error
    return len(hashes)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """`_check` has seen to it that `member` is a plain file or folder below `folder`; early Python 3.11 knows no filters."""
    if hasattr(tarfile, "tar_filter"):
        archive.extract(member, folder, filter="tar")
    else:
        archive.extract(member, folder)


def _close(folder: Path) -> None:
    """Closes to others the folders in `folder` that the archive did not name, which were made on the way to what is in them."""
    for place in folder.rglob("*/"):
        place.chmod(FOLDER_MODE)


@contextmanager
def _reading(kept: str) -> Iterator[None]:
    """What goes wrong in the block is a fault of what is backed up, which the writer of the archive would take for its own."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {kept} to back it up: {reason_of(error)}", "run it as the service's own user") from None


def _open(place: Path, kept: str) -> BinaryIO:
    with _reading(kept):
        return place.open("rb")


class _Hashed:
    """A file that is hashed as it is read; `kept` is its name in the archive."""

    def __init__(self, file: BinaryIO, kept: str) -> None:
        self._file, self._kept = file, kept
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        with _reading(self._kept):
            data = self._file.read(size)
        self.sha256.update(data)
        return data


def _read_hashes(path: Path, archive: tarfile.TarFile, last: tarfile.TarInfo) -> dict[str, str]:
    file = archive.extractfile(last) if last.name == HASHES and last.isfile() else None
    hashes = json.load(file) if file else None
    if not isinstance(hashes, dict):
        raise _damaged(path)
    return hashes


def _damaged(path: Path) -> StorageError:
    return StorageError(f"{path.name} is damaged, cut short, or no backup", "take another copy of it")


def _walk(folder: Path, skipped: Collection[Path]) -> Iterator[Path]:
    """`folder` and what lies in it, folders before their content, in order."""
    if not folder.is_dir():
        return
    yield folder
    for place in sorted(folder.iterdir()):
        if place.is_symlink() or place.name.endswith(TEMPORARY) or place.resolve() in skipped:
            continue
        if place.is_dir():
            yield from _walk(place, skipped)
        elif place.is_file():
            yield place


def _check(path: Path, members: Collection[tarfile.TarInfo], folders: Mapping[str, Path], hashes: Mapping[str, str]) -> None:
    for member in members:
        parts = PurePosixPath(member.name).parts
        if not (member.isfile() or member.isdir()) or not parts or parts[0] not in folders or ".." in parts:
            expected = ", ".join(folders)
            raise StorageError(f"{path.name} holds what is no file of {expected}", "is this a backup that this command wrote?")
    if sorted(member.name for member in members if member.isfile()) != sorted(hashes):
        raise _damaged(path)


def _stage(folders: Mapping[str, Path], stack: ExitStack) -> dict[str, Path]:
    """Where each folder is filled before it takes its place; one within another is filled there, and moves with it."""
    staged: dict[str, Path] = {}
    for name, folder in sorted(folders.items(), key=lambda item: len(item[1].parts)):
        outer = next((other for other in staged if folder.is_relative_to(folders[other])), None)
        staged[name] = staged[outer] / folder.relative_to(folders[outer]) if outer else stack.enter_context(new_folder(folder))
    return staged
