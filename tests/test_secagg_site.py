"""What a site refuses in secure aggregation: each rule of csasn/SPEC.md, "Secure aggregation", by one lie that breaks it alone."""

from dataclasses import replace

import pytest

import secagg_reference as reference
from csasn.errors import ProtocolError, TrustError
from csasn.federated.secagg import coordinator, pairs, site
from csasn.federated.secagg.messages import EpochContext, KeySet, KeysMissingError, SignedKey, Survivors
from csasn.identity import sign
from secagg_sites import (
    CONTEXT,
    TRAINING,
    answers,
    digest_of,
    key_set,
    names,
    revealed_by,
    seeded,
    sites,
    survivors_of,
    values,
)

ME, NUM = "alpha", 4  # t = 3
ALL, PART, OTHER_PART = ("zeta", "alpha", "mid", "beta"), ("zeta", "alpha", "mid"), ("zeta", "alpha", "beta")
VALIDATE = site.Occasion("validate", 4, "c" * 64)
FINISH = site.Occasion(site.FINISH, 4, "c" * 64)


class Scene:
    """Four sites that answered attempt after attempt, and what the coordinator may say to one of them."""

    def __init__(self, min_sites=1, max_partial=3):
        self.group = sites(NUM, min_sites, max_partial)
        self.state, self.answered = self.group.states[ME], {}

    def attempt(self, number, occasion=TRAINING, transcript=None):
        self.answered = answers(self.group, number, occasion, values(self.group, 3, 16), None, transcript,
                                dict.fromkeys(names(NUM)) | {ME: self.state})  # fmt: skip
        self.state = self.answered[ME].state
        return self

    def survivors(self, chosen):
        return survivors_of(self.group, self.answered, chosen)

    def confirm(self, survivors):
        survivors = survivors if isinstance(survivors, Survivors) else self.survivors(survivors)
        signer = self.group.signer(ME)
        self.state, signature = site.confirm(self.state, ME, self.state.attempt, survivors, self.group.roster, signer)
        return signature

    def reveal(self, survivors):
        survivors = survivors if isinstance(survivors, Survivors) else self.survivors(survivors)
        self.state, revealed = revealed_by(self.group, self.answered, survivors, ME, self.state)
        return revealed

    def open(self, number, occasion=TRAINING, transcript=None, keys=None, context=CONTEXT):
        transcript = transcript or digest_of("transcript", number, occasion)
        keys = (context, keys or self.group.keys)
        return site.open_attempt(self.state, ME, keys, number, transcript, occasion, self.group.roster)


def refuses(phrase, error=ProtocolError):
    return pytest.raises(error, match=phrase)


@pytest.fixture
def scene():
    return Scene().attempt(2)


def test_the_training_cases_are_counted_once_in_a_run(scene):
    with refuses("the training cases are asked for again, after train"):
        scene.open(3, site.Occasion(site.HELLO, 0, ""))


def test_the_training_cases_are_asked_for_again_until_something_else_was():
    scene = Scene()
    scene.state = scene.open(2, site.Occasion(site.HELLO, 0, ""))
    assert scene.open(3, site.Occasion(site.HELLO, 0, "")).attempt == 3


# ---- survivor sets, in confirming as in revealing


BOTH = pytest.mark.parametrize("ask", [Scene.confirm, Scene.reveal], ids=["confirm", "reveal"])


@BOTH
@pytest.mark.parametrize("chosen", [ALL, PART])
def test_an_honest_survivor_set_is_helped(ask, scene, chosen):
    assert ask(scene, chosen)


@BOTH
def test_fewer_survivors_than_t_are_refused(ask, scene):
    with refuses("2 survivors, the study asks for 3 at least"):
        ask(scene, ("zeta", "alpha"))


@BOTH
def test_fewer_survivors_than_min_sites_are_refused(ask):
    with refuses("3 survivors, the study asks for 4 at least"):
        ask(Scene(min_sites=4).attempt(2), PART)


@BOTH
def test_survivors_without_this_site_are_refused(ask, scene):
    with refuses("this site answered, and is not among the survivors"):
        ask(scene, ("zeta", "mid", "beta"))


def in_order(scene, order):
    return Survivors.of(order, dict(zip(scene.survivors(ALL).sites, scene.survivors(ALL).witnesses, strict=True)))


@BOTH
@pytest.mark.parametrize(
    "order",
    [("alpha", "zeta", "mid", "beta"), ("zeta", "alpha", "mid", "mid"), ("zeta", "zeta", "alpha", "mid", "beta")],
    ids=["exchanged", "a duplicate", "a duplicate too many"],
)
def test_survivors_out_of_roster_order_are_refused(ask, scene, order):
    with refuses("not sites of the study in roster order"):
        ask(scene, in_order(scene, order))


