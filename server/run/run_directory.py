"""The run directory: study, membership, events, checkpoints, model and report of one execution of a study.

Every file is whole or absent; events.jsonl grows a line at a time. One process at a time holds the run's lock.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from csasn.errors import ModelError, RunError
from csasn.federated.quantise import Floats32, Floats64
from csasn.federated.server_rules.rule import Memory
from csasn.measures.blocks import Integers
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.configuration import write_yaml
from csasn.platform.locks import lock_folder
from csasn.platform.storage import TEMPORARY, append_line, link_atomically, write_atomically, write_json
from csasn.report.events import EVENT, Event, Outcome, finished_rounds, of_kind, parse_events
from csasn.study import Study, read_study
from csasn.trust.identity import KEYS_FOLDER, write_identity
from csasn.trust.membership import Difference, Membership, read_membership
from server.run.sinks import Sinks, chosen_sinks

LATEST, BEST, BEFORE = (f"checkpoints/{name}.safetensors" for name in ("latest", "best", "before"))
ATTEMPT = "checkpoints/attempt.json"
MEMORY = "memory."  # before the names of arrays of a checkpoint
MEMBERSHIP, RUN, REPORT, SURVEY = "membership.json", "run.json", "report.json", "survey.json"
START = "start.safetensors"  # of a study that continues another's model
BEGINNING = {"checkpoints", "sites", MEMBERSHIP, RUN, START}


@dataclass(frozen=True)
class Beginning:
    """What goes on from one run to another: the model (P + Q,), what the rule of the server remembers, and the class sums (3, K)
    behind ω."""

    model: Floats32
    memory: Memory = field(default_factory=dict)
    history: tuple[Integers, ...] = ()

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """As a file holds it."""
        named: dict[str, NDArray[np.generic]] = {MEMORY + name: array for name, array in self.memory.items()}
        if self.history:
            named["history"] = np.stack(self.history)
        return named | {"model": self.model}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """What a file holds."""
        floats = {
            name: arrays[name].astype(np.float32, copy=False) for name in arrays if name == "model" or name.startswith(MEMORY)
        }
        history = tuple(arrays["history"].astype(np.int64, copy=False)) if "history" in arrays else ()
        return cls(floats.pop("model"), {name.removeprefix(MEMORY): array for name, array in floats.items()}, history)


@dataclass(frozen=True)
class RunState:
    """A run between two rounds: all that the next one follows from.

    A round moves `model` in place, since a copy is a whole model; `memory` is what the rule of the server remembers.

    `round` rounds are done and `model` (P + Q,), of hash `model_hash`, came of them; `history` holds the class sums (3, K) of each
    revealed evaluation; `best_round` is the round whose model scored `best_score` on validation cases. `number` is that of the last
    train question whose sum was accepted, `accepted` its transcript. `loss` is the validation loss of the last model that was
    evaluated, `best_loss` the lowest so far; `undone` the last round that was taken back. Once the last model was evaluated,
    `validated`, only the end of the run is left. `measured` says whether `model` has the normalisation statistics of its own.
    `temperature` is what the logits of `model` are divided by if it is finished, 1 before all sites evaluated it;
    `best_temperature` that of the best round.
    All that was counted is of the membership of `membership_hash`.
    """

    round: int
    model: Floats32
    model_hash: str
    ranges: Floats64
    histogram_K: Integers
    history: tuple[Integers, ...] = ()
    number: int = 0
    accepted: bytes | None = None
    best_round: int = 0
    best_score: float = -1.0
    loss: float | None = None
    best_loss: float | None = None
    undone: int = 0
    num_partial: int = 0
    memory: Memory = field(default_factory=dict)
    validated: bool = False
    measured: bool = False
    temperature: float = 1.0
    best_temperature: float = 1.0
    membership_hash: str = ""

    @property
    def beginning(self) -> Beginning:
        """What another run can go on from."""
        return Beginning(self.model, self.memory, self.history)

    def under(self, membership_hash: str, histogram_K: Integers) -> Self:
        """The same model at the same round, for another membership, of whose training cases are `histogram_K`.

        What sites carried on from round to round is gone, since they keep it for one membership; what was reached on validation
        cases is reached on others now. The difficulty of classes, ω, goes on.
        """
        return replace(
            self, membership_hash=membership_hash, histogram_K=histogram_K, accepted=None, measured=False, validated=False,
            best_round=self.round, best_score=-1.0, loss=None, best_loss=None, temperature=1.0, best_temperature=1.0,
        )  # fmt: skip


class RunDirectory:
    """The files of one run; `listener`, and the sinks that the operator chose, see each event after it is on disk."""

    def __init__(self, path: Path, listener: Callable[[Event], None] | None = None, sinks: Sequence[str] | None = None) -> None:
        self.path = path
        self._listener = listener
        self._sinks = Sinks(path, chosen_sinks() if sinks is None else sinks)
        self._lock = lock_folder(path)
        self.study: Study = read_study(path / "study.yaml")
        self.membership: Membership = read_membership(path / MEMBERSHIP)
        self.run_id = str(json.loads((path / RUN).read_text())["id"])  # a site tells runs apart by it, also those of one name

    @staticmethod
    def create(
        path: Path,
        study: Study,
        membership: Membership,
        identities: Mapping[str, Ed25519PrivateKey] | None = None,
        start: Path | None = None,
    ) -> None:
        """Writes what a run begins with, the study last: what a killed attempt at this left is written anew. `identities` are those
        of simulated sites, each for its own folder; `start` is the file of a model that the study continues.

        Raises:
            RunError: something else is there already.
        """
        if path.exists() and any(part.name not in BEGINNING and part.suffix != TEMPORARY for part in path.iterdir()):
            raise RunError(
                f"{path} holds {describe(path)}", "continue it with --resume, name another --out, or set it aside with --anew"
            )
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path / "sites", ignore_errors=True)
        (path / "sites").mkdir()
        for site, key in (identities or {}).items():
            write_identity(path / "sites" / site / KEYS_FOLDER, key)
        if start is not None:
            link_atomically(start, path / START)
        write_json(path / MEMBERSHIP, membership.model_dump(mode="json"))
        write_json(path / RUN, {"id": f"{path.name[:40]}-{secrets.token_hex(6)}"})
        write_atomically(path / "study.yaml", write_yaml(study).encode())

    def close(self) -> None:
        """Gives the lock back, once the sinks have what they want of the run."""
        self._sinks.close()
        os.close(self._lock)

    def event(self, event: str, /, **facts: object) -> None:
        """Appends an event of the kind `event`, with its time (UTC).

        Raises:
            ValidationError: there is no such kind, or these are not its facts (csasn/report/events.py).
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = EVENT.validate_python({"event": event, "time": now, **facts})
        append_line(self.path / "events.jsonl", json.dumps(told.as_json(), allow_nan=False))
        if self._listener:
            self._listener(told)
        self._sinks.tell(told)

    def events(self) -> list[Event]:
        """All events so far."""
        return read_events(self.path)

    def adopt(self, membership: Membership) -> None:
        """The run goes on with `membership`, from the last round that was accepted; where only node keys are others, as before."""
        if membership.membership_hash != self.membership.membership_hash:
            difference = Difference.between(self.membership.sites, membership.sites)
            sites = {"joined": difference.joined, "left": difference.gone}
            self.event("membership-changed", membership_hash=membership.membership_hash, **sites)
        write_json(self.path / MEMBERSHIP, membership.model_dump(mode="json"))
        self.membership = membership

    def drop_report(self) -> None:
        """The report of an attempt that ended early goes, before the run goes on: without it the run is not taken for finished."""
        (self.path / report_name(self.study)).unlink(missing_ok=True)

    def next_attempt(self) -> int:
        """The number of the attempt that begins, on disk before it is sent; never the same twice."""
        path = self.path / ATTEMPT
        attempt = 1 + (int(json.loads(path.read_text())["attempt"]) if path.exists() else 0)
        write_json(path, {"attempt": attempt})
        return attempt

    def keep_before(self) -> None:
        """The newest checkpoint is that before a round: it is kept under a second name, to take the round back."""
        link_atomically(self.path / LATEST, self.path / BEFORE)

    def keep_best(self) -> None:
        """The newest checkpoint is the best so far: it is kept under a second name."""
        link_atomically(self.path / LATEST, self.path / BEST)

    def save(self, state: RunState) -> None:
        """Writes a checkpoint, before the next broadcast."""
        arrays = {"ranges": state.ranges, "histogram": state.histogram_K} | state.beginning.arrays
        facts = {
            "study_hash": self.study.study_hash, "round": state.round, "model_hash": state.model_hash,
            "best_round": state.best_round, "best_score": state.best_score, "num_partial": state.num_partial,
            "number": state.number, "accepted": state.accepted.hex() if state.accepted else None, "undone": state.undone,
            "loss": state.loss, "best_loss": state.best_loss, "validated": state.validated,
            "measured": state.measured, "temperature": state.temperature, "best_temperature": state.best_temperature,
            "membership_hash": state.membership_hash,
        }  # fmt: skip
        save_arrays(self.path / LATEST, arrays, facts)

    def load(self, name: str = LATEST) -> RunState | None:
        """The newest checkpoint, None before the first.

        Raises:
            ModelError: it is damaged, or of another study.
        """
        if not (self.path / name).exists():
            return None
        arrays, facts = load_arrays(self.path / name)
        if facts.get("study_hash") != self.study.study_hash:
            raise ModelError(f"{name} is a checkpoint of another study", "resume with the study.yaml that the run began with")
        begun, accepted, loss, best_loss = Beginning.of_arrays(arrays), facts["accepted"], facts["loss"], facts["best_loss"]
        return RunState(
            round=_int(facts["round"]),
            model=begun.model,
            memory=begun.memory,
            history=begun.history,
            model_hash=str(facts["model_hash"]),
            ranges=arrays["ranges"].astype(np.float64, copy=False),
            histogram_K=arrays["histogram"].astype(np.int64, copy=False),
            best_round=_int(facts["best_round"]),
            best_score=float(str(facts["best_score"])),
            num_partial=_int(facts["num_partial"]),
            number=_int(facts["number"]),
            accepted=bytes.fromhex(str(accepted)) if accepted else None,
            loss=None if loss is None else float(str(loss)),
            best_loss=None if best_loss is None else float(str(best_loss)),
            undone=_int(facts["undone"]),
            validated=bool(facts["validated"]),
            measured=bool(facts["measured"]),
            temperature=float(str(facts.get("temperature", 1.0))),
            best_temperature=float(str(facts.get("best_temperature", 1.0))),
            membership_hash=str(facts["membership_hash"]),
        )


