"""What a site keeps of a run between rounds: of each attempt its answer, its left-over of quantisation, and the tensors that stay
at the site (csasn/model/state.py).

An outcome is *pending* until a broadcast names the attempt that was accepted and this site among those in it; then it is
*committed*, else it is dropped. Each is a file, written before the answer is sent, so that a site killed at any instant goes on
with the same bits. A request that comes again, because its answer was lost on the way, gets the bytes of the first time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from csasn.checkpoint import load_arrays, save_arrays
from csasn.errors import ModelError, ProtocolError
from csasn.federated.messages import Accepted, Answer
from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.messages import Sealing
from csasn.storage import private_folder

Floats32 = NDArray[np.float32]
PENDING, COMMITTED, SUFFIX = "pending", "committed", ".safetensors"
COUNTS, UPDATE, RESIDUAL, OWN = "counts", "update", "residual", "own."


@dataclass(frozen=True)
class Outcome:
    """What one attempt came to: the transcript (hex) of its request, and its answer as it was sent.

    Of training also the left-over e (P,), already weighted, and the tensors that stay at the site, by name; with secure aggregation
    the site's own shares of its masks.
    """

    attempt: int
    request: str
    answer: Answer
    residual_P: Floats32 | None = None
    own: dict[str, Floats32] = field(default_factory=dict)
    own_shares: bytes = b""


class SiteState:
    """The files of one run at one site; the last outcome, less its update, is in memory too."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        self._last: Outcome | None = None

    def keep(self, outcome: Outcome) -> None:
        """Writes the outcome of an attempt, before its answer is sent."""
        answer = outcome.answer
        arrays: dict[str, NDArray[np.generic]] = {COUNTS: answer.counts}
        arrays |= {} if answer.update_P is None else {UPDATE: answer.update_P}
        arrays |= {} if outcome.residual_P is None else {RESIDUAL: outcome.residual_P}
        arrays |= {OWN + name: array for name, array in outcome.own.items()}
        facts = {"request": outcome.request, "own_shares": outcome.own_shares.hex()}
        save_arrays(self._path(PENDING, outcome.attempt), arrays, facts | _sealing_facts(answer.sealing))
        if outcome.residual_P is not None:
            self._last = replace(outcome, answer=Answer(answer.counts))

    def answer_to(self, attempt: int, request: str) -> Answer | None:
        """The answer that was kept for this request."""
        kept = [_read(self._path(kind, attempt), attempt) for kind in (PENDING, COMMITTED) if self._path(kind, attempt).exists()]
        return next((outcome.answer for outcome in kept if outcome.request == request), None)

    def outcome(self, attempt: int) -> Outcome:
        """What was kept of an attempt that is not settled; of the last one without its update.

        Raises:
            ProtocolError: nothing was.
        """
        if self._last is not None and self._last.attempt == attempt:
            return self._last
        if not self._path(PENDING, attempt).exists():
            raise ProtocolError(f"this site keeps no answer to attempt {attempt}")
        return _read(self._path(PENDING, attempt), attempt)

    def settle(self, accepted: Accepted | None, site: str) -> Outcome | None:
        """The committed outcome, after the pending one that `accepted` names, if any, was committed and all others were dropped."""
        if accepted is not None and site in accepted.sites and self._path(PENDING, accepted.attempt).exists():
            self._path(PENDING, accepted.attempt).replace(self._path(COMMITTED, accepted.attempt))
        committed = max(self._attempts(COMMITTED), default=None)
        for kind in (PENDING, COMMITTED):
            for attempt in self._attempts(kind):
                if (kind, attempt) != (COMMITTED, committed):
                    self._path(kind, attempt).unlink()
        if committed is None:
            return None
        if self._last is None or self._last.attempt != committed:  # or another process had this site's last turn (client/app.py)
            self._last = _read(self._path(COMMITTED, committed), committed)
        return self._last

    def _path(self, kind: str, attempt: int) -> Path:
        return self.folder / f"{kind}-{attempt}{SUFFIX}"

    def _attempts(self, kind: str) -> list[int]:
        names = (path.name.removesuffix(SUFFIX).removeprefix(f"{kind}-") for path in self.folder.glob(f"{kind}-*{SUFFIX}"))
        return [int(name) for name in names if name.isdecimal()]


def _read(path: Path, attempt: int) -> Outcome:
    arrays, facts = load_arrays(path)
    try:
        update, counts = arrays.get(UPDATE), arrays[COUNTS].astype(np.int64, copy=False)
        answer = Answer(counts, None if update is None else cast(SignedIntegers, update), _read_sealing(facts))
        residual_P = arrays[RESIDUAL].astype(np.float32, copy=False) if RESIDUAL in arrays else None
        request, own_shares = str(facts["request"]), bytes.fromhex(str(facts["own_shares"]))
    except KeyError as error:
        raise ModelError(f"{path.name} lacks {error}", "remove it; the site goes on without its left-over") from None
    own = {name.removeprefix(OWN): array.astype(np.float32) for name, array in arrays.items() if name.startswith(OWN)}
    return Outcome(attempt, request, answer, residual_P, own, own_shares)


def _sealing_facts(sealing: Sealing | None) -> dict[str, object]:
    if sealing is None:
        return {}
    parts = {"blobs": sealing.blobs, "hashes": sealing.hashes}
    return {"sealing": {name: [part.hex() for part in some] for name, some in parts.items()} | {"signature": sealing.signature}}


def _read_sealing(facts: Mapping[str, object]) -> Sealing | None:
    sealing = facts.get("sealing")
    if not isinstance(sealing, dict):
        return None
    blobs, hashes = (tuple(bytes.fromhex(part) for part in sealing[name]) for name in ("blobs", "hashes"))
    return Sealing(blobs, hashes, str(sealing["signature"]))
