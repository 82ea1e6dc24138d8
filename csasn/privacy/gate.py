"""The egress gate: a message leaves a site only if every part of it is in the contract of the approved study.

It judges the records as they will be sent (`payload.describe`), not the object that they were made of. What is allowed is written
out in full, and compared for equality: an answer is its arrays, an absence its reason and one line of text; there is nothing else.

Not protected: what the allowed numbers mean. Within its shape, type and bounds an array can hold anything, and the text of an
absence is checked for its form alone. Nothing in a refusal quotes the message: it may hold what must not leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from csasn.contract import Contract
from csasn.errors import ProtocolError
from csasn.federated.messages import Answer, Kind, Reason
from csasn.federated.quantise import SignedIntegers, integer_type
from csasn.privacy.ledger import Contents
from csasn.privacy.payload import Outgoing, OutgoingArray
from csasn.wire import ABSENCE, ARRAYS, COUNTS, MAX_TEXT, REASON, TEXT, UPDATE, AnyArray

UNKNOWN = "(unknown)"
KNOWN = {(ARRAYS, COUNTS), (ARRAYS, UPDATE), (ABSENCE, REASON), (ABSENCE, TEXT)}


class RefusedError(ProtocolError):
    """The gate does not let a message out."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"the gate refused the answer: {what}", hint)


@dataclass(frozen=True)
class Terms:
    """What the study allows in one answer: of which site, to which kind of request, in which round, and in how many bytes.

    `bytes_left` is what the site's own budget for the round still holds, None without one.
    """

    contract: Contract
    site: str
    kind: Kind
    round: int
    bytes_left: float | None = None

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each array of the answer, by name."""
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {COUNTS: ("<i8", (self.contract.counts[self.kind].size,))}
        if self.kind is Kind.TRAIN:
            arrays[UPDATE] = integer_type(self.contract.bits(self.round)).str, (self.contract.state.num_shared,)
        return arrays


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
    """A known reason, and one printable line. It is bounded, so that no budget can keep a site from saying why it is absent."""
    if set(outgoing.values) != {(ABSENCE, REASON), (ABSENCE, TEXT)}:
        raise RefusedError("an absence holds a reason and a text, this one more or less")
    if outgoing.values[ABSENCE, REASON] not in list(Reason):
        raise RefusedError("the reason of the absence is not a known one")
    text = outgoing.values[ABSENCE, TEXT]
    if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
        raise RefusedError(f"the text of the absence is not one printable line of {MAX_TEXT} characters at most")


def _check_answer(outgoing: Outgoing, terms: Terms) -> None:
    if outgoing.records != {ARRAYS: "ArrayRecord"} or outgoing.values:
        raise RefusedError(f"it holds records or values that the study does not know, expected record {ARRAYS} alone")
    arrays = {array.name: array for array in outgoing.arrays}
    if unknown := set(arrays) - set(terms.arrays):
        raise RefusedError(f"it holds {len(unknown)} arrays that the study does not know")
    if missing := set(terms.arrays) - set(arrays):
        raise RefusedError(f"array {min(missing)} is missing")
    values = {name: _checked(arrays[name], *allowed) for name, allowed in terms.arrays.items()}
    _check_bounds(values, terms)
    if terms.bytes_left is not None and outgoing.num_bytes > terms.bytes_left:
        raise RefusedError(
            f"it has {outgoing.num_bytes} bytes, this site's budget for the round has {max(int(terms.bytes_left), 0)} left",
            "raise policy.upload_budget_mib in the site file, or leave the study",
        )


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
