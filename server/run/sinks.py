"""Sinks: programs of others that get each event of a run as it happens, such as a metrics server or a chat.

A package offers one by an entry point of the group `csasn.event_sinks`: a function that takes the run directory's path and gives a
function of one event (csasn/report/events.py). The operator chooses by name, in the environment variable CSASN_EVENT_SINKS; a study
cannot. A sink sees what events.jsonl holds, and runs in the coordinator's process: it is trusted like the coordinator itself.
"""

import logging
import os
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from csasn.errors import ConfigurationError
from csasn.report.events import Event

GROUP, VARIABLE = "csasn.event_sinks", "CSASN_EVENT_SINKS"
Sink = Callable[[Event], None]
log = logging.getLogger(__name__)


def chosen_sinks() -> tuple[str, ...]:
    """The names that the operator's environment lists, separated by commas."""
    return tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())


class Sinks:
    """The sinks of one run. One that raises is logged once and left out; the run goes on.

    Raises:
        ConfigurationError: no package offers a sink of that name.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._sinks: dict[str, Sink] = {}
        offered = {point.name: point for point in entry_points(group=GROUP)} if names else {}
        for name in names:
            if name not in offered:
                known = ", ".join(sorted(offered)) or "none, as no installed package offers one"
                raise ConfigurationError(f"there is no event sink {name!r}, expected one of: {known}", f"see {VARIABLE}")
            try:
                self._sinks[name] = offered[name].load()(path)
            except Exception as error:  # noqa: BLE001 - of foreign code
                _leave_out(name, error)

    def tell(self, event: Event) -> None:
        """Hands an event to each."""
        for name, sink in list(self._sinks.items()):
            try:
                sink(event)
            except Exception as error:  # noqa: BLE001 - of foreign code
                del self._sinks[name]
                _leave_out(name, error)


def _leave_out(name: str, error: Exception) -> None:
    """Says so, with the kind of the error alone: its text is foreign."""
    log.warning("event sink %s raised %s, and gets no more events of this run", name, type(error).__name__)
