"""The ledger: a line before each message, a chain in which any change is found, and heads that the coordinator compares."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
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

from client.flower.app import _node
from client.worker.outbox import Outbox
from csasn import wire
from csasn.errors import ProtocolError, StorageError
from csasn.federated.messages import Absence, Answer, Header, Hello, Reason
from csasn.federated.receipt import PURPOSE, RECEIVED_FILE, START, read_receipts
from csasn.privacy.ledger import Contents, Entry, Ledger, LedgerError, Occasion, read_chain
from csasn.trust import identity
from csasn.trust.membership import Member, Membership
from csasn.wire.payload import measure_payload
from server.run.receipts import Receipts

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
    Outbox(Ledger(path)).post(Absence(Reason.FAILED), occasion(), None)
    assert "disk" in order
    assert order[-1] == "message"


def test_a_ledger_that_cannot_be_written_sends_nothing(path, monkeypatch):
    outbox = Outbox(Ledger(path))
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="no space left"):
        outbox.post(Absence(Reason.FAILED), occasion(), None)


def answer_of(outbox, attempt=1, at=0):
    return outbox.post(Absence(Reason.NUMBER, at), occasion(attempt), None)


def request(attempt=1):
    return Hello(Header("a" * 64, "b" * 64, 1, 1, "run", attempt))


def membership(key=None):
    public = key.public_key().public_bytes_raw().hex() if key else None
    members = [Member(site="north", weight_units=64)]
    members = [member.model_copy(update={"identity": public}) for member in members]
    return Membership.model_construct(study_hash="a" * 64, members=tuple(members))


def signer(key):
    return partial(identity.sign, key)


@pytest.fixture
def receipts(tmp_path):
    return Receipts(tmp_path, membership())


def test_the_payload_has_one_hash_on_both_sides_of_flowers_wire(path):
    answers = [Answer(np.arange(5), np.arange(-4, 4, dtype="<i2")), Answer(np.arange(3))]
    for records in [*map(wire.answer_to_records, answers), answer_of(Outbox(Ledger(path)))]:
        back = recorddict_from_proto(recorddict_to_proto(records))
        assert measure_payload(back) == measure_payload(records)


@pytest.mark.parametrize("lines", [0, 9])
def test_an_answer_with_its_head_is_read_whole_and_its_size_counted(lines, path):
    """Flower cannot count the bytes of an empty text, so that no head may hold one."""
    ledger = Ledger(path)
    ledger.expect(lines)
    counts = wire.answer_to_records(Answer(np.arange(5)))
    records = wire.attach_head(counts, ledger.append(occasion(), CONTENTS))
    assert wire.answer_from_records(records).num_bytes > wire.size_bytes(counts) + 4 * 64


def test_payloads_that_differ_in_anything_have_different_hashes():
    answer = Answer(np.arange(8), np.arange(8, dtype="<i2"))
    records = [
        wire.answer_to_records(answer),
        wire.answer_to_records(Answer(np.arange(8))),
        wire.answer_to_records(Answer(np.arange(8), np.arange(8, dtype="<i4"))),
        wire.answer_to_records(Answer(np.arange(8).reshape(2, 4))),
        wire.answer_to_records(Absence(Reason.CONTENTS)),
        wire.answer_to_records(Absence(Reason.NUMBER)),
        wire.answer_to_records(Absence(Reason.NUMBER, 1)),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": 1})}),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": "1"})}),
        wire.Records({**wire.answer_to_records(answer), "more": ConfigRecord({"n": True})}),
    ]
    assert len({measure_payload(record)[1] for record in records}) == len(records)


def test_receipts_of_a_ledger_that_goes_on_are_kept(path, tmp_path, receipts):
    outbox = Outbox(Ledger(path))
    marked = [receipts.take("north", request(attempt), answer_of(outbox, attempt)) for attempt in (1, 2, 3)]
    assert marked == ["", "", ""]
    kept, unreadable = read_receipts(tmp_path / RECEIVED_FILE)
    assert [(item.site, item.attempt, item.kind, item.count, item.chain, item.refused, item.marked) for item in kept] == [
        ("north", attempt, "hello", attempt, START, "", "") for attempt in (1, 2, 3)
    ]
    assert unreadable == 0


def test_lines_that_never_arrived_leave_a_gap_and_no_alarm(path, receipts, tmp_path):
    outbox = Outbox(Ledger(path))
    for attempt in range(1, 8):
        records = answer_of(outbox, attempt)
        if attempt % 3 == 1:
            assert receipts.take("north", request(attempt), records) == ""
    assert [item.count for item in read_receipts(tmp_path / RECEIVED_FILE)[0]] == [1, 4, 7]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_ledger_that_goes_back_is_told_also_after_a_restart_of_the_coordinator_and_stops_nothing(
    restarted, path, tmp_path, receipts
):
    """Secrecy does not rest on it: a site that was brought back from a copy answers on, and its receipts say so."""
    outbox = Outbox(Ledger(path))
    for attempt in (1, 2, 3):
        receipts.take("north", request(attempt), answer_of(outbox, attempt))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    receipts = Receipts(tmp_path, membership()) if restarted else receipts
    outbox = Outbox(Ledger(path))
    told = [receipts.take("north", request(4), answer_of(outbox, 4)) for _ in range(2)]
    assert told[0].startswith("the site's ledger went back from line 3 to line 2: it was cut, replaced or brought back")
    assert told[1] == ""  # of each break once: it goes on from there
    kept = read_receipts(tmp_path / RECEIVED_FILE)[0]
    assert [item.marked for item in kept] == ["", "", "", told[0], ""]
    assert not any(item.refused for item in kept)


def test_a_forked_ledger_is_found_at_its_next_line(tmp_path, receipts):
    fork = tmp_path / "fork.jsonl"
    outbox, other = Outbox(Ledger(tmp_path / "ledger.jsonl")), Outbox(Ledger(fork))
    receipts.take("north", request(1), answer_of(outbox))
    answer_of(other, at=3)
    told = receipts.take("north", request(2), answer_of(other))
    assert told.startswith("line 2 of the site's ledger does not follow from line 1")


@pytest.mark.parametrize("kept", [0, 2])
def test_a_ledger_older_than_the_diary_begins_a_new_chain_with_a_line_that_says_so(kept, path, tmp_path, receipts):
    """Missing, or brought back from a copy."""
    outbox = Outbox(Ledger(path))
    for attempt in (1, 2, 3):
        receipts.take("north", request(attempt), answer_of(outbox, attempt))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    ledger = Ledger(path)
    ledger.expect(3)
    *_, line = entries(path)
    assert (line.outcome, line.count) == ("restored", kept + 1)
    assert line.why == f"the ledger ended at line {kept}, and had 3 when this site last answered"
    outbox = Outbox(ledger)
    told = [receipts.take("north", request(attempt), answer_of(outbox, attempt)) for attempt in (4, 5)]
    assert told == [f"the site's ledger begins a new chain at line {kept + 2}, after line 3: it was brought back, or lost", ""]
    assert [item.chain for item in read_receipts(tmp_path / RECEIVED_FILE)[0]] == [START, START, START, line.hash, line.hash]
    assert Ledger(path).append(occasion(), CONTENTS).chain == line.hash  # also after a restart
    assert ledger.sent_bytes("run", 1) == Ledger(path).sent_bytes("run", 1) - 24


def test_a_ledger_as_long_as_the_diary_says_goes_on_with_its_chain(path):
    ledger, heads = fill(path)
    for lines in (0, 3, 4):
        ledger.expect(lines)
    assert ledger.append(occasion(), CONTENTS).chain == heads[0].chain == START
    assert [entry.outcome for entry in entries(path)] == ["sent"] * 5


def test_each_break_begins_a_chain_of_its_own(path):
    ledger, _ = fill(path, 2)
    ledger.expect(9)
    first = ledger.append(occasion(), CONTENTS).chain
    ledger.expect(9)
    second = ledger.append(occasion(), CONTENTS).chain
    assert len({START, first, second}) == 3


def test_a_restored_ledger_whose_line_cannot_be_written_sends_nothing(path, monkeypatch):
    ledger, _ = fill(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StorageError, match="no space left"):
            ledger.expect(2)
    ledger.expect(2)
    assert [entry.outcome for entry in entries(path)] == ["sent", "restored"]


def test_an_answer_without_a_head_or_with_that_of_another_message_is_refused(path, receipts):
    bare = wire.answer_to_records(Absence(Reason.FAILED))
    with pytest.raises(ProtocolError, match="no head"):
        receipts.take("north", request(), bare)
    other = wire.attach_head(bare, wire.head_from_records(answer_of(Outbox(Ledger(path)))))
    with pytest.raises(ProtocolError, match="speaks of another message"):
        receipts.take("north", request(), other)


@pytest.mark.parametrize("key", ["ledger-chain", "ledger-count", "ledger-hash", "ledger-before", "payload-sha256"])
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
    wrong.append(Outbox(Ledger(path), lambda _, statement: identity.sign(key, "membership", statement)))
    wrong.append(Outbox(Ledger(path), lambda _, statement: identity.sign(key, PURPOSE, statement[:-1])))
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


def test_a_signature_covers_the_chain_the_count_both_hashes_and_the_payload(path):
    head = Ledger(path).append(occasion(), CONTENTS)
    changed = [
        replace(head, chain="c" * 64), replace(head, count=2), replace(head, hash="c" * 64), replace(head, before="c" * 64),
        replace(head, sha256="c" * 64), head,
    ]  # fmt: skip
    assert len({other.statement for other in changed}) == len(changed)


def test_a_site_opens_its_ledger_once(tmp_path):
    files = ("site.yaml", "study.yaml", "membership.json", str(tmp_path / "state"))
    assert _node(*files) is _node(*files)
    node = _node(*files)
    assert node.ledger is node.ledger
