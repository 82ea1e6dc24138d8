"""What a site refuses in secure aggregation of attempts, keys and blobs: a lie for each rule of csasn/SPEC.md."""

from dataclasses import replace

import pytest

from csasn.errors import ProtocolError, TrustError
from csasn.federated.secagg import coordinator, pairs, site
from csasn.federated.secagg.messages import KeySet, KeysMissingError, SignedKey
from csasn.identity import sign
from secagg_scene import ALL, FINISH, ME, NUM, VALIDATE, Scene, refuses
from secagg_sites import (
    CONTEXT,
    TRAINING,
    key_set,
    names,
    seeded,
    sites,
)


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
