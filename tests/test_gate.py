"""The egress gate: exactly what the study allows leaves a site, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from csasn.federated.secagg.coordinator import blob_bytes
from csasn.federated.secagg.messages import Sealing, SignedKey
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.app import reason_of_failure
from client.outbox import Outbox
from csasn import wire
from csasn.contract import Contract
from csasn.federated.messages import Absence, Answer, Confirmation, Kind, Reason, Shares
from csasn.membership import Member, Membership
from csasn.model.network import build_network
from csasn.privacy.gate import RefusedError, Terms, check_outgoing
from csasn.privacy.ledger import Ledger, Occasion
from csasn.site import read_site
from csasn.study import read_study
from csasn.wire.payload import describe, measure_payload

OCCASION = Occasion("run", 2, 5, "train")


@pytest.fixture(scope="module")
def contract(tmp_path_factory, write_small_hospitals):
    study = read_study(write_small_hospitals(tmp_path_factory.mktemp("gate") / "h", ("north", "south"), num_cases=6))
    members = tuple(Member(site=site, weight_units=32) for site in ("north", "south"))
    return Contract.of(study, Membership(study_hash=study.study_hash, members=members), build_network(study))


@pytest.fixture
def terms(contract):
    return Terms(contract, "north", Kind.TRAIN, 2)


@pytest.fixture
def records(contract):
    counts = np.ones(contract.counts[Kind.TRAIN].size, np.int64)
    return wire.answer_to_records(Answer(counts, np.full(contract.state.num_shared, -3, "<i2")))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, write_small_hospitals):
    """A contract of four sites that mask what they send."""
    sites = ("north", "south", "east", "west")
    folder = tmp_path_factory.mktemp("secure") / "h"
    study = read_study(write_small_hospitals(folder, sites, num_cases=6, federation={"secure_aggregation": True}))
    members = tuple(Member(site=site, weight_units=16) for site in sites)
    return Contract.of(study, Membership(study_hash=study.study_hash, members=members), build_network(study))


@pytest.fixture
def sealed(secure):
    """An answer to train: any integers, and what goes with them."""
    counts = np.full(secure.counts[Kind.TRAIN].size, -(2**62), np.int64)
    sealing = Sealing((bytes(blob_bytes(4)),) * 3, (bytes(32),) * 4, "a" * 128)
    return wire.answer_to_records(Answer(counts, np.full(secure.state.num_shared, 32767, "<i2"), sealing))


@pytest.fixture
def outbox(tmp_path):
    return Outbox(Ledger(tmp_path / "ledger.jsonl"))


def ledger_lines(outbox):
    return [json.loads(line) for line in outbox.ledger.path.read_text().splitlines()]


def judge(records, terms):
    check_outgoing(describe(records), terms)


def array(records, name, values):
    records["arrays"][name] = Array(np.ascontiguousarray(values))


def values_of(records, name):
    return wire.answer_from_records(records).update_P if name == "update" else wire.answer_from_records(records).counts


def with_value(values, place, value):
    changed = values.copy()
    changed[place] = value
    return changed


def test_what_the_study_asks_for_passes(records, terms):
    judge(records, terms)


WORDS = {
    Kind.KEYS: SignedKey(bytes(32), "b" * 128),
    Kind.CONFIRM: Confirmation("c" * 128),
    Kind.UNMASK: Shares(bytes(3 * 2 * 32)),
}


def test_masked_integers_pass_whatever_they_are_with_their_sealing_alone(sealed, secure):
    terms = Terms(secure, "north", Kind.TRAIN, 2)
    judge(sealed, terms)
    del sealed["sealing"]
    with pytest.raises(RefusedError, match="records or values that the study does not know"):
        judge(sealed, terms)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blobs", [bytes(blob_bytes(4))] * 2),
        ("blobs", [bytes(blob_bytes(4) + 1)] * 3),
        ("blobs", ["a" * blob_bytes(4)] * 3),
        ("secret-hashes", [bytes(32)] * 5),
        ("signature", "a" * 127),
        ("signature", "a case name" + "a" * 117),
        ("note", "anything"),
    ],
)
def test_a_sealing_of_other_sizes_is_refused(sealed, secure, key, value):
    sealed["sealing"][key] = value
    with pytest.raises(RefusedError, match="records or values that the study does not know"):
        judge(sealed, Terms(secure, "north", Kind.TRAIN, 2))


@pytest.mark.parametrize("kind", WORDS)
def test_a_key_a_signature_and_shares_pass_where_they_are_asked_for_alone(kind, secure):
    terms = Terms(secure, "north", kind, 2, num_survivors=3)
    judge(wire.answer_to_records(WORDS[kind]), terms)
    for other in set(WORDS) - {kind}:
        with pytest.raises(RefusedError, match="records or values"):
            judge(wire.answer_to_records(WORDS[other]), terms)


def test_shares_of_more_than_the_survivors_asked_for_are_refused(secure):
    terms = Terms(secure, "north", Kind.UNMASK, 2, num_survivors=4)
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(WORDS[Kind.UNMASK]), terms)


def test_a_study_that_masks_lets_no_answer_out_in_plain(records, secure):
    plain = Answer(np.ones(secure.counts[Kind.HELLO].size, np.int64))
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(plain), Terms(secure, "north", Kind.HELLO, 0))


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.VALIDATE])
def test_counts_alone_answer_what_asks_for_counts(kind, contract):
    judge(wire.answer_to_records(Answer(np.ones(contract.counts[kind].size, np.int64))), Terms(contract, "north", kind, 2))


def test_statistics_go_with_the_counts_that_finish(contract):
    counts, statistics = (np.ones(layout.size, np.int64) for layout in (contract.counts[Kind.FINISH], contract.statistics))
    judge(wire.answer_to_records(Answer(counts, statistics)), Terms(contract, "north", Kind.FINISH, 2))
    with pytest.raises(RefusedError, match="array update is missing"):
        judge(wire.answer_to_records(Answer(counts)), Terms(contract, "north", Kind.FINISH, 2))


@pytest.mark.parametrize("bits", [1, 2])
def test_an_update_has_the_type_of_its_round(bits, records, contract):
    eight = contract.study.model_copy(update={"federation": contract.study.federation.model_copy(update={"upload_bits": 8})})
    terms = Terms(replace(contract, study=eight), "north", Kind.TRAIN, bits)
    update = values_of(records, "update")
    array(records, "update", update.astype(np.int8) if bits == 2 else update)
    judge(records, terms)
    array(records, "update", update if bits == 2 else update.astype(np.int8))
    with pytest.raises(RefusedError, match="array update is not"):
        judge(records, terms)


FORBIDDEN = {
    "an extra array": (lambda r: array(r, "images", np.zeros((2, 8, 8), np.uint8)), "1 arrays that the study does not know"),
    "a missing array": (lambda r: r["arrays"].pop("update"), "array update is missing"),
    "a wrong shape": (lambda r: array(r, "counts", np.ones(7, np.int64)), r"array counts is not <i8 of shape \("),
    "an array in two dimensions": (lambda r: array(r, "counts", values_of(r, "counts")[:, None]), "array counts is not <i8"),
    "a wider type": (lambda r: array(r, "update", values_of(r, "update").astype("<i4")), "array update is not <i2"),
    "floats": (lambda r: array(r, "update", values_of(r, "update").astype(np.float32)), "array update is not <i2"),
    "NaN": (lambda r: array(r, "update", np.full(5, np.nan, np.float32)), "holds values that are not finite"),
    "infinity": (lambda r: array(r, "counts", np.full(5, np.inf)), "holds values that are not finite"),
    "objects": (
        lambda r: r["arrays"].__setitem__("counts", Array("object", (1,), "numpy.ndarray", b"\x80\x04.")),
        "not what its desc",
    ),
    "an unknown type": (
        lambda r: r["arrays"].__setitem__("counts", Array("no type", (1,), "numpy.ndarray", b"x")),
        "not what its desc",
    ),
    "a value beyond the site's weight": (
        lambda r: array(r, "update", with_value(values_of(r, "update"), 9, 32000)),
        "holds values beyond",
    ),
    "a negative count": (lambda r: array(r, "counts", with_value(values_of(r, "counts"), 0, -1)), "confusion are negative"),
    "an unknown record": (lambda r: r.__setitem__("notes", ConfigRecord({"case": "Jane Doe"})), "records or values"),
    "an extra scalar": (lambda r: r.__setitem__("metrics", MetricRecord({"loss": 0.3})), "records or values"),
    "scalars in place of arrays": (lambda r: r.__setitem__("arrays", ConfigRecord({"counts": 3})), "records or values"),
    "an absence beside an answer": (
        lambda r: r.__setitem__("absence", ConfigRecord({"reason": "refused", "text": ""})),
        "records or values",
    ),
    "another record of arrays": (lambda r: r.__setitem__("more", ArrayRecord({"counts": Array(np.zeros(3))})), "records or values"),
    "nothing": (lambda r: r.pop("arrays"), "records or values"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_the_study_does_not_know_is_refused(name, records, terms):
    change, says = FORBIDDEN[name]
    change(records)
    with pytest.raises(RefusedError, match=says):
        judge(records, terms)


@pytest.mark.parametrize(
    "hide",
    [
        lambda packed: Array(packed.dtype, packed.shape, packed.stype, packed.data + b"Jane Doe"),
        lambda packed: Array(packed.dtype, packed.shape, packed.stype, packed.data.replace(b"          ", b"  'Jane': ")),
        lambda packed: Array(packed.dtype, packed.shape, packed.stype, packed.data.replace(b"), }          ", b"), } # Jane D ")),
        lambda packed: Array(packed.dtype, packed.shape, packed.stype, packed.data.replace(b"}          ", b"}\t         ")),
        lambda packed: Array(packed.dtype, packed.shape, "Jane Doe", packed.data),
        lambda packed: Array(packed.dtype, (1, *packed.shape), packed.stype, packed.data),
    ],
)
def test_nothing_hides_around_the_values_of_an_array(hide, records, terms):
    honest = records["arrays"]["counts"]
    records["arrays"]["counts"] = hide(honest)
    assert records["arrays"]["counts"] != honest
    with pytest.raises(RefusedError, match="bytes of array counts are not what its description says"):
        judge(records, terms)


def test_an_answer_is_judged_by_the_request_it_answers(records, contract):
    for kind in (Kind.HELLO, Kind.VALIDATE, Kind.FINISH):
        with pytest.raises(RefusedError):
            judge(records, Terms(contract, "north", kind, 2))
    with pytest.raises(RefusedError, match="could not read"):
        judge(records, None)


@pytest.mark.parametrize("reason", Reason)
def test_an_absence_with_a_known_reason_and_a_line_passes(reason):
    judge(wire.answer_to_records(Absence(reason, "manifest.csv row 3: label is 'x', expected ±1")), None)
    judge(wire.answer_to_records(Absence(reason)), None)


@pytest.mark.parametrize(
    ("absence", "says"),
    [
        ({"reason": "refused", "text": "two\nlines"}, "not one printable line"),
        ({"reason": "refused", "text": "\x1b[2J"}, "not one printable line"),
        ({"reason": "refused", "text": "\u202eright to left"}, "not one printable line"),
        ({"reason": "refused", "text": "a" * 501}, "not one printable line"),
        ({"reason": "refused", "text": b"bytes"}, "not one printable line"),
        ({"reason": "because", "text": ""}, "not a known one"),
        ({"reason": "refused"}, "more or less"),
        ({"reason": "refused", "text": "", "case": "Jane Doe"}, "more or less"),
    ],
)
def test_any_other_absence_is_refused(absence, says):
    with pytest.raises(RefusedError, match=says):
        judge(RecordDict({"absence": ConfigRecord(absence)}), None)


def test_the_budget_of_a_round_counts_what_was_sent_in_it_even_after_a_restart(records, contract, outbox):
    size = describe(records).num_bytes
    answer = wire.answer_from_records(records)
    budget_mib = 1.5 * size / 2**20

    def send(box):
        left = box.bytes_left(budget_mib, "run", 2)
        return wire.answer_from_records(box.post(answer, OCCASION, Terms(contract, "north", Kind.TRAIN, 2, left)))

    assert isinstance(send(outbox), Answer)
    again = send(Outbox(Ledger(outbox.ledger.path)))
    assert again.reason is Reason.REFUSED
    assert "this site's budget for the round has" in again.text
    assert outbox.bytes_left(budget_mib, "run", 3) == pytest.approx(1.5 * size)
    assert outbox.bytes_left(None, "run", 2) is None


def test_what_is_refused_is_replaced_by_a_line_and_both_are_in_the_ledger(records, terms, outbox, monkeypatch):
    def smuggle(reply, honest=wire.answer_to_records):
        made = honest(reply)
        if isinstance(reply, Answer):
            made["arrays"]["Jane Doe"] = Array(np.zeros(3))
            made["Jane Doe"] = ConfigRecord({"Jane Doe": "1970-01-01"})
        return made

    answer = wire.answer_from_records(records)
    monkeypatch.setattr(wire, "answer_to_records", smuggle)
    sent = outbox.post(answer, OCCASION, terms)
    assert set(sent) == {"absence", "ledger"}
    assert wire.answer_from_records(sent).text.startswith("the gate refused the answer: it holds records or values")
    assert [line["outcome"] for line in ledger_lines(outbox)] == ["refused", "sent"]
    assert wire.head_from_records(sent).count == 2
    assert "Jane" not in outbox.ledger.path.read_text() + str(sent["absence"])


def test_of_a_site_file_that_cannot_be_used_the_coordinator_is_told_no_more_than_that(tmp_path, caplog):
    path = tmp_path / "centerA.yaml"
    path.write_text("{site: centerA, manifest: m.csv, images: i, state: s, proxy: 'http://user:pa55word@proxy.internal'}")
    absence = reason_of_failure(lambda: read_site(path))
    assert absence == Absence(Reason.REFUSED, "the site file or study cannot be used here; this site's log says why")
    assert "centerA.yaml: proxy is 'http://***@proxy.internal'" in caplog.text
    assert "pa55word" not in caplog.text


def test_an_absence_that_the_gate_refuses_is_replaced_too(outbox):
    sent = outbox.post(Absence(Reason.REFUSED, "a\nb"), OCCASION, None)
    assert "not one printable line" in wire.answer_from_records(sent).text


def test_an_honest_answer_leaves_as_it_is_beside_the_head(records, terms, outbox):
    sent = outbox.post(wire.answer_from_records(records), OCCASION, terms)
    assert measure_payload(sent) == measure_payload(records)
    (line,) = ledger_lines(outbox)
    head = wire.head_from_records(sent)
    assert (head.count, head.hash, head.sha256) == (1, line["hash"], line["sha256"])
    assert (line["run"], line["round"], line["attempt"], line["kind"], line["outcome"]) == ("run", 2, 5, "train", "sent")
    assert line["arrays"][1] == ["arrays/update", "<i2", [terms.contract.state.num_shared]]
    assert (line["bytes"], line["sha256"]) == measure_payload(records)
