"""What coordinator and sites say to each other, as plain data. csasn/wire.py turns it into Flower records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from csasn.federated.quantise import Floats32, Floats64, SignedIntegers

Integers = NDArray[np.int64]


class Kind(StrEnum):
    """What a site is asked to do."""

    HELLO = "hello"  # count the training cases of each class
    TRAIN = "train"  # evaluate the received model on validation cases, then train
    VALIDATE = "validate"  # evaluate the last model on validation cases
    FINISH = "finish"  # measure normalisation, evaluate the chosen model on test cases


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
    """A broadcast. Hello carries the header alone; `ranges` (tensors,) go with train."""

    kind: Kind
    header: Header
    model: ModelUpdate | None = None
    weighting: Weighting | None = None
    accepted: Accepted | None = None
    ranges: Floats64 | None = None


@dataclass(frozen=True)
class Answer:
    """All that leaves a site: an update of integers (with train only) and counts."""

    counts: Integers
    update_P: SignedIntegers | None = None
    num_bytes: int = 0  # as received, framing included


class Reason(StrEnum):
    """Why a site is not in a round."""

    NEEDS_MODEL = "needs the whole model"
    SCALE_TOO_SMALL = "scale too small"
    TRAINING = "training failed"
    REFUSED = "refused"
    FAILED = "failed"
    DEADLINE = "no answer within the deadline"
    BROKEN = "answer breaks the contract"


@dataclass(frozen=True)
class Absence:
    """A site that sent no usable answer: the reason, and a line of our own for people."""

    reason: Reason
    text: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else str(self.reason)


@dataclass(frozen=True)
class Replies:
    """What came back of one exchange. `counts` are of the sites that answered; `sum_P` (P,) is the sum of their updates."""

    counts: Mapping[str, Integers] = field(default_factory=dict)
    sum_P: SignedIntegers | None = None
    absent: Mapping[str, Absence] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
