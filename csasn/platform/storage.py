"""Files that are either whole or absent, and folders that only their owner can open.

Nothing here keeps a file from an administrator of the machine, and nothing is encrypted.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from csasn.errors import DiskFullError, StorageError
from csasn.platform.command import user_name

TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)


def write_atomically(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replaces `path` by `data`: after a crash at any instant it holds the old bytes or the new ones. The umask masks `mode`.

    Raises:
        StorageError: it cannot be written; `path` is as it was, and nothing half-written is left.
    """
    with atomic_writer(path, mode) as file:
        file.write(data)


def write_new(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Writes `path` whole, and only where nothing of that name is yet.

    Raises:
        StorageError: something is there already, which stays as it is; or it cannot be written.
    """
    temporary = _beside(path)
    try:
        with atomic_writer(temporary, mode) as file:
            file.write(data)
        os.link(temporary, path)  # unlike a rename, this never replaces
        _sync_folder(path.parent)
    except FileExistsError:
        raise StorageError(f"{path} exists already and is not overwritten", "move it away first if you want another") from None
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def rights_of(path: Path) -> str:
    """Whose a file or folder is, and its mode, in words."""
    status = path.stat()
    return f"{path} is of {user_name(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o}"


def require_new(path: Path) -> None:
    """Refuses a folder to be made that is there.

    Raises:
        StorageError: `path` is there and not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise StorageError(f"{path} is there and not empty", "name another folder, or move this one away")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A private folder (0700) to fill, which becomes `path` when the block ends, and vanishes when the block raises.

    Raises:
        StorageError: `path` is there and not empty, or cannot be made.
    """
    temporary = _beside(path)
    require_new(path)
    try:
        yield private_folder(temporary)
        os.rename(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_writer(path: Path, mode: int = 0o666, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends, and vanishes when the block raises.

    It is on disk then, unless without `sync`.

    It is written as `.NAME.<random>.tmp` beside `path`, so that two writers never share one; a killed process leaves that behind.
    An `OSError` of the block counts as one of writing.

    Raises:
        StorageError: it cannot be written; `path` is as it was.
    """
    temporary = _beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None


def write_json(path: Path, value: object, mode: int = 0o666) -> None:
    """Writes `value` as readable JSON, atomically; NaN and infinities are a `ValueError`, since JSON has none.

    Raises:
        StorageError: as `write_atomically`.
    """
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode(), mode)


def link_atomically(source: Path, target: Path) -> None:
    """Makes `target` another name of what `source` holds now, or a copy where the file system knows no second names.

    Raises:
        StorageError: as `write_atomically`.
    """
    temporary = _beside(target)
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # a replaced name of the same file stays, says rename(2)
        _sync_folder(target.parent)
    except OSError:
        write_atomically(target, source.read_bytes())


def append_line(path: Path, line: str, mode: int = 0o666) -> None:
    """Adds one line to `path` and waits until it is on disk. A line that a crash cut short is ended first, so that none merge.

    Raises:
        StorageError: it cannot be written; what was written of the line is taken back.
    """
    if "\n" in line or "\r" in line:
        raise ValueError("a line holds no line break")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
        try:
            size = os.fstat(descriptor).st_size
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write_all(descriptor, b"\n" * cut + line.encode() + b"\n")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if size == 0:
            _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None


def file_stamp(path: Path) -> tuple[int, int]:
    """Another value where a file was written since: when, in ns, and its size; zeros where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; an `OSError` is the caller's to explain."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def private_folder(path: Path) -> Path:
    """Makes `path` (and its parents) where it is missing, and sees to it that only its owner may enter (mode 0700).

    Raises:
        StorageError: it cannot be made, or others may enter it and that cannot be changed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o7777 != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise StorageError(f"cannot make folder {path.name} private: {reason_of(error)}", "check its owner, or remove it") from None
    return path


def writable_folder(path: Path, mode: int = 0o777) -> Path:
    """Makes `path` (and its parents) where it is missing, and writes and removes a file in it: before hours of work, not after.

    Raises:
        StorageError: it cannot be made, or nothing can be written in it.
    """
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        hint = "name another folder, or see who may write there"
        raise StorageError(f"cannot make folder {path}: {reason_of(error)}", hint) from None
    proof = path / f".{secrets.token_hex(8)}{TEMPORARY}"
    try:
        write_atomically(proof, b"written\n", 0o600)
        proof.unlink()
    except (OSError, StorageError):
        raise StorageError(f"nothing can be written in {path}", "name another folder, or see to its owner and disk space") from None
    return path


def free_bytes(folder: Path) -> int:
    """What the file system of a folder, made or not yet, has left for this user."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def reason_of(error: OSError) -> str:
    """Says why the system refused, in its own words: no path, since that may be a patient's image."""
    return os.strerror(error.errno or errno.EIO).lower()


def _beside(path: Path) -> Path:
    """A name that nobody else takes, for what becomes `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable; some network file systems cannot, and need not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> StorageError:
    message = f"cannot write {path.name}: {reason_of(error)}"
    if error.errno in _FULL:
        return DiskFullError(message, "free disk space and try again")
    return StorageError(message, "check that its folder exists and may be written")
