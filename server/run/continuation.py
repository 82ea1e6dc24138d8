"""A model to go on from: what the end of a run leaves for a study that `continues` it, and what a run begins with."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from csasn.errors import ModelError
from csasn.finished.description import task_values
from csasn.learning.objectives.objective import local_objective
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.model.state import StateLayout
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.storage import file_sha256
from csasn.report.events import Continued, last
from csasn.study import Ancestor, Continues, Study
from server.run.run_directory import START, Beginning, RunDirectory, RunState

CONTINUATION = "continuation.safetensors"
WHERE = f"name the run with --continue RUN, or put its {CONTINUATION} beside the study as {START}"


def continued(study: Study, run: Path) -> Study:
    """`study`, which continues the finished run in `run`.

    Raises:
        ModelError: it left nothing to go on from.
    """
    path = run / CONTINUATION
    if not path.exists():
        raise ModelError(f"{run} holds no {CONTINUATION}", "a run leaves it at its end; is this the folder of a finished one?")
    return study.model_copy(update={"continues": Continues(model=file_sha256(path))})


def find_start(study: Study, study_file: Path, run: Path | None = None) -> Path | None:
    """The file that `study` goes on from, of the finished run `run` or else beside the study; None where it continues nothing, or
    counts alone.

    Raises:
        ModelError: it is missing, another one than the study says, or its model is none of this study.
    """
    if study.continues is None or study.survey:
        return None
    path = study_file.with_name(START) if run is None else run / CONTINUATION
    if not path.exists():
        raise ModelError(f"the study continues model {study.continues.model[:12]}, and {path} does not exist", WHERE)
    if (found := file_sha256(path)) != study.continues.model:
        raise ModelError(f"{path} is model {found[:12]}, the study continues {study.continues.model[:12]}", WHERE)
    objective = local_objective(study.federation)
    with torch.device("meta"):  # shapes without memory
        _read(study, StateLayout.of(build_network(study), study.federation.batchnorm, controls=objective.controls), path)
    return path


def begin_with(directory: RunDirectory, layout: StateLayout) -> Beginning:
    """The initial weights, or what the run that is continued left; of the latter the lineage is told. `layout` is of the study's
    network.

    Raises:
        ModelError: see `find_start` and `initial_network`.
    """
    study = directory.study
    if study.continues is None:
        return Beginning(layout.read(initial_network(study)))
    beginning, facts = _read(study, layout, directory.path / START)
    directory.event("continued", lineage=facts["lineage"])
    return beginning


def lineage_of(directory: RunDirectory) -> tuple[Ancestor, ...]:
    """The runs that this one goes on from, oldest first."""
    began = last(directory.events(), Continued)
    return began.lineage if began else ()


def leave_continuation(directory: RunDirectory, chosen: RunState) -> None:
    """Writes what a study that continues this run begins with: the chosen model, what the rule remembered then, and class sums."""
    study = directory.study
    own = Ancestor(
        study=study.name, study_hash=study.study_hash, membership_hash=directory.membership.membership_hash,
        state_hash=chosen.model_hash, rounds=chosen.round,
    )  # fmt: skip
    lineage = [each.model_dump(mode="json") for each in (*lineage_of(directory), own)]
    facts = _form(study) | {"rule": _rule(study), "state_hash": chosen.model_hash, "lineage": lineage}
    save_arrays(directory.path / CONTINUATION, chosen.beginning.arrays, facts)


def _read(study: Study, layout: StateLayout, path: Path) -> tuple[Beginning, Mapping[str, object]]:
    arrays, facts = load_arrays(path)
    for key, expected in _form(study).items():
        if facts.get(key) != expected:
            raise ModelError(f"{path.name}: {key} are {facts.get(key)}, expected {expected} of the study", "see the study file")
    beginning = Beginning.of_arrays(arrays)
    if beginning.model.shape != (layout.size,) or layout.hash(beginning.model) != facts["state_hash"]:
        raise ModelError(
            f"{path.name} is a model of another network than the study's", "see model, federation.batchnorm and local_objective"
        )
    return beginning if facts["rule"] == _rule(study) else replace(beginning, memory={}), facts


def _form(study: Study) -> dict[str, object]:
    """What has to be the same for a model to be one of the study, beside its network; as JSON."""
    return {"classes": list(study.classes), "tasks": {task: list(values) for task, values in task_values(study).items()}}


def _rule(study: Study) -> object:
    """The rule of the server, whose memory is of use to no other; as JSON."""
    return [study.federation.server_rule, study.federation.server_options]
