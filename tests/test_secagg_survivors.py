"""What a site refuses in secure aggregation of survivor sets and confirmations: a lie for each rule of csasn/SPEC.md."""

from dataclasses import replace

import pytest

import secagg_reference as reference
from csasn.errors import TrustError
from csasn.federated.secagg import site
from csasn.federated.secagg.messages import EpochContext, Survivors
from csasn.identity import sign
from secagg_scene import ALL, FINISH, ME, OTHER_PART, PART, VALIDATE, Scene, refuses
from secagg_sites import (
    TRAINING,
    digest_of,
    seeded,
)


@pytest.fixture
def scene():
    return Scene().attempt(2)


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
