"""What a site keeps of a run between rounds: its left-over of quantisation, the tensors that stay at the site
(csasn/model/state.py), and its last answer.

A round's outcome is *pending* until a broadcast names the attempt that was accepted and this site among those in it; then it is
*committed*, else it is dropped. Both are files, so that a site killed at any instant goes on with the same bits. A request that
comes again, because its answer was lost on the way, is answered with the bytes of the first time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from csasn.checkpoint import load_arrays, save_arrays
from csasn.errors import ModelError
from csasn.federated.messages import Accepted, Answer
from csasn.federated.quantise import SignedIntegers
from csasn.storage import private_folder

Floats32 = NDArray[np.float32]
COMMITTED, ANSWER = "committed.safetensors", "answer.safetensors"
RESIDUAL, COUNTS, UPDATE = "residual", "counts", "update"


@dataclass(frozen=True)
class SiteMemory:
    """The outcome of one attempt: left-over e (P,), already weighted, and the site's own tensors by name."""

    attempt: int
    residual_P: Floats32
    own: dict[str, Floats32]


class SiteState:
    """The files of one run at one site."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)

    def keep_pending(self, memory: SiteMemory) -> None:
        """Writes the outcome of an attempt, before its answer is sent."""
        arrays = {RESIDUAL: memory.residual_P, **memory.own}
        save_arrays(self._pending(memory.attempt), arrays, {"attempt": memory.attempt})

    def keep_answer(self, digest: str, answer: Answer) -> None:
        """Writes the answer to the request of this digest, before it is sent; an older one goes."""
        arrays: dict[str, NDArray[np.generic]] = {COUNTS: answer.counts}
        if answer.update_P is not None:
            arrays[UPDATE] = answer.update_P
        save_arrays(self.folder / ANSWER, arrays, {"request": digest})

    def answer_to(self, digest: str) -> Answer | None:
        """The answer that was kept for the request of this digest."""
        if not (self.folder / ANSWER).exists():
            return None
        arrays, facts = load_arrays(self.folder / ANSWER)
        if facts.get("request") != digest:
            return None
        update = arrays.get(UPDATE)
        return Answer(arrays[COUNTS].astype(np.int64, copy=False), None if update is None else cast(SignedIntegers, update))

    def settle(self, accepted: Accepted | None, site: str) -> SiteMemory | None:
        """The committed outcome, after the pending one that `accepted` names, if any, was committed and all others were dropped."""
        if accepted is not None and site in accepted.sites and self._pending(accepted.attempt).exists():
            self._pending(accepted.attempt).replace(self.folder / COMMITTED)
        for path in self.folder.glob("pending-*"):
            path.unlink()
        if not (self.folder / COMMITTED).exists():
            return None
        arrays, facts = load_arrays(self.folder / COMMITTED)
        attempt = facts.get("attempt")
        if not isinstance(attempt, int):
            raise ModelError(f"{COMMITTED} names no attempt", "remove it; the site goes on without its left-over")
        own = {name: array.astype(np.float32, copy=False) for name, array in arrays.items() if name != RESIDUAL}
        return SiteMemory(attempt, arrays[RESIDUAL].astype(np.float32, copy=False), own)

    def _pending(self, attempt: int) -> Path:
        return self.folder / f"pending-{attempt}.safetensors"
