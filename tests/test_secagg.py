"""csasn/federated/secagg against an independent implementation, byte for byte.

vectors/make_secagg.py made secagg.json over secagg_reference.py, from csasn/SPEC.md and without importing csasn.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg_reference as reference
from csasn import errors
from csasn.federated.secagg import coordinator, pairs, shares, site
from csasn.federated.secagg.masks import Mask, add_masks
from csasn.federated.secagg.messages import (
    EpochContext,
    KeySet,
    Roster,
    Sealing,
    SignedKey,
    Survivors,
    Witness,
    check_keys,
    hash_payload,
    threshold,
)
from csasn.identity import sign
from secagg_sites import (
    CONTEXT,
    NAMES,
    TRAINING,
    TYPES,
    answers,
    begun,
    names,
    seeded,
    sites,
    summed,
    values,
)

VECTORS = Path(__file__).parent / "vectors"
COMMITTED = json.loads((VECTORS / "secagg.json").read_text(encoding="utf-8"))
FACTS, ACCEPTED, REFUSED = COMMITTED["facts"], COMMITTED["accepted"], COMMITTED["refused"]
ROSTER = Roster(FACTS["identities"], 1, 3)
EPOCH = EpochContext(FACTS["study_hash"], FACTS["membership_hash"], FACTS["run"], FACTS["epoch"])
KEYS = {vector["name"]: vector for vector in ACCEPTED["keys"]}


def vectors(function):
    return pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in ACCEPTED[function]])


def unhex(texts):
    return tuple(bytes.fromhex(text) for text in texts)


def key_set(keys, epoch=FACTS["epoch"]):
    return KeySet(epoch, tuple(SignedKey(bytes.fromhex(key["public"]), key["signature"]) for key in keys))


def signer(name):
    return functools.partial(sign, reference.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS[name]["signing"])))


def pairs_of(name, when):
    return {vector["peer"]: bytes.fromhex(vector[when]) for vector in ACCEPTED["pairs"] if vector["site"] == name}


# ---- vectors


def test_the_script_makes_the_committed_vectors_without_our_code():
    without_us = (
        f"import runpy, sys; sys.modules['csasn'] = None; runpy.run_path({str(VECTORS / 'make_secagg.py')!r}, run_name='__main__')"
    )
    made = subprocess.run([sys.executable, "-c", without_us], capture_output=True, check=True, timeout=120, encoding="utf-8")
    assert made.stdout == (VECTORS / "secagg.json").read_text(encoding="utf-8")


@vectors("context")
def test_what_the_keys_of_an_epoch_are_for_equals_vector(vector):
    assert EPOCH.digest.hex() == vector["output"]
    assert ROSTER.threshold == FACTS["threshold"]


@vectors("keys")
def test_a_key_and_its_signature_equal_vector(vector):
    state, key = site.begin_epoch(
        site.SiteState(), EPOCH, lambda size: bytes.fromhex(vector["private"])[:size], signer(vector["name"])
    )
    assert (key.public.hex(), key.signature) == (vector["public"], vector["signature"])
    assert state.private.hex() == vector["private"]


@vectors("pairs")
def test_the_keys_of_a_pair_equal_vector_in_the_epoch_and_in_the_attempt(vector):
    agreed = pairs.agree(bytes.fromhex(KEYS[vector["site"]]["private"]), vector["site"], key_set(KEYS.values()), EPOCH, ROSTER)
    assert agreed[vector["peer"]].hex() == vector["epoch"]
    assert pairs.ratchet(agreed, FACTS["attempt"] - FACTS["epoch"])[vector["peer"]].hex() == vector["attempt"]


@vectors("ratchet")
def test_a_ratcheted_key_equals_vector(vector):
    assert pairs.ratchet({"peer": bytes.fromhex(vector["key"])}, vector["steps"])["peer"].hex() == vector["output"]


@vectors("seeds")
def test_a_seed_equals_vector(vector):
    make = {"update": pairs.update_seed, "counts": pairs.counts_seed}[vector["name"]]
    assert make(bytes.fromhex(vector["key"]), bytes.fromhex(vector["transcript"])).hex() == vector["output"]


@vectors("masks")
def test_a_mask_equals_vector(vector):
    found = np.array(vector["values"], TYPES[vector["bits"]])
    add_masks(found, [Mask(bytes.fromhex(vector["seed"]), vector["sign"])])
    assert found.tolist() == vector["output"]
    stream = np.zeros(len(found), found.dtype)
    add_masks(stream, [Mask(bytes.fromhex(vector["seed"]), 1)])
    assert stream.tobytes().hex() == vector["keystream"]


def open_state(vector, name):
    state, _ = site.begin_epoch(site.SiteState(), EPOCH, lambda size: bytes.fromhex(KEYS[name]["private"])[:size], signer(name))
    keys = (EPOCH, key_set(KEYS.values()))
    kind = vector["name"].split()[0]
    occasion = site.Occasion(kind, 1, "0" * 64)
    return site.open_attempt(state, name, keys, FACTS["attempt"], bytes.fromhex(vector["transcript"]), occasion, ROSTER)


def survivors_in(vector):
    made = {answer["site"]: Witness(bytes.fromhex(answer["digest"]), answer["signature"]) for answer in vector["answers"]}
    chosen = tuple(vector["survivors"])
    return Survivors(chosen, tuple(made[name] for name in chosen), vector["confirmations"])


def sealing_in(answer):
    return Sealing(unhex(answer["blobs"]), unhex(answer["hashes"]), answer["signature"])


@vectors("attempts")
def test_a_masked_answer_equals_vector_to_the_last_byte(vector):
    for answer in vector["answers"]:
        draws = iter([*unhex([answer["b"]]), *unhex(answer["nonces"])])
        split = iter(unhex(row) for row in answer["shares"])
        upload, counts = np.array(answer["x"], TYPES[vector["bits"]]), np.array(answer["counts"], np.int64)
        state = open_state(vector, answer["site"])
        with mock.patch.object(site, "split", lambda *_, split=split: next(split)):
            random = lambda size, draws=draws: next(draws)  # noqa: E731
            sealed = site.seal(state, answer["site"], upload, counts, ROSTER, random, signer(answer["site"]))
        assert upload.tolist() == answer["upload"]
        assert counts.tolist() == answer["masked_counts"]
        assert sealed.sealing == sealing_in(answer)
        assert sealed.own_shares.hex() == answer["own_shares"]
        witness = coordinator.witness_upload(
            answer["site"], bytes.fromhex(vector["transcript"]), upload, counts, sealed.sealing, ROSTER
        )
        assert (witness.digest.hex(), witness.signature) == (answer["digest"], answer["signature"])


@vectors("attempts")
def test_the_survivors_sign_and_reveal_what_the_vector_says(vector):
    survivors = survivors_in(vector)
    assert survivors.statement(bytes.fromhex(vector["transcript"])).hex() == vector["statement"]
    sealings = {answer["site"]: sealing_in(answer) for answer in vector["answers"]}
    for answer in vector["answers"]:
        name = answer["site"]
        if name not in survivors.sites:
            continue
        state, signature = site.confirm(open_state(vector, name), name, FACTS["attempt"], survivors, ROSTER, signer(name))
        assert signature == vector["confirmations"][name]
        blobs = coordinator.blobs_for(name, sealings, survivors, ROSTER)
        own_shares = bytes.fromhex(answer["own_shares"])
        _, revealed = site.reveal(state, name, FACTS["attempt"], survivors, blobs, own_shares, ROSTER)
        assert revealed.hex() == vector["revealed"][name]


@vectors("attempts")
def test_the_shares_of_the_vector_give_its_secrets_and_its_sum(vector):
    made = {answer["site"]: answer for answer in vector["answers"]}
    parts = {name: bytes.fromhex(text) for name, text in vector["revealed"].items()}
    hashes = {name: unhex(made[name]["hashes"]) for name in vector["survivors"]}
    revealed = coordinator.recover(parts, vector["survivors"], hashes, ROSTER)
    assert [mask.seed.hex() for mask in revealed.masks[::2]] == vector["own_secrets"]
    assert [[mask.seed.hex(), -mask.sign] for mask in revealed.masks[1::2]] == vector["missing_secrets"]
    total = summed([np.array(made[name]["upload"], TYPES[vector["bits"]]) for name in vector["survivors"]])
    coordinator.unmask(total, revealed)
    assert total.tolist() == vector["sum"]
    assert summed([np.array(answer["masked_counts"], np.int64) for answer in made.values()]).tolist() == vector["sum_of_counts"]


def agree_on(vector):
    offered = key_set(vector["keys"], vector["epoch"])
    check_keys(offered, EPOCH, ROSTER)
    pairs.agree(bytes.fromhex(KEYS[vector["site"]]["private"]), vector["site"], offered, EPOCH, ROSTER)


def witness_of(vector):
    witness = Witness(bytes.fromhex(vector["digest"]), vector["signature"])
    witness.check(vector["site"], vector["identity"], bytes.fromhex(vector["transcript"]))


def open_from(vector):
    key, transcript, blob = unhex([vector["key"], vector["transcript"], vector["blob"]])
    pairs.open_blob(key, transcript, vector["sender"], blob)


def recover_from(vector):
    parts = {name: bytes.fromhex(text) for name, text in vector["shares"].items()}
    hashes = {name: unhex(texts) for name, texts in vector["hashes"].items()}
    coordinator.recover(parts, ["zeta", "mid", "beta"], hashes, ROSTER)


REFUSERS = {
    "agree": agree_on,
    "witness": witness_of,
    "recover": recover_from,
    "ratchet": lambda vector: pairs.ratchet({"peer": bytes.fromhex(vector["key"])}, vector["steps"]),
    "open_blob": open_from,
}  # fmt: skip


@pytest.mark.parametrize("vector", [pytest.param(vector, id=f"{vector['function']}: {vector['name']}") for vector in REFUSED])
def test_vector_is_refused_with_its_error(vector):
    with pytest.raises(getattr(errors, vector["error"]), match=vector["phrase"]):
        REFUSERS[vector["function"]](vector)


# ---- the reference, on other inputs


def test_the_reference_itself_agrees_with_the_papers_own_vectors():
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    product = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert reference.x25519(scalar, point).hex() == product  # RFC 7748, 5.2
    hidden = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert reference.hkdf(bytes([11] * 22), b"").hex() == hidden  # RFC 5869, A.3, its first 32 bytes
    block = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    assert (
        reference.AES.new(key, reference.AES.MODE_ECB).encrypt(block).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"
    )  # SP 800-38A, F.1.5


@pytest.mark.parametrize("num", [3, 5])
def test_seeds_masks_and_blobs_are_those_of_the_reference(num):
    group, counts = sites(num), {name: np.arange(5) * 7 for name in names(num)}
    x = values(group, 33, 16)
    answered = answers(group, attempt=3, x=x, counts=counts)
    publics = [key.public for key in group.keys.keys]
    c = reference.context(CONTEXT.study_hash, CONTEXT.membership_hash, CONTEXT.run, CONTEXT.epoch)
    for own, name in enumerate(names(num)):
        state, answer, others = group.states[name], answered[name], [peer for peer in range(num) if peer != own]
        agreed = {peer: reference.pair_key(state.private, own, peer, publics, c) for peer in others}
        now, transcript = {peer: reference.ratchet(key, 2) for peer, key in agreed.items()}, answer.state.transcript
        assert answer.state.pairs == {NAMES[peer]: key for peer, key in now.items()}
        b = seeded("answer", name, 3, transcript)(32)
        seeds = [reference.update_seed(now[peer], transcript) for peer in others]
        signs = [reference.sigma(own, peer) for peer in others]
        assert answer.upload.tolist() == reference.add(x[name].tolist(), [(b, 1), *zip(seeds, signs, strict=True)], 16)
        hidden = [reference.counts_seed(now[peer], transcript) for peer in others]
        assert answer.counts.tolist() == reference.add(counts[name].tolist(), list(zip(hidden, signs, strict=True)), 64)
        secrets = [*seeds[:own], b, *seeds[own:]]
        assert list(answer.sealing.hashes) == [reference.hash_secret(secret) for secret in secrets]
        plains = [
            reference.open_blob(now[peer], transcript, name, blob) for peer, blob in zip(others, answer.sealing.blobs, strict=True)
        ]
        plains.insert(own, answer.own_shares)
        t = threshold(num)
        for place, secret in enumerate(secrets):
            pieces = {index + 1: plain[32 * place : 32 * place + 32] for index, plain in enumerate(plains)}
            chosen = range(1, t + 1) if place % 2 else range(num - t + 1, num + 1)
            assert reference.combine({index: pieces[index] for index in chosen}) == secret


@settings(max_examples=12, deadline=None)
@given(num=st.integers(3, 9), secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_any_t_shares_give_the_secret_and_one_fewer_do_not(num, secret, data):
    t = threshold(num)
    pieces = shares.split(secret, t, num)
    chosen = data.draw(st.permutations(range(1, num + 1)))[:t]
    assert shares.combine({index: pieces[index - 1] for index in chosen}) == secret
    assert reference.combine({index: pieces[index - 1] for index in chosen}) == secret
    assert shares.combine({index: pieces[index - 1] for index in chosen[1:]}) != secret


@pytest.mark.parametrize(("num", "t"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (8, 6), (9, 7), (16, 11)])
def test_the_threshold_is_the_spec_s(num, t):
    assert threshold(num) == t


def test_a_key_asked_for_twice_is_the_same_and_of_a_later_epoch_another():
    state, key = begun(3)["mid"]
    signer_of_mid = sites(3).signer("mid")
    same_state, same = site.begin_epoch(state, CONTEXT, seeded("other"), signer_of_mid)
    assert (same_state, same) == (state, key)
    later, other = site.begin_epoch(state, EpochContext("a" * 64, "b" * 64, "run", 9), seeded("other"), signer_of_mid)
    assert other.public != key.public
    assert later.epoch == 9
    assert TRAINING.key == f"train 4 {'c' * 64}"
    assert len(hash_payload([b"", b""])) == 64