@BOTH
def test_an_unknown_survivor_is_refused(ask, scene):
    true = scene.survivors(ALL)
    with refuses("not sites of the study in roster order"):
        site.confirm(scene.state, ME, 2, replace(true, sites=("zeta", "alpha", "mid", "kappa")), scene.group.roster, seeded)
    with refuses("not sites of the study in roster order"):
        site.reveal(scene.state, ME, 2, replace(true, sites=(*ALL, "kappa")), {}, b"", scene.group.roster)


@BOTH
@pytest.mark.parametrize("change", [lambda given: given[:-1], lambda given: (*given, given[0])], ids=["too few", "too many"])
def test_survivors_without_one_witness_each_are_refused(ask, scene, change):
    true = scene.survivors(ALL)
    with refuses("with one witness each"):
        ask(scene, replace(true, witnesses=change(true.witnesses)))


@BOTH
def test_a_survivor_without_a_valid_upload_signature_is_refused(ask, scene):
    true = scene.survivors(ALL)
    forged = replace(true.witnesses[2], digest=bytes(32))
    with refuses("secagg-upload signature of mid is not valid", TrustError):
        ask(scene, replace(true, witnesses=(*true.witnesses[:2], forged, true.witnesses[3])))


@BOTH
def test_an_upload_signature_of_another_attempt_is_refused(ask, scene):
    old = scene.survivors(ALL).witnesses
    scene.attempt(3)
    true = scene.survivors(ALL)
    with refuses("secagg-upload signature of beta is not valid", TrustError):
        ask(scene, replace(true, witnesses=(*true.witnesses[:3], old[3])))


@BOTH
def test_two_survivors_under_each_other_s_witness_are_refused(ask, scene):
    true = scene.survivors(ALL)
    with refuses("secagg-upload signature of zeta is not valid", TrustError):
        ask(scene, replace(true, witnesses=tuple(reversed(true.witnesses))))


@BOTH
@pytest.mark.parametrize("number", [1, 3])
def test_survivors_of_another_attempt_than_the_last_are_refused(ask, number, scene):
    true = scene.survivors(ALL)
    with refuses(f"survivors of attempt {number}"):
        if ask is Scene.confirm:
            site.confirm(scene.state, ME, number, true, scene.group.roster, scene.group.signer(ME))
        else:
            site.reveal(scene.state, ME, number, true, {}, b"", scene.group.roster)


@BOTH
def test_survivors_of_an_attempt_without_an_update_are_refused(ask):
    with refuses("in which this site sent no update"):
        ask(Scene().attempt(2, VALIDATE), ALL)


@BOTH
@pytest.mark.parametrize(("first", "second"), [(PART, OTHER_PART), (PART, ALL), (ALL, PART)])
def test_who_confirmed_one_set_neither_confirms_nor_reveals_another_in_the_attempt(ask, first, second, scene):
    scene.confirm(first)
    with refuses("other survivors than those that this site committed to"):
        ask(scene, second)
    assert scene.reveal(first)


@BOTH
@pytest.mark.parametrize(("first", "second"), [(PART, OTHER_PART), (PART, ALL), (ALL, PART)])
def test_who_revealed_for_one_set_neither_confirms_nor_reveals_another_in_the_attempt(ask, first, second, scene):
    scene.reveal(first)
    with refuses("other survivors than those that this site committed to"):
        ask(scene, second)


def test_a_set_that_was_confirmed_but_not_revealed_does_not_bind_the_next_attempt(scene):
    scene.confirm(PART)
    assert scene.attempt(3).reveal(ALL)


# ---- confirmations


def test_fewer_confirmations_than_t_are_refused(scene):
    true = scene.survivors(PART)
    few = dict(list(true.confirmations.items())[:2])
    with refuses("2 sites confirmed the survivors, expected 3 at least"):
        scene.reveal(replace(true, confirmations=few))


def test_a_confirmation_by_a_site_that_is_missing_does_not_count(scene):
    true = scene.survivors(PART)
    of_beta = sign(scene.group.identities["beta"], "secagg-survivors", true.statement(scene.state.transcript))
    given = dict(list(true.confirmations.items())[:2]) | {"beta": of_beta}
    with refuses("2 sites confirmed the survivors, expected 3 at least"):
        scene.reveal(replace(true, confirmations=given))


