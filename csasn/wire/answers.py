"""What a site sends: answers, the head of its ledger, and its place in a simulation <-> Flower records."""

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from csasn.errors import ProtocolError
from csasn.federated.messages import Absence, Answer, Ready, Reason, Reply
from csasn.federated.receipt import Head
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.secagg.sealing import Sealing
from csasn.wire.keys import (
    ABSENCE,
    ARRAYS,
    AT,
    COUNTS,
    HEADER,
    LEDGER,
    LEDGER_BEFORE,
    LEDGER_CHAIN,
    LEDGER_COUNT,
    LEDGER_HASH,
    MAX_VALUE,
    PAYLOAD_SHA256,
    PLACE,
    PUBLIC,
    READY,
    REASON,
    SEALING,
    SIGNATURE,
    TRANSCRIPT,
    UPDATE,
    VIEW,
)
from csasn.wire.values import (
    INTEGERS,
    AnyArray,
    read_array,
    read_arrays,
    read_bytes,
    read_config,
    read_count,
    read_sums,
    read_text,
    size_bytes,
    to_record,
)


def answer_to_records(answer: Reply) -> RecordDict:
    """What a site sends back: that it is ready, {update, counts} with their sealing, or why it sends nothing."""
    match answer:
        case Absence(reason, at):
            return RecordDict({ABSENCE: ConfigRecord({REASON: reason.value, AT: at})})
        case Ready(digest, key):
            return RecordDict({READY: ConfigRecord({TRANSCRIPT: digest, PUBLIC: key.public, SIGNATURE: key.signature})})
    arrays: dict[str, AnyArray] = {COUNTS: answer.counts}
    if answer.update_P is not None:
        arrays[UPDATE] = answer.update_P
    records = RecordDict({ARRAYS: to_record(arrays)})
    if (sealing := answer.sealing) is not None:
        records[SEALING] = ConfigRecord({VIEW: sealing.view, SIGNATURE: sealing.signature})
    return records


def answer_from_records(records: RecordDict) -> Reply:
    """The answer in a site's records, whatever its ledger says (`head_from_records`).

    Raises:
        ProtocolError: it is not one of ours.
    """
    names = set(records) - {LEDGER}
    if names == {ABSENCE}:
        absence = _record(records, ABSENCE, {REASON, AT})
        try:
            return Absence(Reason(read_text(absence, REASON)), read_count(absence, AT))
        except ValueError as error:
            raise ProtocolError("unknown reason of an absence") from error
    if names == {READY}:
        ready = _record(records, READY, {TRANSCRIPT, PUBLIC, SIGNATURE})
        return Ready(read_bytes(ready, TRANSCRIPT), SignedKey(read_bytes(ready, PUBLIC), read_text(ready, SIGNATURE)))
    if not {ARRAYS} <= names <= {ARRAYS, SEALING}:
        raise ProtocolError(f"the answer holds {len(names)} records, expected {ARRAYS} and {SEALING} alone")
    arrays = read_arrays(records)
    if not set(arrays) <= {COUNTS, UPDATE}:
        raise ProtocolError(f"the answer holds {len(arrays)} arrays, expected {COUNTS} and {UPDATE} alone")
    counts = read_array(arrays, COUNTS, INTEGERS, 1).astype(np.int64, copy=False)
    update_P = read_sums(arrays, UPDATE) if UPDATE in arrays else None
    return Answer(counts, update_P, _sealing(records) if SEALING in names else None, size_bytes(records))


def _sealing(records: RecordDict) -> Sealing:
    record = _record(records, SEALING, {VIEW, SIGNATURE})
    return Sealing(read_bytes(record, VIEW), read_text(record, SIGNATURE))


def _record(records: RecordDict, name: str, keys: set[str]) -> ConfigRecord:
    record = read_config(records, name)
    if set(record) != keys:
        raise ProtocolError(f"record {name} lacks keys, or holds unknown ones")
    return record


def attach_head(records: RecordDict, head: Head) -> RecordDict:
    """`records` with the head of the site's ledger."""
    record = ConfigRecord({
        LEDGER_CHAIN: head.chain, LEDGER_COUNT: head.count, LEDGER_HASH: head.hash, LEDGER_BEFORE: head.before,
        PAYLOAD_SHA256: head.sha256,
    })  # fmt: skip
    if head.signature:
        record[SIGNATURE] = head.signature
    return RecordDict({**records, LEDGER: record})


def head_from_records(records: RecordDict) -> Head:
    """The head of a site's ledger in its answer.

    Raises:
        ProtocolError: there is none, or it is not one of ours.
    """
    if LEDGER not in records:
        raise ProtocolError("the answer carries no head of the site's ledger")
    record = read_config(records, LEDGER)
    if set(record) - {SIGNATURE} != {LEDGER_CHAIN, LEDGER_COUNT, LEDGER_HASH, LEDGER_BEFORE, PAYLOAD_SHA256}:
        raise ProtocolError("the record of the site's ledger lacks keys, or holds unknown ones")
    if any(isinstance(value, str) and len(value) > MAX_VALUE for value in record.values()):
        raise ProtocolError("the record of the site's ledger holds overlong values")
    return Head(
        count=read_count(record, LEDGER_COUNT),
        hash=read_text(record, LEDGER_HASH),
        before=read_text(record, LEDGER_BEFORE),
        chain=read_text(record, LEDGER_CHAIN),
        sha256=read_text(record, PAYLOAD_SHA256),
        signature=read_text(record, SIGNATURE) if SIGNATURE in record else "",
    )


def place_to_records(place: int) -> RecordDict:
    """A node's place in the roster, counted from 0."""
    return RecordDict({HEADER: ConfigRecord({PLACE: place})})


def place_from_records(records: RecordDict) -> int:
    """The place in a node's records.

    Raises:
        ProtocolError: it is not one of ours.
    """
    if set(records) != {HEADER}:
        raise ProtocolError(f"the answer holds {len(records)} records, expected {HEADER} alone")
    return read_count(read_config(records, HEADER), PLACE)
