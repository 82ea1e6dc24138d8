"""What coordinator and sites say to each other, as plain data. csasn/wire turns it into Flower records."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from csasn.federated.quantise import Floats32, Floats64, SignedIntegers
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.secagg.sealing import Sealing
from csasn.measures.blocks import Integers
from csasn.platform.canonical import canonical

CONTRACT_VERSION = 3  # of messages and of what is hashed; sites and coordinator of other versions do not work together


class Kind(StrEnum):
    """What a site is asked to do."""

    HELLO = "hello"  # count the training cases of each class
    SURVEY = "survey"  # count cases, in a study that trains nothing
    MEASURE = "measure"  # measure the normalisation of the received model
    TRAIN = "train"  # evaluate the received model on validation cases, then train
    VALIDATE = "validate"  # evaluate the last model on validation cases
    FINISH = "finish"  # evaluate the chosen model on test cases
    COLLECT = "collect"  # with secure aggregation: send what a question came to, masked


@dataclass(frozen=True)
class Header:
    """What every request is bound to. `number` counts the questions of one kind in a membership; `run` and `attempt` are labels
    for ledger and receipts, from which nothing is derived."""

    study_hash: str
    membership_hash: str
    number: int
    round: int
    run: str
    attempt: int
    version: int = CONTRACT_VERSION


@dataclass(frozen=True)
class Step:
    """The step from one model to the next: integers (P,) with their step sizes and the weight that divides them. The summed updates
    and the weights that arrived, or what another rule of the server made of their mean (csasn/federated/server_rules/)."""

    sum_P: SignedIntegers
    sizes: Floats64
    arrived_units: int


@dataclass(frozen=True)
class Weighting:
    """ω (K,) and the sums it follows from: the class histogram (K,) and class sums (R, 3, K) of the revealed rounds."""

    omega_K: Floats64
    histogram_K: Integers
    history_R3K: Integers


@dataclass(frozen=True)
class Moments:
    """What gives a model its normalisation statistics: the sums over sites that `Measure` asked for, as one vector."""

    sum_M: Integers


@dataclass(frozen=True)
class ModelUpdate:
    """How a site comes to the model: the whole state vector, the step or the moments that lead there from the one that it holds, or
    nothing where it holds it."""

    state_hash: str
    whole: Floats32 | None = None
    step: Step | Moments | None = None


@dataclass(frozen=True)
class Hello:
    """Asks for the training cases of each class."""

    kind: ClassVar[Kind] = Kind.HELLO
    header: Header


@dataclass(frozen=True)
class Survey:
    """Asks for the tables of a survey (csasn/data/survey_tables.py)."""

    kind: ClassVar[Kind] = Kind.SURVEY
    header: Header


@dataclass(frozen=True)
class AboutModel:
    """What questions about a model share. `accepted` is the transcript of the last train question whose sum became a model, None
    before the first and where no site shall carry on what it left over."""

    header: Header
    model: ModelUpdate
    weighting: Weighting
    accepted: bytes | None


@dataclass(frozen=True)
class Measure(AboutModel):
    """Asks for the moments of the model's normalisation, so that it has statistics before it is evaluated."""

    kind: ClassVar[Kind] = Kind.MEASURE


@dataclass(frozen=True)
class Train(AboutModel):
    """Asks to evaluate and train the model. `ranges` (tensors,) are those of the update."""

    kind: ClassVar[Kind] = Kind.TRAIN
    ranges: Floats64


@dataclass(frozen=True)
class Validate(AboutModel):
    """Asks to evaluate the last model on validation cases."""

    kind: ClassVar[Kind] = Kind.VALIDATE


@dataclass(frozen=True)
class Finish(AboutModel):
    """Asks to evaluate the chosen model on test cases, its logits divided by `temperature`."""

    kind: ClassVar[Kind] = Kind.FINISH
    temperature: float


@dataclass(frozen=True)
class Collect:
    """Asks for the masked answer to the question of this transcript, under the keys of all sites in roster order."""

    kind: ClassVar[Kind] = Kind.COLLECT
    header: Header
    of: Kind
    transcript: bytes
    keys: tuple[SignedKey, ...]


