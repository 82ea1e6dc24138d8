"""The egress gate: exactly what the study allows leaves a site, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.flower.app import reason_of_failure
from client.worker.outbox import Outbox
from csasn import wire
from csasn.errors import (
    ConfigurationError,
    CsasnError,
    DataError,
    DiskFullError,
    KeptError,
    ModelError,
    ProtocolError,
    StorageError,
    TrustError,
)
from csasn.federated.messages import Absence, Answer, Collect, Header, Hello, Kind, Ready, Reason
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.secagg.sealing import Sealing
from csasn.model.network import build_network
from csasn.privacy.contract import Contract
from csasn.privacy.gate import RefusedError, Terms, check_outgoing
from csasn.privacy.ledger import Ledger, Occasion
from csasn.site import read_site
from csasn.study import read_study
from csasn.trust.membership import Member, Membership
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
    sealing = Sealing(bytes(32), "a" * 128)
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


def test_masked_integers_pass_whatever_they_are_with_their_sealing_alone(sealed, secure):
    terms = Terms(secure, "north", Kind.TRAIN, 2)
    judge(sealed, terms)
    del sealed["sealing"]
    with pytest.raises(RefusedError, match="records or values that the study does not know"):
        judge(sealed, terms)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("view", bytes(31)),
        ("view", bytes(33)),
        ("view", "a" * 32),
        ("view", [bytes(32)] * 2),
        ("signature", "a" * 127),
        ("signature", "a case name" + "a" * 117),
        ("signature", bytes(128)),
        ("note", "anything"),
    ],
)
def test_a_sealing_of_other_sizes_is_refused(sealed, secure, key, value):
    sealed["sealing"][key] = value
    with pytest.raises(RefusedError, match="records or values that the study does not know"):
        judge(sealed, Terms(secure, "north", Kind.TRAIN, 2))


QUESTIONS = [kind for kind in Kind if kind not in (Kind.SURVEY, Kind.COLLECT)]  # of a study; a survey has a contract of its own
READY = Ready(bytes(32), SignedKey(bytes(32), "b" * 128))


@pytest.mark.parametrize("kind", QUESTIONS)
def test_to_a_question_of_a_study_that_masks_a_site_says_that_it_is_ready_and_nothing_else(kind, secure, sealed):
    terms = Terms(secure, "north", kind, 2, ready=True)
    judge(wire.answer_to_records(READY), terms)
    with pytest.raises(RefusedError, match="records or values"):
        judge(sealed, terms)
    counts = Answer(np.ones(secure.counts[kind].size, np.int64))
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(counts), terms)
    beside = wire.answer_to_records(READY)
    beside["arrays"] = wire.answer_to_records(counts)["arrays"]
    with pytest.raises(RefusedError, match="records or values"):
        judge(beside, terms)


def test_what_is_collected_is_the_masked_answer_and_a_word_in_its_place_is_refused(secure, contract, sealed):
    header = Header("a" * 64, "b" * 64, 2, 2, "run", 1)
    collects = Terms.of(secure, "north", Collect(header, Kind.TRAIN, bytes(32), ()), None)
    assert collects == Terms(secure, "north", Kind.TRAIN, 2)
    judge(sealed, collects)
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(READY), collects)
    assert Terms.of(secure, "north", Hello(header), None).ready
    assert not Terms.of(contract, "north", Hello(header), None).ready


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transcript", bytes(31)),
        ("transcript", "a" * 32),
        ("public", bytes(33)),
        ("public", [bytes(16)] * 2),
        ("signature", "b" * 127),
        ("signature", "a case name" + "b" * 117),
        ("note", 1),
    ],
)
def test_a_word_of_readiness_of_other_sizes_is_refused(secure, key, value):
    records = wire.answer_to_records(READY)
    records["ready"][key] = value
    with pytest.raises(RefusedError, match="records or values that the study does not know"):
        judge(records, Terms(secure, "north", Kind.TRAIN, 2, ready=True))


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_study_in_plain_lets_no_word_of_readiness_out(kind, contract):
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(READY), Terms(contract, "north", kind, 2))


def test_a_study_that_masks_lets_no_answer_out_in_plain(records, secure):
    plain = Answer(np.ones(secure.counts[Kind.HELLO].size, np.int64))
    with pytest.raises(RefusedError, match="records or values"):
        judge(wire.answer_to_records(plain), Terms(secure, "north", Kind.HELLO, 0))


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.VALIDATE])
def test_counts_alone_answer_what_asks_for_counts(kind, contract):
    judge(wire.answer_to_records(Answer(np.ones(contract.counts[kind].size, np.int64))), Terms(contract, "north", kind, 2))


def test_moments_of_normalisation_answer_what_asks_for_them_and_nothing_else(contract):
    counts, moments = (np.ones(layout.size, np.int64) for layout in (contract.counts[Kind.MEASURE], contract.moments))
    judge(wire.answer_to_records(Answer(counts, moments)), Terms(contract, "north", Kind.MEASURE, 2))
    with pytest.raises(RefusedError, match="array update is missing"):
        judge(wire.answer_to_records(Answer(counts)), Terms(contract, "north", Kind.MEASURE, 2))
    finish = np.ones(contract.counts[Kind.FINISH].size, np.int64)
    with pytest.raises(RefusedError, match="does not know"):
        judge(wire.answer_to_records(Answer(finish, moments)), Terms(contract, "north", Kind.FINISH, 2))


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
        lambda r: r.__setitem__("absence", ConfigRecord({"reason": "failed", "at": 0})),
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
def test_an_absence_with_a_known_reason_and_a_number_passes_and_no_text_goes_with_it(reason):
    records = wire.answer_to_records(Absence(reason, 17, "manifest.csv row 3: label is 'x', expected ±1"))
    judge(records, None)
    assert dict(records["absence"]) == {"reason": reason.value, "at": 17}


@pytest.mark.parametrize(
    ("absence", "says"),
    [
        ({"reason": "because", "at": 0}, "not a known one"),
        ({"reason": 3, "at": 0}, "not a known one"),
        ({"reason": "failed"}, "more or less"),
        ({"reason": "failed", "at": 0, "text": "Jane Doe"}, "more or less"),
        ({"reason": "failed", "text": "Jane Doe"}, "more or less"),
        ({"reason": "failed", "at": -1}, "not that of a question"),
        ({"reason": "failed", "at": 1.0}, "not that of a question"),
        ({"reason": "failed", "at": True}, "not that of a question"),
        ({"reason": "failed", "at": 19700101}, "not that of a question"),
        ({"reason": "failed", "at": "17"}, "not that of a question"),
    ],
)
def test_any_other_absence_is_refused(absence, says):
    with pytest.raises(RefusedError, match=says):
        judge(RecordDict({"absence": ConfigRecord(absence)}), None)


def test_the_budget_of_a_round_counts_what_was_sent_in_it_even_after_a_restart(records, contract, outbox, caplog):
    size = describe(records).num_bytes
    answer = wire.answer_from_records(records)
    budget_mib = 1.5 * size / 2**20

    def send(box):
        left = box.bytes_left(budget_mib, "run", 2)
        return wire.answer_from_records(box.post(answer, OCCASION, Terms(contract, "north", Kind.TRAIN, 2, left)))

    assert isinstance(send(outbox), Answer)
    again = send(Outbox(Ledger(outbox.ledger.path)))
    assert again == Absence(Reason.BUDGET)
    assert "this site's budget for the round has" in caplog.text
    assert outbox.bytes_left(budget_mib, "run", 3) == pytest.approx(1.5 * size)
    assert outbox.bytes_left(None, "run", 2) is None


def test_what_is_refused_is_replaced_by_a_reason_and_both_are_in_the_ledger(records, terms, outbox, monkeypatch, caplog):
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
    assert wire.answer_from_records(sent) == Absence(Reason.CONTENTS)
    refused, told = ledger_lines(outbox)
    assert (refused["outcome"], told["outcome"]) == ("refused", "sent")
    assert refused["why"].startswith("the gate refused the answer: it holds records or values")
    assert refused["why"] in caplog.text
    assert told["why"] == "refuses what it was sent"
    assert wire.head_from_records(sent).count == 2
    assert "Jane" not in outbox.ledger.path.read_text() + str(sent["absence"]) + caplog.text


def test_of_a_site_file_that_cannot_be_used_the_coordinator_is_told_no_more_than_that(tmp_path, caplog):
    path = tmp_path / "centerA.yaml"
    path.write_text("{site: centerA, manifest: m.csv, images: i, state: s, proxy: 'http://user:pa55word@proxy.internal'}")
    assert reason_of_failure(lambda: read_site(path)) == Absence(Reason.UNUSABLE)
    assert "centerA.yaml: proxy is 'http://***@proxy.internal'" in caplog.text
    assert "pa55word" not in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageError("disk of Jane Doe"), Reason.DISK),
        (DataError("manifest.csv row 3", "mend it"), Reason.IMAGES),
        (ConfigurationError("device is cuda"), Reason.UNUSABLE),
        (ModelError("of another size"), Reason.FAILED),
        (ProtocolError("the request is of another study"), Reason.CONTENTS),
        (TrustError("not its signature"), Reason.CONTENTS),
        (KeptError("diary.json is damaged"), Reason.KEPT),
        (DiskFullError("cannot write pending"), Reason.DISK),
        (OSError(30, "Read-only file system", "/state/Jane Doe"), Reason.DISK),
        (MemoryError("Jane Doe"), Reason.MEMORY),
        (ValueError("Jane Doe"), Reason.FAILED),
    ],
)
def test_whatever_goes_wrong_becomes_a_word_and_a_foreign_text_is_nowhere(error, reason, caplog):
    def fail():
        raise error

    assert reason_of_failure(fail) == Absence(reason)
    ours = isinstance(error, CsasnError)
    assert (str(error.message) in caplog.text) if ours else ("Jane" not in caplog.text)


def test_an_absence_that_the_gate_refuses_is_replaced_too(outbox):
    sent = outbox.post(Absence(Reason.NUMBER, 1 << 30), OCCASION, None)
    assert wire.answer_from_records(sent) == Absence(Reason.CONTENTS)
    assert [line["outcome"] for line in ledger_lines(outbox)] == ["refused", "sent"]


def test_an_honest_answer_leaves_as_it_is_beside_the_head(records, terms, outbox):
    sent = outbox.post(wire.answer_from_records(records), OCCASION, terms)
    assert measure_payload(sent) == measure_payload(records)
    (line,) = ledger_lines(outbox)
    head = wire.head_from_records(sent)
    assert (head.count, head.hash, head.sha256) == (1, line["hash"], line["sha256"])
    assert (line["run"], line["round"], line["attempt"], line["kind"], line["outcome"]) == ("run", 2, 5, "train", "sent")
    assert line["arrays"][1] == ["arrays/update", "<i2", [terms.contract.state.num_shared]]
    assert (line["bytes"], line["sha256"]) == measure_payload(records)
