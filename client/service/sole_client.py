"""The lock of a site's state folder: two clients on one folder would answer one attempt twice, masked differently."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csasn.errors import RunError, StorageError
from csasn.platform.locks import is_locked, take_lock
from csasn.platform.storage import reason_of

LOCK = "client.lock"


@contextmanager
def sole_client(site: str, state: Path) -> Iterator[None]:
    """Within the block no other client is at work as `site` on this state folder.

    Raises:
        RunError: another one is.
        StorageError: the lock cannot be written.
    """
    try:
        lock = take_lock(state / LOCK)
    except OSError as error:
        raise StorageError(
            f"cannot write {LOCK}: {reason_of(error)}", "see who owns the state folder, and free disk space"
        ) from None
    if lock is None:
        raise RunError(
            f"another client is at work as {site}",
            f"it may be the service: systemctl status csasn-client@{site}; one at a time, so end either",
        )
    try:
        yield
    finally:
        os.close(lock)


def is_client_at_work(state: Path) -> bool:
    """Whether a client holds this state folder now."""
    return is_locked(state / LOCK)
