"""The egress gate: a message leaves a site only if every part of it is in the contract of the approved study.

It judges the records as they will be sent (`payload.describe`), not the object that they were made of. What is allowed is written
out in full, and compared for equality: an answer is its arrays and their sealing, or that the site is ready; an absence one of a
few words and a number; there is nothing else.

Not protected: what the allowed numbers mean. Within its shape, type and bounds an array can hold anything, a masked one any
integers (their bounds are checked before they are masked). Nothing in a refusal quotes the message: it may hold what must not
leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from string import hexdigits
from typing import Self, cast

import numpy as np

from csasn.errors import ProtocolError
from csasn.federated.messages import Answer, Collect, Kind, Reason, Request
from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.keys import DIGEST_BYTES, KEY_BYTES
from csasn.privacy.contract import Contract
from csasn.privacy.ledger import Contents
from csasn.wire.keys import (
    ABSENCE,
    ARRAYS,
    AT,
    COUNTS,
    PUBLIC,
    READY,
    REASON,
    SEALING,
    SIGNATURE,
    TRANSCRIPT,
    UPDATE,
    VIEW,
)
from csasn.wire.payload import Outgoing, OutgoingArray
from csasn.wire.values import AnyArray

UNKNOWN = "(unknown)"
KNOWN = {
    *((ARRAYS, COUNTS), (ARRAYS, UPDATE), (SEALING, VIEW), (SEALING, SIGNATURE)),
    *((READY, TRANSCRIPT), (READY, PUBLIC), (READY, SIGNATURE), (ABSENCE, REASON), (ABSENCE, AT)),
}
MAX_NUMBER = 1 << 20  # far above that of any question
SIGNATURE_SIZE = ("hex", 128)
Sizes = tuple[int | str, ...]  # of each part of a value in bytes; of text "hex" and its characters


class RefusedError(ProtocolError):
    """The gate does not let a message out; `reason` is all that the coordinator is told."""

    def __init__(self, what: str, hint: str = "", reason: Reason = Reason.CONTENTS) -> None:
        super().__init__(f"the gate refused the answer: {what}", hint)
        self.reason = reason


@dataclass(frozen=True)
class Terms:
    """What the study allows in one answer: of which site, to which kind of question, in which round, and in how many bytes.

    `ready` is whether no more may leave than that the site is ready: the answer itself is collected, masked. `bytes_left` is what
    the site's own budget for the round still holds, None without one.
    """

    contract: Contract
    site: str
    kind: Kind
    round: int
    bytes_left: float | None = None
    ready: bool = False

    @classmethod
    def of(cls, contract: Contract, site: str, request: Request, bytes_left: float | None) -> Self:
        """The terms of the answer to a request."""
        collects = isinstance(request, Collect)
        kind = request.of if isinstance(request, Collect) else request.kind
        return cls(contract, site, kind, request.header.round, bytes_left, contract.secure and not collects)

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each array of the answer, by name."""
        if self.ready:
            return {}
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {COUNTS: ("<i8", (self.contract.counts[self.kind].size,))}
        if (upload := self.contract.upload(self.kind, self.round)) is not None:
            arrays[UPDATE] = upload[0].str, (upload[1],)
        return arrays

    @property
    def values(self) -> dict[tuple[str, str], Sizes]:
        """The sizes of every other value of the answer, by record and key."""
        if self.ready:
            return {(READY, TRANSCRIPT): (DIGEST_BYTES,), (READY, PUBLIC): (KEY_BYTES,), (READY, SIGNATURE): SIGNATURE_SIZE}
        return {(SEALING, VIEW): (DIGEST_BYTES,), (SEALING, SIGNATURE): SIGNATURE_SIZE} if self.contract.secure else {}


def check_outgoing(outgoing: Outgoing, terms: Terms | None) -> None:
    """Lets a message pass, or refuses it; without `terms` only an absence passes.

    Raises:
        RefusedError: it is not exactly what the study allows.
    """
    if outgoing.records == {ABSENCE: "ConfigRecord"}:
        _check_absence(outgoing)
    elif terms is None:
        raise RefusedError("it answers a request that this site could not read")
    else:
        _check_answer(outgoing, terms)


