"""The lock of a site's state folder: two clients on one folder would answer one attempt twice, masked differently.

It is held as long as the process lives, however that ends, and no child inherits it. It does not keep out a client on another
machine whose file system knows no common locks.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from csasn.errors import RunError, StorageError

LOCK = "client.lock"
TRIES, TRY_AGAIN_S = 5, 0.1


@contextmanager
def sole_client(site: str, state: Path) -> Iterator[None]:
    """Within the block no other client is at work as `site` on this state folder.

    Raises:
        RunError: another one is.
        StorageError: the lock cannot be written.
    """
    try:
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO).lower()
        raise StorageError(f"cannot write {LOCK}: {reason}", "see who owns the state folder, and free disk space") from None
    try:
        if not _take(descriptor):
            raise RunError(
                f"another client is at work as {site}",
                "it may be the service: systemctl status csasn-client@" + site + "; one at a time, so end either",
            )
        yield
    finally:
        os.close(descriptor)


def is_client_at_work(state: Path) -> bool:
    """Whether a client holds this state folder now."""
    try:
        descriptor = os.open(state / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take(descriptor: int) -> bool:
    for _ in range(TRIES):
        with suppress(BlockingIOError):  # `client status` may look just now
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(TRY_AGAIN_S)
    return False
