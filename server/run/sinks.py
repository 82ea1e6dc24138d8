"""Sinks: programs of others that get each event of a run as it happens, such as a metrics server or a chat.

A package offers one by an entry point of the group `csasn.event_sinks`: a function that takes the run directory's path and gives a
function of one event (csasn/report/events.py), which may have a `close`, for when the run has its report. Two are here already.
The operator chooses by name, in the environment variable CSASN_EVENT_SINKS; a study cannot. A sink sees what events.jsonl holds,
and runs in the coordinator's process: it is trusted like the coordinator itself.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from csasn.errors import ConfigurationError
from csasn.report.events import Event

GROUP, VARIABLE = "csasn.event_sinks", "CSASN_EVENT_SINKS"
BUILT_IN: Mapping[str, str] = {
    "tensorboard": "server.run.tensorboard_sink:TensorBoard",
    "mlflow": "server.run.mlflow_sink:MlflowRun",
}
Sink = Callable[[Event], None]
log = logging.getLogger(__name__)


def chosen_sinks() -> tuple[str, ...]:
    """The names that the operator's environment lists, separated by commas."""
    return tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())


class Sinks:
    """The sinks of one run. One that raises is logged once and left out; the run goes on.

    Raises:
        ConfigurationError: no package offers a sink of that name, or what one of ours needs is not installed.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._sinks: dict[str, Sink] = {}
        ours = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
        offered = {point.name: point for point in entry_points(group=GROUP)} | ours if names else {}
        for name in names:
            if name not in offered:
                raise ConfigurationError(
                    f"there is no event sink {name!r}, expected one of: {', '.join(sorted(offered))}", f"see {VARIABLE}"
                )
            try:
                self._sinks[name] = offered[name].load()(path)
            except ImportError as error:
                if name not in BUILT_IN:
                    _leave_out(name, error)
                    continue
                hint = f"pip install 'csasn-federated[{name}]', or leave it out of {VARIABLE}"
                raise ConfigurationError(f"the event sink {name} needs {error.name}, which is not installed", hint) from None
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

    def close(self) -> None:
        """Tells those that want to know that the run is over, or goes on in another process, and has its report."""
        for name, sink in self._sinks.items():
            try:
                getattr(sink, "close", lambda: None)()
            except Exception as error:  # noqa: BLE001 - of foreign code
                _leave_out(name, error)
        self._sinks = {}


def _leave_out(name: str, error: Exception) -> None:
    """Says so, with the kind of the error alone: its text is foreign."""
    log.warning("event sink %s raised %s, and gets no more events of this run", name, type(error).__name__)
