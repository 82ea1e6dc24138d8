"""Damaged and hostile input of secure aggregation: it is refused with a `CsasnError` or changes nothing, in bounded time."""

import random
import time
from dataclasses import replace

import pytest

from csasn.errors import CsasnError
from csasn.federated.secagg import coordinator, pairs, site
from csasn.federated.secagg.messages import KeySet, SignedKey, Witness, check_keys
from csasn.federated.secagg.shares import combine
from secagg_sites import CONTEXT, TRAINING, answers, names, sites, survivors_of, values
from secagg_sites import key_set as keys_of

NUM, ME, PART = 4, "alpha", ("zeta", "alpha", "mid")
GROUP = sites(NUM)
ROSTER = GROUP.roster
ANSWERED = answers(GROUP, 2, TRAINING, values(GROUP, 3, 16))
SURVIVORS = {chosen: survivors_of(GROUP, ANSWERED, chosen) for chosen in (names(NUM), PART)}
STATE, OWN_SHARES = ANSWERED[ME].state, ANSWERED[ME].own_shares
SLOWEST_S = 5.0  # for one input; a shared machine may stop a process for a moment


# ---- changes


def change_bytes(rng, data):
    kind, place = rng.randrange(7), rng.randrange(len(data) + 1)
    if kind == 0 and data:
        flipped = bytearray(data)
        flipped[place % len(data)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return [
        data[:place], data + rng.randbytes(1 + place % 40), bytes(len(data)), b"\xff" * len(data), b"", rng.randbytes(len(data)),
        data[:place] + data[place + 1 :],
    ][kind]  # fmt: skip


def change_text(rng, text):
    place = rng.randrange(len(text) + 1)
    odd = rng.choice(("g", "ö", "\0", " ", "0x", "٣", "😀", "\ud800", "A" * 3000))
    return [text[:place], text[:place] + odd + text[place + 1 :], "", text[::-1], text + "00", bytes(rng.randbytes(64)).hex()][
        rng.randrange(6)
    ]


def change_items(rng, items):
    items = list(items)
    if not items:
        return ()
    one, other = rng.randrange(len(items)), rng.randrange(len(items))
    kind = rng.randrange(4)
    if kind == 0:
        del items[one]
    elif kind == 1:
        items.insert(one, items[other])
    elif kind == 2:
        items[one], items[other] = items[other], items[one]
    else:
        items[one] = items[other]
    return tuple(items)


def change_one(rng, items, change):
    items = list(items)
    place = rng.randrange(len(items))
    items[place] = change(rng, items[place])
    return tuple(items)


def change_key(rng, key):
    if rng.random() < 0.5:
        return replace(key, public=change_bytes(rng, key.public))
    return replace(key, signature=change_text(rng, key.signature))


def change_witness(rng, witness):
    if rng.random() < 0.5:
        return replace(witness, digest=change_bytes(rng, witness.digest))
    return replace(witness, signature=change_text(rng, witness.signature))


def change_name(rng, name):
    return rng.choice((*names(NUM), "kappa", "", name + " ", name.upper(), change_text(rng, name)))


def change_survivors(rng, survivors):
    kind = rng.randrange(6)
    if kind == 0:
        return replace(survivors, sites=change_items(rng, survivors.sites))
    if kind == 1:
        return replace(survivors, sites=change_one(rng, survivors.sites, change_name))
    if kind == 2:
        return replace(survivors, witnesses=change_items(rng, survivors.witnesses))
    if kind == 3:
        return replace(survivors, witnesses=change_one(rng, survivors.witnesses, change_witness))
    given = dict(survivors.confirmations) or {ME: "00" * 64}
    name = rng.choice(list(given))
    if kind == 4:
        return replace(survivors, confirmations={**given, name: change_text(rng, given[name])})
    del given[name]
    return replace(survivors, confirmations=given | {change_name(rng, name): "00" * 64})


# ---- readers: each changes something of what is right, reads it, and says whether what it read was the same after all


def plain_keys(keys):
    return [(key.public, bytes.fromhex(key.signature)) for key in keys]


def fuzz_keys(rng):
    true = keys_of(NUM)
    keys = change_items(rng, true.keys) if rng.random() < 0.2 else change_one(rng, true.keys, change_key)
    offered = KeySet(rng.choice((1, 1, 1, 0, -1, 2**70)), keys)
    check_keys(offered, CONTEXT, ROSTER)
    return plain_keys(keys) == plain_keys(true.keys)


def fuzz_signed_keys(rng):
    """A member signs whatever it likes in its own name."""
    true = keys_of(NUM)
    public = change_bytes(rng, true.keys[2].public)
    key = SignedKey(public, GROUP.signer("mid")("secagg-key", CONTEXT.digest + public))
    offered = KeySet(1, (*true.keys[:2], key, true.keys[3]))
    agreed = site.open_attempt(GROUP.states[ME], ME, (CONTEXT, offered), 2, bytes(32), TRAINING, ROSTER).pairs
    return len(public) == 32 and set(agreed) == set(ROSTER.others(ME))


def fuzz_witness(rng):
    answer = ANSWERED[ME]
    upload, counts, sealing = answer.upload, answer.counts, answer.sealing
    kind = rng.randrange(5)
    if kind == 0:
        sealing = replace(sealing, blobs=change_one(rng, sealing.blobs, change_bytes))
    elif kind == 1:
        sealing = replace(sealing, hashes=change_one(rng, sealing.hashes, change_bytes))
    elif kind == 2:
        sealing = replace(sealing, blobs=change_items(rng, sealing.blobs), hashes=change_items(rng, sealing.hashes))
    elif kind == 3:
        sealing = replace(sealing, signature=change_text(rng, sealing.signature))
    else:
        upload = upload[: rng.randrange(len(upload))] if rng.random() < 0.9 else None
    witness = coordinator.witness_upload(ME, STATE.transcript, upload, counts, sealing, ROSTER)
    same = (sealing.blobs, sealing.hashes) == (answer.sealing.blobs, answer.sealing.hashes) and upload is not None
    return same and len(upload) == 3 and bytes.fromhex(witness.signature) == bytes.fromhex(answer.sealing.signature)


def fuzz_blob(rng):
    true = coordinator.blobs_for(ME, {"mid": ANSWERED["mid"].sealing}, replace(SURVIVORS[PART], sites=("mid",)), ROSTER)["mid"]
    blob = change_bytes(rng, true)
    pairs.open_blob(STATE.pairs["mid"], STATE.transcript, "mid", blob)
    return blob == true


def same_survivors(one, other):
    def plain(survivors):
        return survivors.sites, [(witness.digest, bytes.fromhex(witness.signature)) for witness in survivors.witnesses]

    return plain(one) == plain(other)


def fuzz_confirm(rng):
    true = SURVIVORS[rng.choice(list(SURVIVORS))]
    survivors = change_survivors(rng, true)
    attempt = 2 if rng.random() < 0.9 else rng.choice((0, -1, 3, 2**70))
    site.confirm(STATE, ME, attempt, survivors, ROSTER, GROUP.signer(ME))
    return attempt == 2 and same_survivors(survivors, true)


def fuzz_reveal(rng):
    true = SURVIVORS[rng.choice(list(SURVIVORS))]
    sealings = {name: ANSWERED[name].sealing for name in true.sites}
    survivors, blobs = true, coordinator.blobs_for(ME, sealings, true, ROSTER)
    blob_changed = rng.random() < 0.3
    if blob_changed:
        name = rng.choice(list(blobs))
        given = change_bytes(rng, blobs[name])
        blob_changed, blobs = given != blobs[name], {**blobs, (name if rng.random() < 0.8 else change_name(rng, name)): given}
    else:
        survivors = change_survivors(rng, true)
    _, shares = site.reveal(STATE, ME, 2, survivors, blobs, OWN_SHARES, ROSTER)
    return same_survivors(survivors, true) and len(shares) == coordinator.shares_bytes(NUM, len(true.sites))


PARTS = {
    name: site.reveal(
        ANSWERED[name].state, name, 2, SURVIVORS[PART],
        coordinator.blobs_for(name, {who: ANSWERED[who].sealing for who in PART}, SURVIVORS[PART], ROSTER),
        ANSWERED[name].own_shares, ROSTER,
    )[1]
    for name in PART
}  # fmt: skip
HASHES = {name: ANSWERED[name].sealing.hashes for name in PART}
SEEDS = coordinator.recover(PARTS, PART, HASHES, ROSTER).masks


def fuzz_recover(rng):
    parts, hashes = dict(PARTS), HASHES
    if rng.random() < 0.7:
        name = rng.choice(PART)
        parts[name] = change_bytes(rng, parts[name])
    else:
        name = rng.choice(PART)
        hashes = {**HASHES, name: change_one(rng, HASHES[name], change_bytes)}
    return coordinator.recover(parts, PART, hashes, ROSTER).masks == SEEDS


def fuzz_combine(rng):
    """It takes what `recover` hands on: t shares of 32 bytes, whatever they hold."""
    true = {ROSTER.index(name): PARTS[name][:32] for name in PART}
    place = rng.choice(list(true))
    share = change_bytes(rng, true[place])
    share = (share + bytes(32))[:32]
    secret = combine({**true, place: share})
    return len(secret) == 32 and (secret == SEEDS[0].seed) == (share == true[place])


READERS = {
    "keys": (fuzz_keys, 20_000),
    "signed keys": (fuzz_signed_keys, 8_000),
    "witness": (fuzz_witness, 20_000),
    "blob": (fuzz_blob, 30_000),
    "confirm": (fuzz_confirm, 10_000),
    "reveal": (fuzz_reveal, 8_000),
    "recover": (fuzz_recover, 2_000),
    "combine": (fuzz_combine, 2_000),
}


def check_refusal(error, which):
    assert error.message.isprintable(), f"{which}: {error.message!r}"
    assert len(error.message) < 300, which


def fuzz(name, num_inputs, seed):
    """How many inputs were refused."""
    read, _ = READERS[name]
    rng, num_refused = random.Random(seed), 0
    for number in range(num_inputs):
        start = time.perf_counter()
        try:
            assert read(rng), f"{name}, seed {seed}, input {number}: read as something else"
        except CsasnError as error:
            num_refused += 1
            check_refusal(error, f"{name}, seed {seed}, input {number}")
        assert time.perf_counter() - start < SLOWEST_S, f"{name}, seed {seed}, input {number}"
    return num_refused


@pytest.mark.parametrize("name", READERS)
def test_no_damage_is_read_as_something_else_or_escapes_as_a_foreign_error(name):
    num_inputs = READERS[name][1] // 25
    num_refused = fuzz(name, num_inputs, seed=1)
    assert num_refused == 0 if name == "combine" else num_inputs / 3 < num_refused


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_damaged_inputs_are_refused_or_read_as_they_are(name):
    assert sum(num for _, num in READERS.values()) == 100_000
    assert fuzz(name, READERS[name][1], seed=2) < READERS[name][1]


def test_a_witness_with_odd_text_is_refused():
    witness = Witness(bytes(32), "\ud800")
    with pytest.raises(CsasnError):
        witness.check(ME, ROSTER.identities[ME], STATE.transcript)
