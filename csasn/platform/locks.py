"""Locks between processes: held while a descriptor is open, and given back however the process ends.

No child inherits one. They do not keep out a process on another machine whose file system knows no common locks.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from csasn.errors import RunError

LOCK_TRIES, LOCK_PAUSE_S = 5, 0.1


def open_locked(path: Path, flags: int = os.O_RDWR | os.O_CREAT, *, wait: bool = True) -> int:
    """Opens `path`, a file made (0600) where it is missing, and keeps others out while the descriptor is open.

    Raises:
        BlockingIOError: another process holds it, and we do not `wait` for that one.
        OSError: it cannot be opened or locked.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def take_lock(path: Path) -> int | None:
    """Opens and locks the file `path`; None where another process holds it."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):  # `is_locked` may look just now
            return open_locked(path, wait=False)
        time.sleep(LOCK_PAUSE_S)
    return None


def lock_folder(path: Path) -> int:
    """Opens and locks a folder.

    Raises:
        RunError: another process holds it.
        OSError: it cannot be opened.
    """
    try:
        return open_locked(path, os.O_RDONLY | os.O_DIRECTORY, wait=False)
    except BlockingIOError:
        raise RunError(f"{path} is in use by another process", "wait for it, or stop it") from None


def is_locked(path: Path) -> bool:
    """Tells whether a process holds the lock file `path` now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
