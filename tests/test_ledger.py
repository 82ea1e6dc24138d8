"""The ledger: a line before each message, a chain in which any change is found, and heads that the coordinator compares."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.app import _ledger
from client.outbox import Outbox
from csasn import identity, wire
from csasn.errors import ProtocolError, StorageError
from csasn.federated.messages import Absence, Answer, Header, Kind, Reason, Request
from csasn.membership import Member, Membership
from csasn.privacy.ledger import START, Contents, Entry, Ledger, LedgerError, Occasion, read_chain
from csasn.privacy.receipt import PURPOSE, RECEIVED_FILE, read_receipts
from csasn.wire.payload import measure_payload
from server.receipts import Receipts

CONTENTS = Contents((("arrays/counts", "<i8", (3,)),), (), 24, "a" * 64)


def occasion(attempt=1, current_round=1):
    return Occasion("run", current_round, attempt, "train")


def fill(path, number=4):
    ledger = Ledger(path)
    return ledger, [ledger.append(occasion(attempt), CONTENTS) for attempt in range(1, number + 1)]


def entries(path):
    with path.open("rb") as file:
        return list(read_chain(file))


@cache
def four_lines():
    with TemporaryDirectory() as folder:
        fill(Path(folder) / "ledger.jsonl")
        return (Path(folder) / "ledger.jsonl").read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def test_each_line_holds_the_hash_of_the_line_before(path):
    _, heads = fill(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["before"] for line in lines] == [START, *(line["hash"] for line in lines[:-1])]
    assert [(head.count, head.hash, head.before) for head in heads] == [(n["count"], n["hash"], n["before"]) for n in lines]


def test_the_file_is_its_owners_alone(path):
    fill(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ledger_goes_on_after_a_restart(path):
    _, heads = fill(path)
    head = Ledger(path).append(occasion(9), CONTENTS)
    assert (head.count, head.before) == (5, heads[-1].hash)
    assert len(entries(path)) == 5


def test_two_processes_of_a_site_write_one_chain(path):
    one, _ = fill(path, 1)
    other = Ledger(path)
    counts = [ledger.append(occasion(), CONTENTS).count for ledger in (one, other, other, one, other)]
    assert counts == [2, 3, 4, 5, 6]
    assert len(entries(path)) == 6
    assert one.sent_bytes("run", 1) == 5 * 24  # what it has seen so far
    one.append(occasion(), CONTENTS)
    assert one.sent_bytes("run", 1) == 7 * 24


def test_many_processes_at_once_write_one_chain(path):
    program = (
        "import sys; from pathlib import Path; from csasn.privacy.ledger import *\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for attempt in range(20): ledger.append(Occasion('run', 1, attempt, 'train'), Contents((), (), 1, 'a' * 64))"
    )
    processes = [subprocess.Popen([sys.executable, "-P", "-c", program, str(path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(entries(path)) == 60


def test_only_what_was_sent_counts_as_sent(path):
    ledger, _ = fill(path, 2)
    ledger.append(occasion(), CONTENTS, "refused", "too large")
    ledger.append(occasion(current_round=2), CONTENTS)
    assert (ledger.sent_bytes("run", 1), ledger.sent_bytes("run", 2), ledger.sent_bytes("other", 1)) == (48, 24, 0)
    assert Ledger(path).sent_bytes("run", 1) == 48


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(four_lines()) - 1), byte=st.integers(0, 255))
@example(place=len(four_lines()) - 1, byte=ord("x"))
@example(place=len(four_lines()) - 1, byte=ord("}"))
@example(place=four_lines().index(b"\n"), byte=ord(" "))
@example(place=len(four_lines()) - 300, byte=ord("\n"))
def test_any_change_of_one_byte_is_found(place, byte):
    data = bytearray(four_lines())
    if data[place] == byte:
        return
    data[place] = byte
    with pytest.raises(LedgerError):
        list(read_chain(BytesIO(data)))


def line_edited(lines):
    lines[1] = lines[1].replace(b'"bytes":24', b'"bytes":23')


def line_resealed(lines):
    """Edited, and its own hash made right again."""
    body = lines[1].replace(b'"bytes":24', b'"bytes":23').rsplit(b',"hash":', 1)[0]
    lines[1] = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (line_edited, "line 2: its text does not fit its hash"),
        (line_resealed, "line 3: it does not follow from the line before"),
        (lambda lines: lines.pop(0), "line 1: it says that it is line 2"),
        (lambda lines: lines.pop(2), "line 3: it says that it is line 4"),
        (lambda lines: lines.insert(1, lines[1]), "line 3: it says that it is line 2"),
        (lambda lines: lines.__setitem__(slice(1, 3), [lines[2], lines[1]]), "line 2: it says that it is line 3"),
        (lambda lines: lines.insert(2, b"\n"), "line 3: its text does not fit"),
        (lambda lines: lines.append(b"{}\n"), "line 5: its text does not fit"),
    ],
)
def test_an_edited_cut_or_reordered_ledger_is_found_and_sends_nothing(change, says, path):
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match=says) as error:
        Ledger(path)
    assert error.value.exit_code == 7
    assert "nothing is sent with it" in error.value.hint
    assert path.read_bytes() == b"".join(lines)


def test_a_ledger_cut_while_the_site_runs_sends_nothing_more(path):
    ledger, _ = fill(path)
    os.truncate(path, 500)
    with pytest.raises(LedgerError, match="cut while the site ran"):
        ledger.append(occasion(), CONTENTS)


@pytest.mark.parametrize("kept", [1, 40, 200, -2])
def test_a_line_cut_by_a_crash_is_noted_and_the_chain_goes_on(kept, path):
    fill(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][: kept - 1 if kept < 0 else kept])
    assert isinstance(entries(path)[-1], bytes)
    head = Ledger(path).append(occasion(3), CONTENTS)
    assert [entry.outcome for entry in entries(path)] == ["sent", "sent", "cut", "sent"]
    assert head.count == 4
    assert Ledger(path).sent_bytes("run", 1) == 3 * 24


def test_a_line_that_lacks_its_end_alone_counts(path):
    fill(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert Ledger(path).append(occasion(), CONTENTS).count == 4
    assert path.read_bytes().startswith(whole)
    assert all(isinstance(entry, Entry) for entry in entries(path))


def test_an_old_ledger_costs_a_message_nothing(path, monkeypatch):
    ledger, _ = fill(path, 50)
    read = []
    monkeypatch.setattr("csasn.privacy.ledger._entry", read.append)
    ledger.append(occasion(), CONTENTS)
    assert read == []


def test_the_line_is_on_disk_before_the_message_exists(path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda file, sync=os.fsync: (order.append("disk"), sync(file)))
    monkeypatch.setattr(wire, "attach_head", lambda records, head: order.append("message"))
    Outbox(Ledger(path)).post(Absence(Reason.TRAINING), occasion(), None)
    assert "disk" in order
    assert order[-1] == "message"


def test_a_ledger_that_cannot_be_written_sends_nothing(path, monkeypatch):
    outbox = Outbox(Ledger(path))
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="no space left"):
        outbox.post(Absence(Reason.TRAINING), occasion(), None)


def answer_of(outbox, attempt=1, text="a line"):
    return outbox.post(Absence(Reason.TRAINING, text), occasion(attempt), None)


def request(attempt=1):
    return Request(Kind.TRAIN, Header("a" * 64, "b" * 64, "run", 1, attempt))


def membership(key=None):
    public = key.public_key().public_bytes_raw().hex() if key else None
    members = [Member(site="north", weight_units=64)]
    members = [member.model_copy(update={"identity": public}) for member in members]
    return Membership.model_construct(study_hash="a" * 64, members=tuple(members))


def signer(key):
    return lambda statement: identity.sign(key, PURPOSE, statement)


@pytest.fixture
def receipts(tmp_path):
    return Receipts(tmp_path, membership())


def test_the_payload_has_one_hash_on_both_sides_of_flowers_wire(path):
    answers = [Answer(np.arange(5), np.arange(-4, 4, dtype="<i2")), Answer(np.arange(3))]
    for records in [*map(wire.answer_to_records, answers), answer_of(Outbox(Ledger(path)), text="")]:
        back = recorddict_from_proto(recorddict_to_proto(records))
        assert measure_payload(back) == measure_payload(records)


def test_payloads_that_differ_in_anything_have_different_hashes():
    answer = Answer(np.arange(8), np.arange(8, dtype="<i2"))
    records = [
        wire.answer_to_records(answer),
        wire.answer_to_records(Answer(np.arange(8))),
        wire.answer_to_records(Answer(np.arange(8), np.arange(8, dtype="<i4"))),
        wire.answer_to_records(Answer(np.arange(8).reshape(2, 4))),
        wire.answer_to_records(Absence(Reason.REFUSED, "a")),
        wire.answer_to_records(Absence(Reason.REFUSED, "b")),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": 1})}),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": "1"})}),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": True})}),
    ]
    assert len({measure_payload(record)[1] for record in records}) == len(records)


def test_receipts_of_a_ledger_that_goes_on_are_kept(path, tmp_path, receipts):
    outbox = Outbox(Ledger(path))
    for attempt in (1, 2, 3):
        receipts.take("north", request(attempt), answer_of(outbox, attempt))
    kept, unreadable = read_receipts(tmp_path / RECEIVED_FILE)
    assert [(item.site, item.attempt, item.kind, item.count, item.refused) for item in kept] == [
        ("north", attempt, "train", attempt, "") for attempt in (1, 2, 3)
    ]
    assert unreadable == 0


def test_lines_that_never_arrived_leave_a_gap_and_no_alarm(path, receipts, tmp_path):
    outbox = Outbox(Ledger(path))
    for attempt in range(1, 8):
        records = answer_of(outbox, attempt)
        if attempt % 3 == 1:
            receipts.take("north", request(attempt), records)
    assert [item.count for item in read_receipts(tmp_path / RECEIVED_FILE)[0]] == [1, 4, 7]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_ledger_that_goes_back_is_found_also_after_a_restart_of_the_coordinator(restarted, path, tmp_path, receipts):
    outbox = Outbox(Ledger(path))
    for attempt in (1, 2, 3):
        receipts.take("north", request(attempt), answer_of(outbox, attempt))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    receipts = Receipts(tmp_path, membership()) if restarted else receipts
    for _ in range(2):  # neither its second line anew nor its third
        with pytest.raises(ProtocolError, match=r"ledger went back from line 3 to line [23]: it was cut, replaced or brought back"):
            receipts.take("north", request(4), answer_of(Outbox(Ledger(path)), 4))
    assert [bool(item.refused) for item in read_receipts(tmp_path / RECEIVED_FILE)[0]] == [False, False, False, True, True]


def test_a_forked_ledger_is_found_at_its_next_line(tmp_path, receipts):
    fork = tmp_path / "fork.jsonl"
    outbox, other = Outbox(Ledger(tmp_path / "ledger.jsonl")), Outbox(Ledger(fork))
    receipts.take("north", request(1), answer_of(outbox))
    answer_of(other, text="another history")
    with pytest.raises(ProtocolError, match="line 2 of the site's ledger does not follow from line 1"):
        receipts.take("north", request(2), answer_of(other))


def test_an_answer_without_a_head_or_with_that_of_another_message_is_refused(path, receipts):
    bare = wire.answer_to_records(Absence(Reason.TRAINING))
    with pytest.raises(ProtocolError, match="no head"):
        receipts.take("north", request(), bare)
    other = wire.attach_head(bare, wire.head_from_records(answer_of(Outbox(Ledger(path)))))
    with pytest.raises(ProtocolError, match="speaks of another message"):
        receipts.take("north", request(), other)


@pytest.mark.parametrize("key", ["ledger-count", "ledger-hash", "payload-sha256"])
def test_a_record_of_the_ledger_that_is_not_ours_is_refused(key, path, receipts):
    for change in (lambda r: r.pop(key), lambda r: r.__setitem__(key, 0.5), lambda r: r.__setitem__("more", 1)):
        records = answer_of(Outbox(Ledger(path)))
        change(records["ledger"])
        with pytest.raises(ProtocolError):
            receipts.take("north", request(), records)
    records = answer_of(Outbox(Ledger(path)))
    records["ledger"]["ledger-hash"] = "a" * 10**6
    with pytest.raises(ProtocolError, match="overlong"):
        receipts.take("north", request(), records)


def test_a_site_with_an_identity_signs_and_no_other_signature_counts(path, tmp_path):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    receipts = Receipts(tmp_path, membership(key))
    receipts.take("north", request(), answer_of(Outbox(Ledger(path), signer(key))))
    wrong = [Outbox(Ledger(path), signer(other)), Outbox(Ledger(path))]
    wrong.append(Outbox(Ledger(path), lambda statement: identity.sign(key, "membership", statement)))
    for outbox in wrong:
        with pytest.raises(ProtocolError, match="ledger-head signature of north is not valid"):
            receipts.take("north", request(), answer_of(outbox))
    receipts.take("north", request(), answer_of(Outbox(Ledger(path), signer(key))))


def test_a_line_of_received_that_a_crash_cut_is_passed_over(path, tmp_path, receipts):
    outbox = Outbox(Ledger(path))
    receipts.take("north", request(1), answer_of(outbox))
    with (tmp_path / RECEIVED_FILE).open("ab") as file:
        file.write(b'{"site":"nor')
    again = Receipts(tmp_path, membership())
    again.take("north", request(2), answer_of(outbox))
    kept, unreadable = read_receipts(tmp_path / RECEIVED_FILE)
    assert ([item.count for item in kept], unreadable) == ([1, 2], 1)


def test_a_site_opens_its_ledger_once(tmp_path):
    assert _ledger(str(tmp_path / "state")) is _ledger(str(tmp_path / "state"))
