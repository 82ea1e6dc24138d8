"""Flower records: what goes in comes out, and whatever is not ours is refused."""

import dataclasses

import numpy as np
import pytest
from csasn.federated.secagg.messages import KeySet, Sealing, SignedKey, Survivors, Witness
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn import wire
from csasn.errors import ProtocolError
from csasn.federated.messages import (
    Absence,
    Accepted,
    Answer,
    Confirmation,
    Header,
    Kind,
    ModelUpdate,
    Reason,
    Request,
    Shares,
    Step,
    Weighting,
)
from server.flower_runtime import _identify

HEADER = Header("a" * 64, "b" * 64, "run", 3, 7)
WEIGHTING = Weighting(np.array([1.0, 0.9]), np.array([30, 20]), np.arange(12).reshape(2, 3, 2))
STEP = ModelUpdate("c" * 64, step=Step(np.arange(-3, 4, dtype="<i2"), np.array([0.1, 0.2]), 48))
WHOLE = ModelUpdate("c" * 64, whole=np.linspace(0, 1, 9, dtype=np.float32))
KEYS = KeySet(5, (SignedKey(b"k" * 32, "a" * 128), SignedKey(b"l" * 32, "b" * 128)))
WITNESSES = (Witness(b"d" * 32, "c" * 128), Witness(b"e" * 32, "d" * 128))
ALL = Survivors(("centerA", "centerB"), WITNESSES, {})
SOME = Survivors(("centerA", "centerB"), WITNESSES, {"centerB": "e" * 128})
SECURE = [
    Request(Kind.KEYS, HEADER),
    Request(Kind.HELLO, HEADER, keys=KEYS),
    Request(Kind.TRAIN, HEADER, STEP, WEIGHTING, Accepted(6, ("centerA",)), np.array([0.05, 0.06]), KEYS),
    Request(Kind.CONFIRM, HEADER, survivors=ALL),
    Request(Kind.UNMASK, HEADER, survivors=SOME, blobs=(b"one", b"two")),
]
REQUESTS = [
    Request(Kind.HELLO, HEADER),
    Request(Kind.TRAIN, HEADER, WHOLE, WEIGHTING, None, np.array([0.05, 0.06])),
    Request(Kind.TRAIN, HEADER, STEP, WEIGHTING, Accepted(6, ("centerA", "centerB")), np.array([0.05, 0.06])),
    Request(Kind.VALIDATE, HEADER, STEP, WEIGHTING, Accepted(6, ())),
    Request(Kind.FINISH, HEADER, WHOLE, WEIGHTING, Accepted(6, ("centerA",))),
    Request(Kind.TRAIN, HEADER, WHOLE, Weighting(np.ones(2), np.array([3, 4]), np.zeros((0, 3, 2), int)), None, np.array([0.05])),
]


@pytest.fixture(autouse=True)
def _who():
    _identify(1)


def message_of(request, records=None):
    return Message(records or wire.request_to_records(request), dst_node_id=2, message_type=wire.MESSAGE_TYPES[request.kind])


def same(a, b):
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


@pytest.mark.parametrize("request_", REQUESTS + SECURE)
def test_a_request_comes_back_as_it_went(request_):
    message = message_of(request_)
    assert same(wire.request_from_message(message), request_)
    whole = request_.model.whole if request_.model else None
    assert wire.size_bytes(message.content) > (0 if whole is None else whole.nbytes)


@pytest.mark.parametrize("dtype", ["<i2", "<i4"])
def test_an_answer_comes_back_as_it_went_with_its_size(dtype):
    answer = Answer(np.arange(5), np.arange(-4, 4, dtype=dtype))
    back = wire.answer_from_records(wire.answer_to_records(answer))
    assert same(dataclasses.replace(back, num_bytes=0), answer)
    assert back.num_bytes > answer.counts.nbytes + answer.update_P.nbytes


@pytest.mark.parametrize("blobs", [(b"x" * 60, b"y" * 60), ()])
def test_what_seals_an_answer_comes_back_as_it_went(blobs):
    sealing = Sealing(blobs, (b"h" * 32,) * len(blobs), "f" * 128)
    answer = Answer(np.arange(5), np.arange(-4, 4, dtype="<i2") if blobs else None, sealing)
    assert same(dataclasses.replace(wire.answer_from_records(wire.answer_to_records(answer)), num_bytes=0), answer)


@pytest.mark.parametrize("word", [KEYS.keys[0], Confirmation("a" * 128), Shares(b"s" * 96)])
def test_a_key_a_signature_and_shares_come_back_as_they_went(word):
    assert wire.answer_from_records(wire.answer_to_records(word)) == word