@pytest.mark.parametrize(
    "lie", ["by another site", "of other survivors", "under another transcript", "for another purpose", "no hex"]
)
def test_a_confirmation_that_is_not_the_site_s_is_refused(lie, scene):
    true, keys, transcript = scene.survivors(PART), scene.group.identities, scene.state.transcript
    statement = true.statement(transcript)
    forged = {
        "by another site": sign(keys["zeta"], "secagg-survivors", statement),
        "of other survivors": sign(keys["mid"], "secagg-survivors", scene.survivors(OTHER_PART).statement(transcript)),
        "under another transcript": sign(keys["mid"], "secagg-survivors", true.statement(bytes(32))),
        "for another purpose": sign(keys["mid"], "secagg-upload", statement),
        "no hex": "ö" * 128,
    }[lie]
    with refuses("secagg-survivors signature of mid is not valid", TrustError):
        scene.reveal(replace(true, confirmations={**true.confirmations, "mid": forged}))


def test_everybody_needs_no_confirmations(scene):
    assert not scene.survivors(ALL).confirmations
    assert scene.reveal(ALL)


def test_what_is_signed_in_confirming_is_transcript_and_survivors(scene):
    statement = reference.survivors_statement(scene.state.transcript, PART)
    assert scene.confirm(PART) == sign(scene.group.identities[ME], "secagg-survivors", statement)


# ---- once a round


def test_the_same_reveal_again_is_answered_with_the_same_bytes(scene):
    first = scene.reveal(PART)
    state = scene.state
    assert scene.reveal(PART) == first
    assert scene.state == state


@BOTH
@pytest.mark.parametrize(("first", "second"), [(PART, OTHER_PART), (PART, ALL), (ALL, PART)])
def test_who_revealed_in_a_round_helps_no_other_set_in_a_repeat_of_it(ask, first, second, scene):
    scene.reveal(first)
    scene.attempt(3)
    with refuses("train of round 4 was revealed for other survivors before"):
        ask(scene, second)
    assert scene.reveal(first)


@BOTH
@pytest.mark.parametrize("chosen", [ALL, PART])
def test_who_revealed_in_a_round_reveals_in_it_for_no_other_model(ask, chosen, scene):
    scene.reveal(PART)
    scene.attempt(3, replace(TRAINING, state_hash="d" * 64))
    with refuses("train of round 4 was revealed for another model before"):
        ask(scene, chosen)


@BOTH
def test_who_revealed_a_finish_reveals_for_no_other_model_whatever_its_round(ask):
    scene = Scene().attempt(2, FINISH)
    scene.reveal(ALL)
    scene.attempt(3, replace(FINISH, round=3, state_hash="d" * 64))
    with refuses("finish of round 3 was revealed for another model before"):
        ask(scene, ALL)


@BOTH
@pytest.mark.parametrize("occasion", [TRAINING, FINISH], ids=["train", "finish"])
def test_who_revealed_for_a_state_in_another_run_helps_no_other_set_in_this_one(ask, occasion):
    scene = Scene().attempt(2, occasion)
    scene.reveal(PART)
    before = scene.state.revealed_for
    assert before == {occasion.key: PART}
    scene = Scene()
    scene.state = replace(scene.state, revealed_for=before)
    scene.attempt(2, occasion)
    with refuses("was revealed for other survivors before"):
        ask(scene, OTHER_PART)
    assert scene.reveal(PART)


def test_what_was_revealed_for_is_kept_over_rounds_and_epochs(scene):
    scene.reveal(PART)
    scene.attempt(3, replace(TRAINING, round=5, state_hash="e" * 64)).reveal(ALL)
    later = EpochContext("a" * 64, "b" * 64, "run", 9)
    state, _ = site.begin_epoch(scene.state, later, seeded("x25519", 9), scene.group.signer(ME))
    assert state.revealed_for == {TRAINING.key: PART, f"train 5 {'e' * 64}": ALL}
    assert state.num_partial == 1


# ---- partial rounds


def partial_rounds(scene, count, kind=site.TRAIN):
    for number in range(count):
        occasion = site.Occasion(kind, 1 + number, digest_of("state", number).hex())
        scene.attempt(2 + number, occasion).reveal(PART)
    return scene


@BOTH
@pytest.mark.parametrize("max_partial", [0, 2])
def test_one_partial_round_too_many_is_refused_and_a_whole_one_is_not(ask, max_partial):
    scene = partial_rounds(Scene(max_partial=max_partial), max_partial)
    assert scene.state.num_partial == max_partial
    scene.attempt(9, site.Occasion(site.TRAIN, 9, "e" * 64))
    with refuses(f"{max_partial} rounds were partial before, in this run or another; {max_partial} may be"):
        ask(scene, PART)
    assert scene.reveal(ALL)


