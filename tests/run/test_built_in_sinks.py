"""The sinks for TensorBoard and MLflow: a real event file and a real tracking store hold what the events say."""

import builtins
import json
import struct
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from tensorboardX.proto.event_pb2 import Event as Record

from csasn.errors import ConfigurationError
from csasn.report.events import Evaluated, RoundFinished, of_kind
from server.run.execution import carry_out
from server.run.run_directory import RunDirectory, read_events
from server.run.sinks import BUILT_IN, VARIABLE

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


@pytest.fixture
def ended(federate, monkeypatch, tmp_path):
    """ended(names, **changes) -> the path of a run that came to its end with these sinks, by the way that an engine takes."""
    monkeypatch.chdir(tmp_path)  # where MLflow puts files of a store on this machine
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/tracking.db")

    def run(names, fails=False, **changes):
        federation = federate("run", **changes)
        federation.directory.close()
        monkeypatch.setenv(VARIABLE, names)
        directory = federation.directory = federation.coordinator.directory = RunDirectory(federation.path)
        try:
            carry_out(directory, "local", lambda: _federate(federation, fails))
        except RuntimeError:
            assert fails
        return federation.path

    return run


def _federate(federation, fails):
    federation.coordinator.run(federation.beginning)
    if fails:
        raise RuntimeError


def records(folder):
    """What the event files of a folder hold: (name, round) -> value."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:  # TFRecord: length, its checksum, the record, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            record = Record.FromString(data[12 : 12 + length])
            found |= {(value.tag, record.step): value.simple_value for value in record.summary.value}
            data = data[16 + length :]
    return found


def said(path):
    """The same from the events of a run."""
    events = read_events(path)
    found = {("validation/macro_auroc", event.round): event.macro_auroc for event in of_kind(events, Evaluated)}
    found |= {("round/seconds", event.round): event.seconds for event in of_kind(events, RoundFinished)}
    return found


def test_tensorboard_reads_back_what_the_events_say(ended):
    path = ended("tensorboard")
    found, expected = records(path / "tensorboard"), said(path)
    assert len(expected) == 5
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6)
    assert {name for name, _ in found} >= {"class-weight/FTC", "validation-recall/benign", "round/bytes_up", "round/sites"}


def test_mlflow_holds_parameters_curves_model_and_report(ended):
    path = ended("mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["federation.rounds"] == "2"
    assert run.data.params["model.profile"] == "csasn-test"
    assert run.data.tags["csasn.run"] == json.loads((path / "run.json").read_text())["id"]
    for (name, current), value in said(path).items():
        history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert history[current] == pytest.approx(value)
    left = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert left >= {"study.yaml", "report.json", "report.html", "MODEL_CARD.md"}
    (folder,) = [file for file in client.list_artifacts(run.info.run_id) if file.path == "report.json"]
    assert folder.file_size == (path / "report.json").stat().st_size


def test_a_run_that_goes_on_is_the_same_run_at_the_tracking_server(ended, monkeypatch):
    path = ended("mlflow", fails=True)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert run.info.status == "FAILED"
    directory = RunDirectory(path)
    directory.event("run-finished")
    directory.close()
    (again,) = client.search_runs([run.info.experiment_id])
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")


def test_a_class_of_any_name_has_its_curve(ended):
    classes = ["benign", "PTC: papillary", "a*b"]
    ended("mlflow,tensorboard", classes=classes, malignant=classes[1:])
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {"class-weight/PTC__papillary", "class-weight/a_b"} <= set(run.data.metrics)


def test_mlflow_reports_nothing_to_its_makers():
    program = (
        "import os; [os.environ.pop(name, None) for name in ('DO_NOT_TRACK', 'MLFLOW_DISABLE_TELEMETRY')];"
        "import {module}; from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY; print(MLFLOW_DISABLE_TELEMETRY.get())"
    )
    for module, expected in (("server.run.mlflow_sink", "True"), ("mlflow", "False")):
        command = [sys.executable, "-c", program.format(module=module)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_its_package_a_sink_is_refused_with_what_to_install(federate, monkeypatch, name):
    federation = federate("run")
    federation.directory.close()
    module = BUILT_IN[name].partition(":")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    real = builtins.__import__

    def without(wanted, *rest):
        if wanted.partition(".")[0] == PACKAGES[name]:
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)
        return real(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(ConfigurationError, match=f"the event sink {name} needs {PACKAGES[name]}") as refused:
        RunDirectory(federation.path)
    assert f"pip install 'csasn-federated[{name}]'" in refused.value.hint
