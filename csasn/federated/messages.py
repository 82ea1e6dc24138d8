"""What coordinator and sites say to each other, as plain data. csasn/wire turns it into Flower records."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from csasn.federated.quantise import Floats32, Floats64, SignedIntegers
from csasn.federated.secagg.messages import KeySet, Sealing, SignedKey, Survivors

Integers = NDArray[np.int64]


class Kind(StrEnum):
    """What a site is asked to do."""

    KEYS = "keys"  # with secure aggregation: make a key for an epoch
    HELLO = "hello"  # count the training cases of each class
    TRAIN = "train"  # evaluate the received model on validation cases, then train
    VALIDATE = "validate"  # evaluate the last model on validation cases
    FINISH = "finish"  # measure normalisation, evaluate the chosen model on test cases
    CONFIRM = "confirm"  # with secure aggregation, where a site is missing: commit to a set of survivors
    UNMASK = "unmask"  # with secure aggregation: reveal shares for a set of survivors


@dataclass(frozen=True)
class Header:
    """What every request is bound to. `attempt` rises over the whole run and never repeats."""

    study_hash: str
    membership_hash: str
    run: str
    round: int
    attempt: int


@dataclass(frozen=True)
class Step:
    """The last round's sum (P,) itself, with its step sizes and the weights that arrived: the step from one model to the next."""

    sum_P: SignedIntegers
    sizes: Floats64
    arrived_units: int


@dataclass(frozen=True)
class Accepted:
    """The last attempt that became a model, and whose updates are in it: those sites commit what that attempt left over."""

    attempt: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Weighting:
    """ω (K,) and the sums it follows from: the class histogram (K,) and class sums (R, 3, K) of the revealed rounds."""

    omega_K: Floats64
    histogram_K: Integers
    history_R3K: Integers


@dataclass(frozen=True)
class ModelUpdate:
    """How a site comes to the model: the whole state vector, or the step from the model that it holds."""

    state_hash: str
    whole: Floats32 | None = None
    step: Step | None = None


@dataclass(frozen=True)
class Request:
    """A broadcast. `ranges` (tensors,) go with train.

    With secure aggregation `keys` go with whatever is counted or trained, and `survivors` with confirm and unmask, whose header is
    that of the attempt; `blobs` are what the other survivors made for the site, in their order.
    """

    kind: Kind
    header: Header
    model: ModelUpdate | None = None
    weighting: Weighting | None = None
    accepted: Accepted | None = None
    ranges: Floats64 | None = None
    keys: KeySet | None = None
    survivors: Survivors | None = None
    blobs: tuple[bytes, ...] = ()


def transcript(request: Request) -> bytes:
    """T: H over all that an answer follows from, whichever way the model travels."""
    head, weighting = request.header, request.weighting
    facts = (request.kind, head.study_hash, head.membership_hash, head.run, head.round, head.attempt, request.accepted)
    digest = hashlib.sha256(repr(facts).encode())
    digest.update((request.model.state_hash if request.model else "").encode())
    for array in (weighting.omega_K if weighting else None, request.ranges):
        digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes() + b"|")
    digest.update(request.keys.digest if request.keys else b"")
    return digest.digest()


@dataclass(frozen=True)
class Answer:
    """All that leaves a site: counts, and what t sites are enough to sum: an update of integers (P,) to train, the moments of
    normalisation to finish. With `sealing` both are masked."""

    counts: Integers
    update_P: SignedIntegers | None = None
    sealing: Sealing | None = None
    num_bytes: int = 0  # as received, framing included


@dataclass(frozen=True)
class Confirmation:
    """A site's signature (hex) under a set of survivors."""

    signature: str


@dataclass(frozen=True)
class Shares:
    """What a site reveals for a set of survivors."""

    data: bytes


class Reason(StrEnum):
    """Why a site is not in a round."""

    NEEDS_MODEL = "needs the whole model"
    NEEDS_KEYS = "needs keys"
    SCALE_TOO_SMALL = "scale too small"
    TRAINING = "training failed"
    REFUSED = "refused"
    FAILED = "failed"
    DEADLINE = "no answer within the deadline"
    BROKEN = "answer breaks the contract"
    LEFT_OUT = "was absent when the others were asked to reveal, for themselves alone"


@dataclass(frozen=True)
class Absence:
    """A site that sent no usable answer: the reason, and a line of our own for people."""

    reason: Reason
    text: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else str(self.reason)


Reply = Answer | SignedKey | Confirmation | Shares | Absence


@dataclass(frozen=True)
class Replies:
    """What came of one attempt: whose answers are in it, and why each other site's is not.

    `counts` are summed, None where they are withheld, and `whole` if they are of the whole membership; `sum_P` is the sum of
    updates, None where there is none to accept. `bytes_up` are those of answers, `bytes_down` of all that was sent.
    """

    attempt: int
    participants: tuple[str, ...]
    counts: Integers | None = None
    whole: bool = False
    sum_P: SignedIntegers | None = None
    absent: Mapping[str, Absence] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