@pytest.mark.parametrize(
    ("request_", "key", "value", "says"),
    [
        (SECURE[1], "keys", [b"k" * 32], "1 keys with 2 signatures"),
        (SECURE[1], "keys", ["k"], "keys is missing, or no list of bytes"),
        (SECURE[1], "epoch", -1, "epoch is missing, or not a count"),
        (SECURE[3], "witnesses", [b"d" * 32], "2 survivors with 2 signatures"),
        (SECURE[4], "confirmed", ["centerA", "centerB"], "1 confirmations"),
        (SECURE[4], "blobs", [1, 2], "blobs is missing, or no list of bytes"),
        (SECURE[4], "survivors", "centerA", "survivors is missing, or no list of str"),
    ],
)
def test_a_masked_request_that_is_not_ours_is_refused(request_, key, value, says):
    records = wire.request_to_records(request_)
    records["header"][key] = value
    with pytest.raises(ProtocolError, match=says):
        wire.request_from_message(message_of(request_, records))


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (RecordDict({"key": ConfigRecord({"public": b"k"})}), "record key lacks keys"),
        (RecordDict({"key": ConfigRecord({"public": "k", "signature": "s"})}), "public is missing, or not bytes"),
        (RecordDict({"shares": ConfigRecord({"pieces": b"s", "more": 1})}), "record shares lacks keys, or holds unknown"),
        (RecordDict({"confirmation": ConfigRecord({"signature": 5})}), "signature is missing, or not text"),
        (RecordDict({"shares": ConfigRecord({"pieces": b"s"}), "key": ConfigRecord({})}), "the answer holds 2 records"),
    ],
)
def test_a_key_a_signature_or_shares_that_are_not_ours_are_refused(records, says):
    with pytest.raises(ProtocolError, match=says):
        wire.answer_from_records(records)


def test_a_reason_comes_back_as_it_went():
    absence = Absence(Reason.TRAINING, "loss is nan")
    assert wire.answer_from_records(wire.answer_to_records(absence)) == absence


def broken(change):
    records = wire.request_to_records(REQUESTS[2])
    change(records)
    return message_of(REQUESTS[2], records)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.pop("header"), "the message holds 1 records"),
        (lambda r: r.__setitem__("more", ConfigRecord({})), "the message holds 3 records"),
        (lambda r: r["header"].__setitem__("shell", "rm"), "1 unknown keys"),
        (lambda r: r["header"].__setitem__("round", -1), "round is missing, or not a count"),
        (lambda r: r["header"].__setitem__("round", "3"), "round is missing, or not a count"),
        (lambda r: r["header"].pop("study-hash"), "study-hash is missing"),
        (lambda r: r["header"].__setitem__("accepted-sites", [1, 2]), "accepted-sites is missing, or no list of str"),
        (lambda r: r["header"].pop("step-sizes"), "step-sizes is missing"),
        (lambda r: r["header"].__setitem__("ranges", [1, 2]), "ranges is missing, or no list of float"),
        (lambda r: r["header"].__setitem__("class-histogram", [True, False]), "class-histogram is missing, or no list of int"),
        (lambda r: r["arrays"].__setitem__("step-sum", Array(np.zeros(3, np.float32))), "step-sum is float32"),
        (lambda r: r["arrays"].__setitem__("step-sum", Array(np.zeros((3, 3), np.int16))), "of 2 axes, expected"),
        (lambda r: r["header"].__setitem__("class-history", [1, 2, 3]), "has 3 counts, expected 3 a class and round"),
        (lambda r: r["header"].__setitem__("class-weights", []), "expected 3 a class and round"),
        (lambda r: r["arrays"].__setitem__("whole-state", Array(np.zeros(3, np.float32))), "a whole model and a step"),
        (lambda r: r["arrays"].pop("step-sum"), "or neither"),
        (lambda r: r["arrays"].__setitem__("images", Array(np.zeros(1, np.float32))), "1 unknown arrays"),
        (lambda r: r.__setitem__("arrays", ConfigRecord({})), "holds no arrays"),
    ],
)
def test_a_request_that_is_not_ours_is_refused(change, says):
    with pytest.raises(ProtocolError, match=says):
        wire.request_from_message(broken(change))


def packed(data, shape=(3,), dtype="int64"):
    return RecordDict({"arrays": ArrayRecord({"counts": Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)})})


def npy(array):
    return Array(array).data


@pytest.mark.parametrize(
    "records",
    [
        packed(b""),
        packed(b"\x93NUMPY\x01\x00"),
        packed(npy(np.arange(3))[:-1]),
        packed(npy(np.arange(3)) + b"\x00"),
        packed(npy(np.arange(4))),
        packed(npy(np.arange(3)), shape=(10**12,)),
        packed(npy(np.arange(3.0)), dtype="int64"),
        packed(npy(np.arange(3)).replace(b"(3,)", b"(9,)")),
        packed(b"\x80\x04pickle"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused(records):
    with pytest.raises(ProtocolError):
        wire.answer_from_records(records)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300),
    shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    dtype=st.sampled_from(["int64", "<i8", "O"]),
)
def test_no_bytes_do_more_than_be_refused(data, shape, dtype):
    with pytest.raises(ProtocolError):
        wire.answer_from_records(packed(data, shape, dtype))


def test_an_answer_holds_update_and_counts_and_nothing_else():
    records = wire.answer_to_records(Answer(np.arange(5)))
    records["arrays"]["images"] = Array(np.zeros(3))
    with pytest.raises(ProtocolError, match="expected counts and update alone"):
        wire.answer_from_records(records)


def test_an_unknown_message_type_is_refused():
    with pytest.raises(ProtocolError, match=r"unknown message type 'query\.shell'"):
        wire.request_from_message(Message(RecordDict(), dst_node_id=2, message_type="query.shell"))
