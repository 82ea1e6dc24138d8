"""What a site keeps between two messages: the answer to a question until it is sent, and what training left over.

`pending` holds the one answer that waits: counts, update and, with secure aggregation, the private key under which it will be
masked. `left-<transcript>` holds what training a question left over, of quantisation and of what the objective remembers. Both
are files, written before the coordinator hears of them, so that a site killed at any instant goes on with the same bits. No key
travels into a backup: pending files are left out (`LEFT_OUT_OF_BACKUPS`).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from csasn.errors import ModelError
from csasn.federated.messages import Kind
from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.keys import SignedKey
from csasn.measures.blocks import Integers
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.configuration import Configuration
from csasn.platform.storage import private_folder

Floats32 = NDArray[np.float32]
PENDING, LEFT, SUFFIX, PRIVATE = "pending", "left-", ".safetensors", 0o600
PENDING_FILE = f"{PENDING}{SUFFIX}"
LEFT_OUT_OF_BACKUPS = (PENDING_FILE, f"replay*{SUFFIX}")  # the key of an answer; what is large and of no use elsewhere
COUNTS, UPDATE, RESIDUAL, MEMORY = "counts", "update", "residual", "memory."


@dataclass(frozen=True)
class LeftOver:
    """What training leaves at a site: e (P,), already weighted.

    `memory` is what is remembered there from round to round (csasn/learning/objectives/), by name.
    `before` is the transcript of the question whose left-over it went on from, empty where it was none.
    """

    residual_P: Floats32
    memory: dict[str, Floats32] = field(default_factory=dict)
    before: bytes = b""


class Asked(Configuration):
    """A question that was worked on, and the key under which its answer will be masked: both halves, and the identity's signature
    (hex) of the public one. Where sums are plain there is no key."""

    model_config = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")

    kind: Kind
    number: int
    transcript: bytes
    private: bytes = b""
    public: bytes = b""
    signature: str = ""


@dataclass(frozen=True)
class Pending:
    """What a question came to."""

    asked: Asked
    counts: Integers
    update_P: SignedIntegers | None = None

    @property
    def key(self) -> SignedKey:
        """The public half of the key, signed."""
        return SignedKey(self.asked.public, self.asked.signature)


class Kept:
    """The files of one membership at one site; the newest left-over and answer are in memory too."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        self._pending: tuple[tuple[int, int], Pending] | None = None  # with the stamp of its file
        self._left: tuple[bytes, LeftOver] | None = None

    def keep(self, pending: Pending, left: LeftOver | None) -> None:
        """Writes the answer to a question in place of the one before, after what it leaves over."""
        if left is not None:
            arrays: dict[str, NDArray[np.generic]] = {RESIDUAL: left.residual_P}
            arrays |= {MEMORY + name: array for name, array in left.memory.items()}
            save_arrays(self._left_path(pending.asked.transcript), arrays, {"before": left.before.hex()}, PRIVATE)
            self._left = pending.asked.transcript, left
        answer: dict[str, NDArray[np.generic]] = {COUNTS: pending.counts}
        answer |= {} if pending.update_P is None else {UPDATE: pending.update_P}
        save_arrays(self._pending_path, answer, pending.asked.model_dump(mode="json"), PRIVATE)
        self._pending = self._stamp(), pending

    def pending(self, transcript: bytes) -> Pending | None:
        """What was kept of this question, if it still is: by the file, since another process may have had this site's last turn."""
        if self._pending is None or self._pending[0] != self._stamp():
            read = self._read_pending()
            self._pending = None if read is None else (self._stamp(), read)
        found = self._pending[1] if self._pending else None
        return found if found is not None and found.asked.transcript == transcript else None

    def forget_arrays(self) -> None:
        """The arrays of the answer in memory were used up; the file has them."""
        self._pending = None

    def left_path(self, transcript: bytes | None) -> Path | None:
        """The file of what is left over from exactly this question."""
        path = self._left_path(transcript) if transcript is not None else None
        return path if path is not None and path.exists() else None

    def left(self, transcript: bytes | None) -> LeftOver | None:
        """What is left over from exactly this question; a file that is damaged counts for none."""
        if transcript is None or self.left_path(transcript) is None:
            return None
        if self._left is None or self._left[0] != transcript:  # or another process had this site's last turn (client/flower/app.py)
            try:
                self._left = transcript, read_left(self._left_path(transcript))
            except ModelError:
                return None
        return self._left[1]

    def settle(self, accepted: bytes | None) -> None:
        """Before another question is worked on: the pending answer goes, and what it left over, unless it was accepted. Then all
        else that was left over goes too, but for what the accepted question went on from: its round may yet be undone."""
        left = self.left(accepted)
        if left is not None and accepted is not None:
            stale = set(self.folder.glob(f"{LEFT}*{SUFFIX}")) - {self._left_path(accepted), self._left_path(left.before)}
        else:
            pending = self._read_pending()
            stale = {self._left_path(pending.asked.transcript)} if pending else set()
        self._pending_path.unlink(missing_ok=True)
        self._pending = None
        for path in stale:
            path.unlink(missing_ok=True)

    def _stamp(self) -> tuple[int, int]:
        """What tells one pending file from another."""
        if not self._pending_path.exists():
            return 0, 0
        status = self._pending_path.stat()
        return status.st_ino, status.st_mtime_ns

    @property
    def _pending_path(self) -> Path:
        return self.folder / PENDING_FILE

    def _left_path(self, transcript: bytes) -> Path:
        return self.folder / f"{LEFT}{transcript.hex()}{SUFFIX}"

    def _read_pending(self) -> Pending | None:
        """What is on disk; a file that is damaged counts for none, and the site works again."""
        try:
            arrays, facts = load_arrays(self._pending_path)
            asked = Asked.model_validate_json(json.dumps(facts))
            return Pending(asked, arrays[COUNTS].astype(np.int64, copy=False), cast(SignedIntegers | None, arrays.get(UPDATE)))
        except (ModelError, KeyError, ValueError):
            return None


def forget_memberships(folder: Path, study_hash: str, membership_hash: str) -> None:
    """Drops what was kept for other memberships of the study, with the keys of answers: none of their questions is asked any more.
    Their diaries stay."""
    own = state_name(study_hash, membership_hash)
    for other in folder.glob(state_name(study_hash, "*")):
        if other.name != own:
            for path in (other / PENDING_FILE, *other.glob(f"{LEFT}*{SUFFIX}")):
                path.unlink(missing_ok=True)


def state_name(study_hash: str, membership_hash: str) -> str:
    """The folder of one study and membership in a site's state."""
    return f"study-{study_hash[:12]}-{membership_hash[:12]}"


def read_left(path: Path) -> LeftOver:
    """What a file says was left over.

    Raises:
        ModelError: it is damaged.
    """
    arrays, facts = load_arrays(path)
    memory = {name.removeprefix(MEMORY): array.astype(np.float32) for name, array in arrays.items() if name.startswith(MEMORY)}
    return LeftOver(arrays[RESIDUAL].astype(np.float32, copy=False), memory, bytes.fromhex(str(facts.get("before", ""))))
