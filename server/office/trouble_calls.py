"""The operator's own command, called with one line when a trouble lasts, and again when it is over.

A trouble is told once it was there for the grace, so that neither a start nor a restart is one, and is over once it was gone for as
long. What was told is in troubles.json, so that a coordinator that is started anew tells nothing twice, and says that it is over.
A site's version, which is that site's word alone, is told for three versions of a site at most, until the coordinator is started
anew.
"""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from csasn.errors import ConfigurationError, StorageError
from csasn.platform.configuration import Configuration
from csasn.platform.plain_text import in_time
from csasn.platform.storage import reason_of, write_json
from server.office.study_folder import StudyFolder
from server.office.troubles import Trouble, find_troubles

VERSIONS_TOLD = 3  # of one site
TOLD = "troubles.json"


class Told(Configuration):
    """A trouble of which a person was told: its line then, and since when it was there."""

    line: str
    since: datetime


class AllTold(Configuration):
    """troubles.json: what was told and is not over yet, by the key of the trouble."""

    told: dict[str, Told] = Field(default_factory=dict)


def check_command(command: str) -> None:
    """Refuses what cannot be called.

    Raises:
        ConfigurationError: it is no program.
    """
    if command and shutil.which(command) is None:
        raise ConfigurationError(
            f"--on-trouble is {command!r}, expected the name of a program that may be executed, without arguments",
            "put arguments into a script of your own, make it executable (chmod +x), and name that",
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class TroubleCalls:
    """What was told, and to which command; `say` hears why it cannot be called, `now` is the clock."""

    command: str
    say: Callable[[str], None]
    grace: timedelta
    now: Callable[[], datetime] = _utc_now
    first_seen: dict[str, datetime] = field(default_factory=dict)  # of what is there now
    last_seen: dict[str, datetime] = field(default_factory=dict)  # of what was told
    told: dict[str, Told] | None = None  # None before troubles.json was read
    versions: dict[str, set[str]] = field(default_factory=dict)

    def tell(self, study_folder: StudyFolder) -> None:
        """Calls the command for what has lasted, and for what is over."""
        self._tell(study_folder.path / TOLD, study_folder.study.name, {each.key: each for each in find_troubles(study_folder)})

    def _tell(self, path: Path, study: str, troubles: Mapping[str, Trouble]) -> None:
        now, before = self.now(), _read(path) if self.told is None else self.told
        self.told = told = dict(before)
        self.first_seen = {key: self.first_seen.get(key, now) for key in troubles}
        for key, trouble in troubles.items():
            if key in told:
                self.last_seen[key] = now
            elif now - self.first_seen[key] >= self.grace and self._is_new(trouble):
                told[key] = Told(line=trouble.line, since=self.first_seen[key])
                self._call(now, study, trouble.line)
        for key in told.keys() - troubles.keys():
            if now - self.last_seen.setdefault(key, now) >= self.grace:
                old = told.pop(key)
                self._call(now, study, f"over, after {in_time((self.last_seen.pop(key) - old.since).total_seconds())}: {old.line}")
        if told != before:
            with suppress(StorageError):  # a full disk is a trouble itself
                write_json(path, AllTold(told=told).model_dump(mode="json"))

    def _is_new(self, trouble: Trouble) -> bool:
        if not trouble.site:
            return True
        told = self.versions.setdefault(trouble.site, set())
        if trouble.key in told or len(told) >= VERSIONS_TOLD:
            return False
        told.add(trouble.key)
        return True

    def _call(self, now: datetime, study: str, line: str) -> None:
        text = f"{now:%Y-%m-%d %H:%M} UTC, study {study}: {line}"
        try:
            subprocess.Popen([self.command, text], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the operator's own
        except OSError as error:  # the program went away meanwhile, or there is no process left: the coordinator goes on
            self.say(f"warning: {self.command} cannot be called: {reason_of(error)}")


def _read(path: Path) -> dict[str, Told]:
    with suppress(FileNotFoundError, ValidationError):
        return AllTold.model_validate_json(path.read_bytes()).told
    return {}
