"""Whether a site's files can be reached: a network share that is away is waited for, a file that is broken is not.

Which is which is told by the number of the system's error, by the folder that the files are in, and by how many fail at once
(csasn/data/left_out.py).
"""

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from csasn.errors import AwayError, DataError
from csasn.platform.command import user_name
from csasn.platform.storage import rights_of

# errors of the way to a file; EIO may be of a disk, too, but NFS and CIFS give it where their server is silent
AWAY = frozenset(
    {
        errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENODEV, errno.ENXIO,
        errno.ENOLINK, errno.ECOMM, errno.ESHUTDOWN,
    }
)  # fmt: skip
RIGHTS = (errno.EACCES, errno.EPERM)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a share that is away is looked for again
SILENCE_S = 30.0  # without an image, after which it is said that reading stands still
MOUNT = "see whether the share is mounted and its server up, and the keys manifest and images of the site file"

Advance = Callable[[int, int], None]
T = TypeVar("T")
log = logging.getLogger(__name__)


def unreadable(error: OSError, what: str, path: Path | None = None) -> DataError:
    """What to say of `what`, such as "the image", which the system did not let us read; `path` where that may be said."""
    if error.errno in AWAY:
        reason = os.strerror(error.errno or errno.EIO).lower()
        return AwayError(f"{what} cannot be reached now: {reason}", "see whether its disk is sound, or its share mounted")
    if error.errno in RIGHTS:
        anywhere = f"as root: setfacl -R -m u:{user_name(os.geteuid())}:rX on the folder of all (package acl), or chgrp and chmod"
        why, mend = _in_the_way(path) if path else ("", anywhere)
        return DataError(f"{what} may not be read{why}", mend)
    return DataError(f"{what} cannot be read", "check that it is a file, and that its name is right")


def _in_the_way(path: Path) -> tuple[str, str]:
    """What keeps this user from `path`, a folder above it or itself, with owner and mode; and the command that mends it."""
    folder = next((one for one in reversed(path.parents) if not os.access(one, os.X_OK, effective_ids=True)), None)
    user, place = user_name(os.geteuid()), folder or path
    rights = f"-m u:{user}:x" if folder else f"-R -m u:{user}:rX"
    return f" by user {user}: {rights_of(place)}", f"as root: setfacl {rights} {place} (package acl), or chgrp and chmod"


def found_away(error: BaseException | None) -> OSError | None:
    """The error of the way to a file behind `error`, where a decoder took it for a damaged file; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in AWAY:
            return error
        error = error.__context__
    return None


def require_folder(folder: Path, what: str) -> None:
    """Refuses a folder, such as "the image root", that is not there or empty, as a mount point is without its share.

    Raises:
        AwayError: it is away.
        DataError: this account may not list it.
    """
    try:
        with os.scandir(folder) as entries:
            if next(entries, None) is None:
                raise AwayError(f"{what} is empty: {folder}", MOUNT)
            if not os.access(folder, os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "")
    except (FileNotFoundError, NotADirectoryError):
        raise AwayError(f"{what} does not exist: {folder}", MOUNT) from None
    except OSError as error:
        raise unreadable(error, what, folder) from None


def wait_for_share(read: Callable[[], T], patience_s: float, say: Callable[[str], None]) -> T:
    """What `read` returns; while files are away it is tried again at growing intervals, for `patience_s` in all, and this is said.

    Raises:
        AwayError: they still are.
    """
    began = time.monotonic()
    for times in itertools.count():
        try:
            found = read()
        except AwayError as error:
            waited_s = time.monotonic() - began
            if waited_s >= patience_s:
                raise
            if not times:
                log.warning("waiting for up to %.0f s: %s; %s", patience_s, error.message, error.hint)
            say(f"waiting for its files since {waited_s:.0f} s: {error.message}")
            time.sleep(min(FIRST_PAUSE_S * 2.0 ** min(times, 10), LONGEST_PAUSE_S, patience_s - waited_s))
        else:
            if times:
                log.warning("the files are back after %.0f s", time.monotonic() - began)
            return found
    raise AssertionError


@contextmanager
def telling_progress(say: Callable[[str], None]) -> Iterator[Advance]:
    """Gives an `advance` for reading images that says each part in a hundred; where none comes for long, this is said and logged.

    A share may keep a read waiting for ever, which nothing in this process can end.
    """
    last, told, ended = time.monotonic(), -1, threading.Event()

    def advance(done: int, total: int) -> None:
        nonlocal last, told
        last, share = time.monotonic(), 100 * done // max(total, 1)
        if share != told:
            told = share
            say(f"reading images, {share} %")

    def watch() -> None:
        while not ended.wait(SILENCE_S):
            if (silent_s := time.monotonic() - last) >= SILENCE_S:
                log.warning("no image could be read for %.0f s: is the share slow, or gone?", silent_s)
                say(f"no image could be read for {silent_s:.0f} s, still waiting")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield advance
    finally:
        ended.set()
        watcher.join()
