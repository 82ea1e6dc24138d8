"""A masked sum that waits for the shares of its survivors, on disk before they are asked for.

A coordinator that is killed between shares and sum asks for the shares again, and any t of the survivors are enough; to repeat the
attempt it would need every one of them. Nothing in the file says anything of one site: a sum that is still masked, blobs that only
other sites can open, and hashes.
"""

from pathlib import Path
from typing import cast

import numpy as np
from pydantic import BaseModel, ConfigDict

from csasn.checkpoint import Array, load_arrays, save_arrays
from csasn.federated.messages import Absence, Header, Replies, Request
from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.messages import Sealing, Survivors

UNMASKING = "checkpoints/unmasking.safetensors"
FACTS, SUM, COUNTS, RANGES = "unmasking", "sum", "counts", "ranges"


class Unmasking(BaseModel):
    """What is needed beside the sum: the attempt, what it is for, its survivors and what each of them sealed, and who is absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex")

    occasion: str
    header: Header
    survivors: Survivors
    sealings: dict[str, Sealing]
    absent: dict[str, Absence]


def occasion_of(request: Request) -> str:
    """What an update follows from: for one occasion the sites reveal for one set of survivors."""
    return f"{request.kind} {request.header.round} {request.model.state_hash if request.model else ''}"


def keep_unmasking(folder: Path, unmasking: Unmasking, request: Request, replies: Replies) -> None:
    """Writes what waits for shares; `replies` hold the sums.

    Raises:
        StorageError: it cannot be written.
    """
    given = {SUM: replies.sum_P, COUNTS: replies.counts, RANGES: request.ranges}
    arrays: dict[str, Array] = {name: array for name, array in given.items() if array is not None}
    save_arrays(folder / UNMASKING, arrays, {FACTS: unmasking.model_dump_json()})


def find_unmasking(folder: Path, request: Request) -> tuple[Unmasking, Replies] | None:
    """What waits for shares since an earlier attempt at the same, with the same ranges; what waits for anything else is dropped.

    Raises:
        ModelError: the file is damaged.
    """
    if not (folder / UNMASKING).exists():
        return None
    arrays, facts = load_arrays(folder / UNMASKING)
    unmasking = Unmasking.model_validate_json(str(facts[FACTS]))
    kept, asked = (np.zeros(0) if ranges is None else ranges for ranges in (arrays.get(RANGES), request.ranges))
    if (unmasking.occasion, unmasking.header.run) != (occasion_of(request), request.header.run) or not np.array_equal(kept, asked):
        drop_unmasking(folder)
        return None
    counts = arrays.get(COUNTS)
    replies = Replies(
        attempt=unmasking.header.attempt,
        participants=unmasking.survivors.sites,
        counts=None if counts is None else counts.astype(np.int64, copy=False),
        whole=counts is not None,
        sum_P=cast(SignedIntegers, arrays[SUM]),
        absent=unmasking.absent,
    )
    return unmasking, replies


def drop_unmasking(folder: Path) -> None:
    """Nothing waits any more."""
    (folder / UNMASKING).unlink(missing_ok=True)