def _check_absence(outgoing: Outgoing) -> None:
    """A known reason and a small number. No budget can keep a site from saying why it is absent."""
    if set(outgoing.values) != {(ABSENCE, REASON), (ABSENCE, AT)}:
        raise RefusedError("an absence holds a reason and a number, this one more or less")
    if outgoing.values[ABSENCE, REASON] not in list(Reason):
        raise RefusedError("the reason of the absence is not a known one")
    at = outgoing.values[ABSENCE, AT]
    if type(at) is not int or not 0 <= at <= MAX_NUMBER:
        raise RefusedError("the number of the absence is not that of a question")


def _check_answer(outgoing: Outgoing, terms: Terms) -> None:
    records = {record: "ConfigRecord" for record, _ in terms.values} | ({ARRAYS: "ArrayRecord"} if terms.arrays else {})
    sizes = {place: _sizes(value) for place, value in outgoing.values.items()}
    if outgoing.records != records or sizes != terms.values:
        expected = f"record {ARRAYS} alone" if set(records) == {ARRAYS} else f"exactly {', '.join(sorted(records))}"
        raise RefusedError(f"it holds records or values that the study does not know, expected {expected}")
    arrays = {array.name: array for array in outgoing.arrays}
    if unknown := set(arrays) - set(terms.arrays):
        raise RefusedError(f"it holds {len(unknown)} arrays that the study does not know")
    if missing := set(terms.arrays) - set(arrays):
        raise RefusedError(f"array {min(missing)} is missing")
    values = {name: _checked(arrays[name], *allowed) for name, allowed in terms.arrays.items()}
    if terms.arrays and not terms.contract.secure:
        _check_bounds(values, terms)
    if terms.bytes_left is not None and outgoing.num_bytes > terms.bytes_left:
        raise RefusedError(
            f"it has {outgoing.num_bytes} bytes, this site's budget for the round has {max(int(terms.bytes_left), 0)} left",
            "raise policy.upload_budget_mib in the site file, or leave the study",
            Reason.BUDGET,
        )


def _sizes(value: object) -> Sizes | None:
    """The sizes of the parts of a value, None where it is neither bytes, a list of them, nor text of hexadecimal digits."""
    if isinstance(value, str):
        return ("hex", len(value)) if set(value) <= set(hexdigits) else None
    parts: list[object] = value if isinstance(value, list) else [value]
    sizes = tuple(len(part) for part in parts if isinstance(part, bytes))
    return sizes if len(sizes) == len(parts) else None


def _checked(array: OutgoingArray, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    """The values of an array that is what the study says, to the byte."""
    if array.values is None:
        raise RefusedError(f"the bytes of array {array.name} are not what its description says")
    if array.values.dtype.kind in "fc" and not np.isfinite(array.values).all():
        raise RefusedError(f"array {array.name} holds values that are not finite")
    if (array.dtype, array.shape) != (dtype, shape):
        raise RefusedError(f"array {array.name} is not {dtype} of shape {shape}, as the study has it")
    return array.values


def _check_bounds(values: Mapping[str, AnyArray], terms: Terms) -> None:
    """No value of the update beyond what the site's weight allows, no count below zero."""
    answer = Answer(values[COUNTS].astype(np.int64, copy=False), cast(SignedIntegers | None, values.get(UPDATE)))
    try:
        terms.contract.check(terms.kind, terms.site, terms.round, answer)
    except ProtocolError as error:
        raise RefusedError(error.message) from None


def contents_of(outgoing: Outgoing) -> Contents:
    """What the ledger says of a message. A name that the study does not know is not repeated: it may be a patient's."""
    arrays = tuple((_name(array.record, array.name), array.dtype[:20], array.shape) for array in outgoing.arrays)
    values = tuple(_name(*place) for place in outgoing.values)
    return Contents(arrays, values, outgoing.num_bytes, outgoing.sha256)


def _name(record: str, key: str) -> str:
    return f"{record}/{key}" if (record, key) in KNOWN else UNKNOWN