def test_a_repeat_of_a_partial_round_is_counted_once_and_allowed():
    scene = partial_rounds(Scene(max_partial=1), 1)
    scene.attempt(3, scene.state.occasion).reveal(PART)
    assert scene.state.num_partial == 1


def test_to_finish_is_no_partial_round():
    scene = partial_rounds(Scene(max_partial=1), 1)
    scene.attempt(9, FINISH).reveal(PART)
    assert (scene.state.num_partial, scene.state.num_partial_finish) == (1, 1)


@BOTH
def test_a_study_is_finished_without_a_site_once_over_all_its_runs(ask):
    scene = Scene(max_partial=1)
    scene.attempt(9, FINISH).reveal(PART)
    seen = {"num_partial_finish": scene.state.num_partial_finish, "revealed_for": scene.state.revealed_for}
    other = Scene(max_partial=1)
    other.state = replace(other.state, **seen)
    other.attempt(9, replace(FINISH, state_hash="d" * 64))
    with refuses("the study was finished without a site before, in this run or another; 1 may be"):
        ask(other, PART)
    other.attempt(10, FINISH).reveal(PART)
    assert other.state.num_partial_finish == 1


# ---- attempts and rounds


def test_an_attempt_that_goes_back_is_refused(scene):
    scene.attempt(5)
    with refuses("attempt 4 comes after attempt 5"):
        scene.open(4)


def test_the_attempt_that_named_the_epoch_is_refused():
    with refuses("attempt 1 comes after attempt 1"):
        Scene().open(CONTEXT.epoch)


def test_the_same_attempt_with_another_transcript_is_refused_and_with_the_same_changes_nothing(scene):
    with refuses("attempt 2 is asked for with other contents than before"):
        scene.open(2, transcript=bytes(32))
    assert scene.open(2) == scene.state


def test_a_thousand_steps_are_taken_and_one_more_is_refused(scene):
    with refuses("1001 attempts from the last one"):
        scene.open(1003)
    assert scene.open(1002).attempt == 1002


def test_the_keys_of_an_earlier_attempt_are_gone(scene):
    before = scene.state.pairs
    now = scene.open(3).pairs
    assert now == pairs.ratchet(before, 1)
    assert not set(now.values()) & set(before.values())
    assert scene.state.private == b""


def test_a_round_before_one_that_was_revealed_is_not_trained(scene):
    scene.reveal(ALL)
    with refuses("to train round 3 comes after train of round 4"):
        scene.open(3, replace(TRAINING, round=3))
    assert scene.open(3, replace(TRAINING, round=5))
    assert scene.open(3, replace(VALIDATE, round=3))


def test_nothing_is_trained_after_finish_was_revealed(scene):
    scene.attempt(3, FINISH).reveal(ALL)
    with refuses("to train round 5 comes after finish of round 4"):
        scene.open(4, replace(TRAINING, round=5))


# ---- keys


def test_a_site_without_keys_of_the_epoch_says_so(scene):
    state, _ = site.begin_epoch(site.SiteState(), CONTEXT, seeded("x25519", ME), scene.group.signer(ME))
    for other in (site.SiteState(), replace(state, epoch=7)):
        scene.state = other
        with refuses("this site holds no keys of epoch 1", KeysMissingError):
            scene.open(2)


def test_keys_of_another_epoch_are_refused():
    with refuses("the keys of epoch 2 are not one of each"):
        Scene().open(2, keys=KeySet(2, key_set(NUM).keys))


@pytest.mark.parametrize("facts", [{"run": "run-2"}, {"study_hash": "0" * 64}, {"membership_hash": "0" * 64}])
def test_keys_for_another_run_study_or_membership_are_refused(facts):
    with refuses("secagg-key signature of zeta is not valid", TrustError):
        Scene().open(2, context=replace(CONTEXT, **facts))


def replaced(name, public, signing):
    keys = dict(zip(names(NUM), key_set(NUM).keys, strict=True))
    keys[name] = SignedKey(public, sign(sites(NUM).identities[signing], "secagg-key", CONTEXT.digest + public))
    return KeySet(CONTEXT.epoch, tuple(keys.values()))


@pytest.mark.parametrize("name", names(NUM))
def test_a_key_of_the_coordinator_in_the_place_of_a_site_s_is_refused(name):
    signing = "mid" if name == "zeta" else "zeta"
    with refuses(f"secagg-key signature of {name} is not valid", TrustError):
        Scene().open(2, keys=replaced(name, pairs.public_of(bytes(32)), signing))