Question = Hello | Survey | Measure | Train | Validate | Finish
Request = Question | Collect

# all that a site reads of a question and that is not in its transcript, and why
NOT_IN_TRANSCRIPT = {
    "Header.run": "a label of ledger and receipts; a coordinator that begins anew asks the same question",
    "Header.attempt": "a label of ledger and receipts; it rises with every repeat of the same question",
    "ModelUpdate.whole": "the form in which the model travels; its hash is in",
    "ModelUpdate.step": "the form in which the model travels; its hash is in",
}


def transcript(question: Question, carried: bool = False) -> bytes:
    """T: H over all that an answer follows from, made by walking the question, so that a new field is in it.

    `carried` says whether the site goes on from what it left over under `accepted`. Since it is in T, all sites do or none does:
    where a coordinator could have three of four carry on, two sums would give the fourth one's update.
    """
    parts = ["csasn question v2", question.kind.value, carried, question]
    return hashlib.sha256(canonical(parts, frozenset(NOT_IN_TRANSCRIPT))).digest()


@dataclass(frozen=True)
class Ready:
    """A site has worked on a question, keeps what came of it, and answers under this key."""

    transcript: bytes
    key: SignedKey


@dataclass(frozen=True)
class Answer:
    """All that leaves a site of its cases: counts, and what a sum of every site makes of them: an update of integers (P,) to train,
    moments of normalisation to measure. With `sealing` both are masked."""

    counts: Integers
    update_P: SignedIntegers | None = None
    sealing: Sealing | None = None
    num_bytes: int = 0  # as received, framing included

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of update and counts."""
        digests = [None if array is None else hashlib.sha256(array.data).digest() for array in (self.update_P, self.counts)]
        return hashlib.sha256(canonical(digests)).hexdigest()


class Reason(StrEnum):
    """Why a site sends no answer, in a word that never depends on its cases; the line for people is in the site's own log."""

    NEEDS_MODEL = "needs the whole model"
    NEEDS_KEY = "no longer holds its answer, and works on it again"
    NUMBER = "answered a later question before"
    DISK = "its disk is full or cannot be written"
    MEMORY = "its memory is too small"
    IMAGES = "its manifest or images cannot be used"
    KEPT = "its keys or what it keeps cannot be read"
    UNUSABLE = "its site file or machine cannot be used"
    BUDGET = "its upload budget is used up"
    VERSION = "runs another version"
    CONTENTS = "refuses what it was sent"
    FAILED = "failed"
    # what the coordinator says of a site
    DEADLINE = "no answer within the deadline"
    BROKEN = "answer breaks the contract"

    @property
    def is_refusal(self) -> bool:
        """Whether asking again would end alike: a person has to look."""
        return self in (Reason.VERSION, Reason.CONTENTS, Reason.BROKEN)

    @property
    def heals(self) -> bool:
        """Whether the site answers by itself once somebody there made room, or brought files back. For images that are away it
        waits itself, before it says so."""
        return self in (Reason.DISK, Reason.MEMORY, Reason.KEPT)


@dataclass(frozen=True)
class Absence:
    """A site that sent no usable answer. `at` goes with NUMBER: the number of the last question of this kind that it answered."""

    reason: Reason
    at: int = 0
    text: str = ""  # the coordinator's own line; nothing that a site sent

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}" if self.text else str(self.reason)


Reply = Ready | Answer | Absence


@dataclass(frozen=True)
class Replies:
    """What came of one question: whose answers are in it, and why each other site's is not.

    `number` and `transcript` are of the question as it was answered. `counts` are summed, None where they are withheld, and `whole`
    if they are of the whole membership; `sum_P` is the sum of updates, None where there is none to accept. `num_failed` sites could
    not do what was asked; `carried` is whether all are known to have gone on from what they left over. `bytes_up` are those of
    answers, `bytes_down` of all that was sent.
    """

    attempt: int
    number: int
    transcript: bytes
    participants: tuple[str, ...]
    counts: Integers | None = None
    whole: bool = False
    sum_P: SignedIntegers | None = None
    num_failed: int = 0
    carried: bool = False
    absent: Mapping[str, Absence] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
