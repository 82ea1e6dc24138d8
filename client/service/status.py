"""What `client status` says of a site: by the notes of its processes, so that it also works while they are down."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import inf
from pathlib import Path

from client.worker.notes import (
    DOING,
    ENDED,
    TURN,
    Doing,
    Ended,
    Turn,
    find_disk_trouble,
    in_turn,
    line_of,
    note,
    read_left_out,
    read_note,
)
from csasn.errors import CsasnError, RunError, Stopped, StorageError
from csasn.platform.configuration import Configuration
from csasn.platform.locks import is_locked, take_lock
from csasn.site import Site
from csasn.trust.enrolment import KIT, Kit

STALE_S = 20.0  # without an answer of the coordinator, after which the site is not connected
PAUSE, LOCK = "paused", "client.lock"
WAITING, CONNECTING = "connected, waiting for work", "connecting"


class SiteStatus(Configuration):
    """The status; `doing` and `time` are the worker's note, None where it made none."""

    site: str
    line: str
    takes_part: bool
    outside_training_hours: bool
    finished: bool
    doing: str | None
    time: float | None
    left_out: tuple[str, ...]
    coordinator_answered_seconds_ago: float | None

    def facts(self) -> dict[str, object]:
        """For scripts, without what the worker did not note."""
        return self.model_dump(mode="json", exclude=None if self.doing is not None else {"doing", "time"})


@contextmanager
def sole_client(site: str, state: Path) -> Iterator[None]:
    """Within the block no other client is at work as `site` on this state folder: two would answer one attempt twice, masked
    differently.

    Raises:
        RunError: another one is.
        StorageError: the lock cannot be written.
    """
    try:
        lock = take_lock(state / LOCK)
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO).lower()
        raise StorageError(f"cannot write {LOCK}: {reason}", "see who owns the state folder, and free disk space") from None
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


def why_idle(site: Site) -> str:
    """Why the site takes no work now, by its own choice; empty where it does."""
    if (site.service_folder / PAUSE).exists():
        return "paused; go on with client pause --resume"
    if not site.policy.may_train_at(datetime.now().time()):
        return f"outside training hours {site.policy.training_hours}"
    return ""


def silence_s(site: Site) -> float:
    """For how many seconds the coordinator has not answered; infinite where it never did."""
    turn = read_note(site.service_folder / TURN, Turn)
    return time.time() - turn.time if turn else inf


def describe_site(site: Site) -> SiteStatus:
    """The status of a site.

    Raises:
        PermissionError: this user may not read the notes of its processes.
    """
    state = Path(site.state)
    doing, silent, kit = read_note(state / DOING, Doing), silence_s(site), read_note(site.kit_folder / KIT, Kit)
    service = site.service_folder
    idle, at_work, paused = why_idle(site), is_client_at_work(service), (service / PAUSE).exists()
    trouble = find_disk_trouble(state) if state.exists() else ""
    takes_part = silent <= STALE_S and not idle and not trouble and not (doing and doing.trouble)
    rests = at_work and bool(idle) and not paused
    finished = bool(doing and kit and doing.finished == kit.study_hash)
    line = idle if paused or rests else WAITING if takes_part else CONNECTING if at_work else _not_running(service)
    says = doing and (finished or (silent <= STALE_S and not idle))
    return SiteStatus(
        site=site.called,
        line=trouble or in_turn(site, doing.doing if doing and says else line),
        takes_part=takes_part,
        outside_training_hours=rests,
        finished=finished,
        doing=doing.doing if doing else None,
        time=doing.time if doing else None,
        left_out=read_left_out(site),
        coordinator_answered_seconds_ago=None if silent == inf else round(silent, 1),
    )


def _not_running(state: Path) -> str:
    """That nothing runs, and why the last one ended, where it ended by itself."""
    ended = read_note(state / ENDED, Ended)
    return f"not running; it ended at {datetime.fromtimestamp(ended.time):%Y-%m-%d %H:%M}: {ended.why}" if ended else "not running"


@contextmanager
def noting_the_end(state: Path) -> Iterator[None]:
    """Keeps the error by which the block ends, for `client status`: a service manager may start it again and again."""
    try:
        yield
    except Stopped:
        raise
    except CsasnError as error:
        if not is_client_at_work(state):
            note(state / ENDED, Ended(why=line_of(error), time=time.time()))
        raise
