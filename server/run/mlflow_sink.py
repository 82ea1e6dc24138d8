"""The sink `mlflow`: parameters and curves of a run, and in the end its model and report, at a tracking server.

The environment names that server (MLFLOW_TRACKING_URI). A run that goes on is the same run there. A server that is away holds the
federation up for as long as MLflow tries (MLFLOW_HTTP_REQUEST_MAX_RETRIES), and once: then the sink is left out. Nothing is
reported to MLflow's makers.
"""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before it is imported, which is when it looks

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from pydantic import JsonValue

from csasn import __version__
from csasn.report.events import Event
from csasn.study import read_study
from server.run.scalars import NOT_IN_NAMES, scalars_of

RUN = "run.json"
ID = "csasn.run"  # the tag that holds the run's id
LEFT = ("study.yaml", "model.safetensors", "model.json", "MODEL_CARD.md", "report.json", "report.html", "curves.png", "survey.json")
MOST, LONGEST = 100, 500  # parameters that MLflow takes at once, and characters of one
ENDS = {"run-finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """The run at the tracking server, in the experiment of its study's name."""

    def __init__(self, path: Path) -> None:
        self._path, self._study, self._client = path, read_study(path / "study.yaml"), MlflowClient()
        self._status = "KILLED"  # where it is closed without an end
        run_id = str(json.loads((path / RUN).read_text(encoding="utf-8"))["id"])
        experiment = self._client.get_experiment_by_name(self._study.name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._study.name)
        known = self._client.search_runs([number], f"tags.`{ID}` = '{run_id}'", max_results=1)
        self._run: str = known[0].info.run_id if known else self._begin(number, run_id)
        self._client.update_run(self._run, status="RUNNING")

    def __call__(self, event: Event) -> None:
        """Adds the figures of an event, at its round and time."""
        self._status = ENDS.get(event.event, self._status)
        found = scalars_of(event, self._study.classes)
        if found.values:
            milliseconds = int(datetime.fromisoformat(event.time).timestamp() * 1000)
            metrics = [Metric(name, value, milliseconds, found.round) for name, value in found.values.items()]
            self._client.log_batch(self._run, metrics)

    def close(self) -> None:
        """Hands over what the run left, and says how it ended."""
        for name in LEFT:
            if (self._path / name).exists():
                self._client.log_artifact(self._run, str(self._path / name))
        self._client.set_terminated(self._run, self._status)

    def _begin(self, experiment: str, run_id: str) -> str:
        """A new run, with what the study says as its parameters."""
        tags = {ID: run_id, "csasn.study_hash": self._study.study_hash, "csasn.version": __version__}
        run: str = self._client.create_run(experiment, run_name=self._path.name, tags=tags).info.run_id
        said = [
            Param(NOT_IN_NAMES.sub("_", key), str(value)[:LONGEST]) for key, value in _flat(self._study.model_dump(mode="json"))
        ]
        for first in range(0, len(said), MOST):
            self._client.log_batch(run, params=said[first : first + MOST])
        return run


def _flat(value: JsonValue, before: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Each value within others, by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{before}.{key}" if before else key)
    else:
        yield before, value