def report_name(study: Study) -> str:
    """The file of what came of a run."""
    return SURVEY if study.survey else REPORT


def read_events(path: Path) -> list[Event]:
    """The events of a run directory."""
    file = path / "events.jsonl"
    return list(parse_events(file.read_text(encoding="utf-8").splitlines())) if file.exists() else []


def has_outcome(path: Path) -> bool:
    """Whether the federation of the run in `path` came to its end, and what is left needs no site."""
    return bool(of_kind(read_events(path), Outcome))


def is_finished(path: Path) -> bool:
    """Whether the run in `path` came to its report."""
    ended = any(event.event == "run-finished" for event in read_events(path))
    return ended and any((path / name).exists() for name in (REPORT, SURVEY))


def describe(path: Path) -> str:
    """A run directory in words, for errors."""
    if not (path / "study.yaml").exists():
        return "files that are no run"
    if is_finished(path):
        return "a finished run"
    return f"an unfinished run ({len(finished_rounds(read_events(path)))} rounds done)"


def set_aside(path: Path) -> Path | None:
    """Renames what is at `path` to a name with the time; the new name, or None where nothing is."""
    if not path.exists() or not any(path.iterdir()):
        return None
    os.close(lock_folder(path))  # a run that is under way is not moved
    aside = path.with_name(f"{path.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    path.rename(aside)
    return aside


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise ModelError("the checkpoint holds a value that is no whole number", "restore it from a copy")
    return value
