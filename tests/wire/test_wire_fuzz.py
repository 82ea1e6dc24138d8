"""Messages from the network that are not ours: 10^5 of them are read or refused with an error of ours, without crash or hang."""

import copy
import random
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from csasn import wire
from csasn.errors import CsasnError
from csasn.federated.messages import Absence, Answer, Collect, Ready, Reason, Request, transcript
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.secagg.sealing import Sealing
from server.flower.runtime import _identify
from wire.test_wire import REQUESTS, message_of

NUM_INPUTS = 50_000  # of each of the two
LONGEST_S = 5.0  # of the processor: a shared machine may stop a process for a moment
ANSWERS = [
    Answer(np.arange(5), np.arange(-4, 4, dtype="<i2"), Sealing(b"v" * 32, "f" * 128)),
    Answer(np.arange(5), None, Sealing(b"v" * 32, "f" * 128)),
    Answer(np.arange(5), np.arange(3)),
    Ready(b"t" * 32, SignedKey(b"k" * 32, "a" * 128)),
    Absence(Reason.NUMBER, 17),
]
VALUES = (
    *(0, -1, 2**63 - 1, -(2**63), 0.5, float("nan"), float("inf"), True, "", "x" * 300, "\x00", b"", b"\xff" * 40),
    *([], [0], [1.5, float("nan")], ["a"] * 50, [b"k" * 32] * 50, [True], [2**62] * 9),
)
DTYPES = ("<i2", "<i4", "<i8", "|i1", "<f4", "<f8", "|b1", "int99", "", "V8", "O")


def change(records: RecordDict, draw: random.Random) -> None:
    """One thing about them is no longer so."""
    name = draw.choice(list(records))
    record = records[name]
    match draw.randrange(6):
        case 0:
            del records[name]
        case 1:
            records[draw.choice(["more", "header", "arrays", "sealing", "ready", "absence", "ledger"])] = copy.copy(record)
        case 2:
            kinds = (ConfigRecord({"a": 1}), ArrayRecord({}), MetricRecord({"a": 1}))
            records[name] = draw.choice(kinds)
        case _ if isinstance(record, ArrayRecord):
            change_array(record, draw)
        case _ if isinstance(record, ConfigRecord) and len(record):
            key = draw.choice(list(record))
            if draw.random() < 0.2:
                del record[key]
            else:
                record[draw.choice([key, key, "unknown"])] = draw.choice(VALUES)


def change_array(record: ArrayRecord, draw: random.Random) -> None:
    if not len(record):
        record["more"] = Array(np.zeros(2))
        return
    key = draw.choice(list(record))
    packed = record[key]
    data = bytearray(packed.data)
    match draw.randrange(4):
        case 0:
            packed.dtype = draw.choice(DTYPES)
        case 1:
            packed.shape = draw.choice([(), (0,), (-1,), (2**40,), (3, 3), (len(data),)])
        case 2:
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        case 3:
            data = data[: draw.randrange(len(data))] if draw.random() < 0.5 else data + bytes(draw.randrange(40))
    packed.data = bytes(data)


def slowest(read, originals, seed):
    """The most processor time that one of many damaged messages took; anything but an error of ours goes through."""
    draw, longest, refused = random.Random(seed), 0.0, 0
    for _ in range(NUM_INPUTS):
        records = copy.deepcopy(draw.choice(originals))
        for _ in range(draw.randint(1, 3)):
            if len(records):
                change(records, draw)
        started = time.thread_time()
        try:
            read(records)
        except CsasnError:
            refused += 1
        longest = max(longest, time.thread_time() - started)
    assert refused > NUM_INPUTS // 2
    return longest


@pytest.fixture(autouse=True)
def _who():
    _identify(1)


def test_a_damaged_request_is_read_or_refused_in_no_time():
    originals = [(request, wire.request_to_records(request)) for request in REQUESTS]
    kinds = iter(random.Random(3).choices(originals, k=NUM_INPUTS))

    def read(records):
        request = wire.request_from_message(message_of(next(kinds)[0], records or RecordDict({"empty": ConfigRecord({"a": 1})})))
        assert isinstance(request, Request)
        if not isinstance(request, Collect):
            assert len(transcript(request)) == 32

    assert slowest(read, [records for _, records in originals], seed=1) < LONGEST_S


def test_a_damaged_answer_is_read_or_refused_in_no_time():
    assert slowest(wire.answer_from_records, [wire.answer_to_records(answer) for answer in ANSWERS], seed=2) < LONGEST_S