def test_the_key_of_this_site_replaced_is_refused_even_where_it_signed_the_other():
    with refuses("the key in this site's place is not its own"):
        Scene().open(2, keys=replaced(ME, pairs.public_of(bytes(32)), ME))


def test_keys_are_not_asked_for_in_an_attempt_that_goes_back(scene):
    for epoch in (1, 2):
        with refuses(f"keys are asked for in attempt {epoch}, after attempt 2"):
            site.begin_epoch(scene.state, replace(CONTEXT, epoch=epoch), seeded("x25519", ME), scene.group.signer(ME))


# ---- blobs


def blobs_of(scene, survivors):
    sealings = {name: scene.answered[name].sealing for name in survivors.sites}
    return coordinator.blobs_for(ME, sealings, survivors, scene.group.roster)


def reveal_with(scene, survivors, blobs):
    return site.reveal(scene.state, ME, scene.state.attempt, survivors, blobs, scene.answered[ME].own_shares, scene.group.roster)


@pytest.mark.parametrize(
    "lie", ["of another sender", "for another site", "of another attempt", "of fewer shares", "of nothing", "missing"]
)
def test_a_blob_that_its_sender_did_not_write_for_this_site_and_attempt_is_refused(lie, scene):
    earlier = blobs_of(scene, scene.survivors(ALL))
    scene.attempt(3)
    survivors = scene.survivors(ALL)
    true = blobs_of(scene, survivors)
    key, transcript = scene.state.pairs["mid"], scene.state.transcript
    lies = {
        "of another sender": (true["zeta"], "what it sent"),
        "for another site": (scene.answered["mid"].sealing.blobs[0], "what it sent"),
        "of another attempt": (earlier["mid"], "what it sent"),
        "of fewer shares": (pairs.close_blob(key, transcript, "mid", bytes(96), bytes(12)), "of mid have 96 bytes, expected 128"),
        "of nothing": (b"", "what it sent"),
    }
    blob, phrase = lies.get(lie, (None, "the shares of mid are missing"))
    lying = {name: given for name, given in (true | {"mid": blob}).items() if given is not None}
    with refuses(phrase):
        reveal_with(scene, survivors, lying)
    assert reveal_with(scene, survivors, true)


def test_shares_are_not_revealed_after_new_keys_were_asked_for(scene):
    later = replace(CONTEXT, epoch=9)
    scene.state, _ = site.begin_epoch(scene.state, later, seeded("x25519", 9), scene.group.signer(ME))
    with refuses("the shares of zeta cannot be read: new keys were asked for"):
        scene.reveal(ALL)


# ---- the coordinator's checks of an answer


@pytest.mark.parametrize(
    ("change", "phrase", "error"),
    [
        (lambda s: replace(s, blobs=s.blobs[:-1]), "holds 2 blobs, expected 3 of 156 bytes", ProtocolError),
        (lambda s: replace(s, blobs=(*s.blobs[:-1], s.blobs[-1][:-1])), "holds 3 blobs, expected 3 of 156 bytes", ProtocolError),
        (lambda s: replace(s, hashes=s.hashes[:-1]), "holds 3 hashes of secrets, expected 4 of 32", ProtocolError),
        (lambda s: replace(s, hashes=(s.hashes[0][:-1], s.hashes[0][-1:] + s.hashes[1], *s.hashes[2:])),
         "holds 4 hashes of secrets, expected 4 of 32", ProtocolError),
        (lambda s: replace(s, hashes=s.hashes[::-1]), "secagg-upload signature of alpha is not valid", TrustError),
        (lambda s: replace(s, blobs=s.blobs[::-1]), "secagg-upload signature of alpha is not valid", TrustError),
        (lambda s: replace(s, signature="00" * 64), "secagg-upload signature of alpha is not valid", TrustError),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_the_site_signed_is_refused(change, phrase, error, scene):
    answer = scene.answered[ME]
    with refuses(phrase, error):
        coordinator.witness_upload(
            ME, scene.state.transcript, answer.upload, answer.counts, change(answer.sealing), scene.group.roster
        )


@pytest.mark.parametrize("part", ["upload", "counts"])
def test_an_array_that_was_changed_on_its_way_is_refused(part, scene):
    answer = scene.answered[ME]
    arrays = {"upload": answer.upload.copy(), "counts": answer.counts.copy()}
    arrays[part][1] += 1
    with refuses("secagg-upload signature of alpha is not valid", TrustError):
        coordinator.witness_upload(
            ME, scene.state.transcript, arrays["upload"], arrays["counts"], answer.sealing, scene.group.roster
        )
