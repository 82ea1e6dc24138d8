"""The events of a run that another process writes, for those who look again and again."""

from functools import lru_cache
from pathlib import Path
from threading import Lock

from csasn.platform.growing_file import GrowingFile
from csasn.report.events import Event, parse_events


class EventLog:
    """The events of a run directory; each look reads what was added alone. Several threads may look."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = GrowingFile(path / "events.jsonl"), Lock()
        self._events: list[Event] = []

    def read(self) -> list[Event]:
        """All events so far, oldest first."""
        with self._lock:
            lines, anew = self._file.read()
            self._events = [] if anew else self._events
            self._events.extend(parse_events(lines))
            return list(self._events)


event_log = lru_cache(maxsize=16)(EventLog)  # that of a run directory, which is read once however often it is asked for
