"""A model to go on from: what the end of a run leaves for a study that `continues` it, and what a run begins with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from csasn.errors import ModelError
from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.rule import Memory
from csasn.finished.description import task_values
from csasn.learning.objectives.objective import local_objective
from csasn.measures.blocks import Integers
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.model.state import StateLayout
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.storage import file_sha256
from csasn.report.events import Continued, last
from csasn.study import Ancestor, Continues, Study
from server.run.run_directory import MEMORY, START, RunDirectory, RunState

CONTINUATION = "continuation.safetensors"
WHERE = f"name the run with --continue RUN, or put its {CONTINUATION} beside the study as {START}"


@dataclass(frozen=True)
class Beginning:
    """What a run begins with: the model (P + Q,), what the rule of the server remembers, and the class sums (3, K) behind ω."""

    model: Floats32
    memory: Memory = field(default_factory=dict)
    history: tuple[Integers, ...] = ()


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
    """The file that `study` goes on from, of the finished run `run` or else beside the study; None where it continues nothing.

    Raises:
        ModelError: it is missing, another one than the study says, or its model is none of this study.
    """
    if study.continues is None:
        return None
    path = study_file.with_name(START) if run is None else run / CONTINUATION
    if not path.exists():
        raise ModelError(f"the study continues model {study.continues.model[:12]}, and {path} does not exist", WHERE)
    if (found := file_sha256(path)) != study.continues.model:
        raise ModelError(f"{path} is model {found[:12]}, the study continues {study.continues.model[:12]}", WHERE)
    _read(study, path)
    return path


def begin_with(directory: RunDirectory) -> Beginning:
    """The initial weights, or what the run that is continued left; of the latter the lineage is told.

    Raises:
        ModelError: see `find_start` and `initial_network`.
    """
    study = directory.study
    if study.continues is None:
        return Beginning(_layout(study).read(initial_network(study)))
    beginning, facts = _read(study, directory.path / START)
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
    arrays = {"model": chosen.model} | {MEMORY + name: array for name, array in chosen.memory.items()}
    arrays |= {"history": np.stack(chosen.history)} if chosen.history else {}
    lineage = [each.model_dump(mode="json") for each in (*lineage_of(directory), own)]
    facts = _form(study) | {"rule": _rule(study), "state_hash": chosen.model_hash, "lineage": lineage}
    save_arrays(directory.path / CONTINUATION, arrays, facts)


def _read(study: Study, path: Path) -> tuple[Beginning, Mapping[str, object]]:
    arrays, facts = load_arrays(path)
    for key, expected in _form(study).items():
        if facts.get(key) != expected:
            raise ModelError(f"{path.name}: {key} are {facts.get(key)}, expected {expected} of the study", "see the study file")
    layout, model = _layout(study), arrays["model"].astype(np.float32, copy=False)
    if model.shape != (layout.size,) or layout.hash(model) != facts["state_hash"]:
        raise ModelError(
            f"{path.name} is a model of another network than the study's", "see model, federation.batchnorm and local_objective"
        )
    memory = {
        name.removeprefix(MEMORY): array.astype(np.float32, copy=False) for name, array in arrays.items() if name.startswith(MEMORY)
    }
    history = tuple(arrays["history"].astype(np.int64, copy=False)) if "history" in arrays else ()
    return Beginning(model, memory if facts["rule"] == _rule(study) else {}, history), facts


def _layout(study: Study) -> StateLayout:
    objective = local_objective(study.federation)
    return StateLayout.of(build_network(study), study.federation.batchnorm, controls=objective.controls)


def _form(study: Study) -> dict[str, object]:
    """What has to be the same for a model to be one of the study, beside its network; as JSON."""
    return {"classes": list(study.classes), "tasks": {task: list(values) for task, values in task_values(study).items()}}


def _rule(study: Study) -> object:
    """The rule of the server, whose memory is of use to no other; as JSON."""
    return json.loads(json.dumps([study.federation.server_rule, dict(study.federation.server_options)]))
