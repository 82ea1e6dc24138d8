"""The sink `tensorboard`: curves of a run as TensorBoard draws them, in the folder `tensorboard` of its run directory."""

from datetime import datetime
from pathlib import Path

from tensorboardX import SummaryWriter

from csasn.report.events import Event
from csasn.study import read_study
from server.run.scalars import scalars_of

FOLDER = "tensorboard"


class TensorBoard:
    """Writes the figures of each event; a run that goes on adds a file."""

    def __init__(self, path: Path) -> None:
        self._writer, self._classes = SummaryWriter(str(path / FOLDER)), read_study(path / "study.yaml").classes

    def __call__(self, event: Event) -> None:
        """Adds the figures of an event, at its round and time."""
        found = scalars_of(event, self._classes)
        for name, value in found.values.items():
            self._writer.add_scalar(name, value, found.round, datetime.fromisoformat(event.time).timestamp())
        if found.values:
            self._writer.flush()

    def close(self) -> None:
        """The run is over, or will go on in another process."""
        self._writer.close()
