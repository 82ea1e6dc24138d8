"""Makes secagg.json: `python make_secagg.py > secagg.json`.

Written from csasn/SPEC.md, "Secure aggregation", over tests/secagg_reference.py, and not from the code under test, which neither
imports. Everything that a run would draw (keys, nonces, Shamir's coefficients) is a hash of a name. Four sites, t = 3, one missing.
"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
import secagg_reference as reference

SITES = ["zeta", "alpha", "mid", "beta"]  # roster order, not the alphabet's
THRESHOLD, EPOCH, ATTEMPT = 3, 3, 5
STUDY_HASH, MEMBERSHIP_HASH, RUN = "5" * 64, "7" * 64, "run-1"
SURVIVORS = ["zeta", "mid", "beta"]
BITS = {"train 16": (16, 21), "train 8": (8, 37), "finish 64": (64, 5)}
COUNTS = 6
ORDER_EIGHT = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


def drawn(*name, size=32):
    return hashlib.shake_256(json.dumps(["csasn vectors", *name]).encode()).digest(size)


def texts(values):
    return [value.hex() for value in values]


SIGNING = {site: drawn("identity", site) for site in SITES}
IDENTITIES = {site: reference.identity(key) for site, key in SIGNING.items()}
PRIVATE = {site: drawn("x25519", site) for site in SITES}
PUBLIC = [reference.public_key(PRIVATE[site]) for site in SITES]
CONTEXT = reference.context(STUDY_HASH, MEMBERSHIP_HASH, RUN, EPOCH)
STATEMENTS = [CONTEXT + public for public in PUBLIC]
KEYS = [
    {"public": public.hex(), "signature": reference.sign(SIGNING[site], "secagg-key", statement)}
    for site, public, statement in zip(SITES, PUBLIC, STATEMENTS, strict=True)
]
FACTS = {"study_hash": STUDY_HASH, "membership_hash": MEMBERSHIP_HASH, "run": RUN, "epoch": EPOCH}
IN_EPOCH = {
    (one, other): reference.pair_key(PRIVATE[SITES[one]], one, other, PUBLIC, CONTEXT)
    for one in range(4)
    for other in range(4)
    if one != other
}
NOW = {pair: reference.ratchet(key, ATTEMPT - EPOCH) for pair, key in IN_EPOCH.items()}


def others(place):
    return [other for other in range(4) if other != place]


def data(kind, site, bits, num):
    most = (1 << bits - 1) // 4 - 1
    numbers = (int.from_bytes(drawn(kind, "x", site, place, size=8), "big") for place in range(num))
    return [number % (2 * most + 1) - most for number in numbers]


def answer(kind, place, transcript):
    """All that one site makes in an attempt."""
    site, (bits, num) = SITES[place], BITS[kind]
    x, counts = data(kind, site, bits, num), [int.from_bytes(drawn(kind, "counts", site, n, size=3), "big") for n in range(COUNTS)]
    own = drawn(kind, "b", site)
    seeds = {peer: reference.update_seed(NOW[place, peer], transcript) for peer in others(place)}
    masks = [(own, 1), *((seeds[peer], reference.sigma(place, peer)) for peer in others(place))]
    hidden = [(reference.counts_seed(NOW[place, peer], transcript), reference.sigma(place, peer)) for peer in others(place)]
    y, z = reference.add(x, masks, bits), reference.add(counts, hidden, 64)
    secrets = [own if peer == place else seeds[peer] for peer in range(4)]
    shares = [
        reference.split(secret, [drawn(kind, "coefficient", site, index, power) for power in range(THRESHOLD - 1)], 4)
        for index, secret in enumerate(secrets)
    ]
    parts = [b"".join(shares[index][receiver] for index in range(4)) for receiver in range(4)]
    nonces = {peer: drawn(kind, "nonce", site, peer, size=12) for peer in others(place)}
    blobs = [reference.close_blob(NOW[place, peer], transcript, site, parts[peer], nonces[peer]) for peer in others(place)]
    hashes = [reference.hash_secret(secret) for secret in secrets]
    digest = reference.upload_digest(reference.as_bytes(y, bits), reference.as_bytes(z, 64), blobs, hashes)
    return {
        "site": site, "x": x, "counts": counts, "b": own.hex(), "nonces": texts(nonces.values()),
        "shares": [texts(row) for row in shares], "upload": y, "masked_counts": z, "blobs": texts(blobs), "hashes": texts(hashes),
        "own_shares": parts[place].hex(), "digest": digest.hex(),
        "signature": reference.sign(SIGNING[site], "secagg-upload", transcript + digest),
    }  # fmt: skip


def attempt(kind):
    """One attempt: answers, the survivors' statement and signatures, what they reveal, and what comes out."""
    bits, _ = BITS[kind]
    transcript = drawn(kind, "transcript")
    made = [answer(kind, place, transcript) for place in range(4)]
    inside, missing = [SITES.index(site) for site in SURVIVORS], SITES.index("alpha")
    statement = reference.survivors_statement(transcript, SURVIVORS)
    revealed = {SITES[who]: "".join(made[j]["shares"][i][who] for j in inside for i in (j, missing)) for who in inside}
    own = [bytes.fromhex(made[j]["b"]) for j in inside]
    with_missing = [(reference.update_seed(NOW[j, missing], transcript), reference.sigma(j, missing)) for j in inside]
    together = reference.add_up([made[j]["upload"] for j in inside], bits)
    total = reference.unmask(together, own, with_missing, bits)
    assert total == [sum(column) for column in zip(*(made[j]["x"] for j in inside), strict=True)]
    for place, j in enumerate(inside):
        for number, secret in enumerate((own[place], with_missing[place][0])):
            start = 64 * (2 * place + number)
            pieces = {SITES.index(who) + 1: bytes.fromhex(part[start : start + 64]) for who, part in revealed.items()}
            assert reference.combine(pieces) == secret, (j, number)
    return {
        "name": kind, "bits": bits, "transcript": transcript.hex(), "answers": made, "survivors": SURVIVORS,
        "statement": statement.hex(),
        "confirmations": {site: reference.sign(SIGNING[site], "secagg-survivors", statement) for site in SURVIVORS},
        "revealed": revealed, "own_secrets": texts(own), "missing_secrets": [[seed.hex(), sign] for seed, sign in with_missing],
        "sum": total, "sum_of_counts": [sum(column) for column in zip(*(one["counts"] for one in made), strict=True)],
    }  # fmt: skip


def accepted():
    seed, transcript, start = drawn("a seed"), drawn("a transcript"), [1, -1, 127, -128, 0, 5]
    return {
        "context": [{"name": "four sites", **FACTS, "output": CONTEXT.hex()}],
        "keys": [
            {"name": site, "signing": SIGNING[site].hex(), "identity": IDENTITIES[site], "private": PRIVATE[site].hex(),
             "statement": statement.hex(), **key}
            for site, key, statement in zip(SITES, KEYS, STATEMENTS, strict=True)
        ],
        "pairs": [
            {"name": f"{SITES[one]} with {SITES[other]}", "site": SITES[one], "peer": SITES[other], "epoch": key.hex(),
             "attempt": NOW[one, other].hex()}
            for (one, other), key in IN_EPOCH.items()
        ],
        "ratchet": [
            {"name": f"{steps} steps", "key": seed.hex(), "steps": steps, "output": reference.ratchet(seed, steps).hex()}
            for steps in (0, 1, 2, 1000)
        ],
        "seeds": [
            {"name": kind, "key": seed.hex(), "transcript": transcript.hex(), "output": make(seed, transcript).hex()}
            for kind, make in (("update", reference.update_seed), ("counts", reference.counts_seed))
        ],
        "masks": [
            {"name": f"{bits} bits, sign {sign}", "bits": bits, "values": start, "seed": seed.hex(), "sign": sign,
             "keystream": reference.keystream(seed, len(start) * bits // 8).hex(),
             "output": reference.add(start, [(seed, sign)], bits)}
            for bits in (8, 16, 64)
            for sign in (1, -1)
        ],
        "attempts": [attempt(kind) for kind in BITS],
    }  # fmt: skip


def resigned(place, public, facts=None):
    """A key that a site signed, in the place of the one it has."""
    context = reference.context(*{**FACTS, **(facts or {})}.values())
    signature = reference.sign(SIGNING[SITES[place]], "secagg-key", context + public)
    return [*KEYS[:place], {"public": public.hex(), "signature": signature}, *KEYS[place + 1 :]]


def refused_keys():
    own, invalid = SITES[0], "the secagg-key signature of mid is not valid"
    unsigned = [*KEYS[:2], {"public": PUBLIC[2].hex(), "signature": KEYS[1]["signature"]}, KEYS[3]]
    foreign = [
        *KEYS[:2],
        {"public": PUBLIC[2].hex(), "signature": reference.sign(drawn("nobody"), "secagg-key", STATEMENTS[2])},
        KEYS[3],
    ]
    purpose = [
        *KEYS[:2],
        {"public": PUBLIC[2].hex(), "signature": reference.sign(SIGNING["mid"], "enrolment", STATEMENTS[2])},
        KEYS[3],
    ]
    count = "are not one of each of the 4 sites"
    cases = [
        ("a signature of another site", unsigned, EPOCH, "TrustError", invalid),
        ("a signature of an unknown identity", foreign, EPOCH, "TrustError", invalid),
        ("a signature for another purpose", purpose, EPOCH, "TrustError", invalid),
        ("a key of another epoch", resigned(2, PUBLIC[2], {"epoch": EPOCH - 1}), EPOCH, "TrustError", invalid),
        ("a key of another run", resigned(2, PUBLIC[2], {"run": "run-2"}), EPOCH, "TrustError", invalid),
        ("a key of another study", resigned(2, PUBLIC[2], {"study_hash": "6" * 64}), EPOCH, "TrustError", invalid),
        ("a key of another membership", resigned(2, PUBLIC[2], {"membership_hash": "6" * 64}), EPOCH, "TrustError", invalid),
        ("another key under the signature", [*KEYS[:2], {**KEYS[2], "public": drawn("other").hex()}, KEYS[3]], EPOCH, "TrustError",
         invalid),
        ("two keys in each other's place", [KEYS[0], KEYS[1], KEYS[3], KEYS[2]], EPOCH, "TrustError", invalid),
        ("keys named of another epoch", KEYS, EPOCH + 1, "ProtocolError", count),
        ("three keys", KEYS[:3], EPOCH, "ProtocolError", count),
        ("five keys", [*KEYS, KEYS[3]], EPOCH, "ProtocolError", count),
        ("two keys the same", resigned(2, PUBLIC[1]), EPOCH, "ProtocolError", count),
        ("this site's key replaced, signed by itself", resigned(0, reference.public_key(drawn("other"))), EPOCH, "ProtocolError",
         "the key in this site's place is not its own"),
        ("a key of order one", resigned(2, bytes(32)), EPOCH, "ProtocolError", "the key of mid cannot be used"),
        ("a key of order two", resigned(2, b"\x01" + bytes(31)), EPOCH, "ProtocolError", "the key of mid cannot be used"),
        ("a key of order eight", resigned(2, ORDER_EIGHT), EPOCH, "ProtocolError", "the key of mid cannot be used"),
        ("a key of 31 bytes", resigned(2, PUBLIC[2][:31]), EPOCH, "ProtocolError", "the key of mid cannot be used"),
    ]  # fmt: skip
    return [
        {"name": name, "function": "agree", "site": own, "epoch": epoch, "keys": keys, "error": error, "phrase": phrase}
        for name, keys, epoch, error, phrase in cases
    ]


def refused_blobs():
    transcript = drawn("train 16", "transcript")
    blob = bytes.fromhex(answer("train 16", 2, transcript)["blobs"][0])  # of mid, for zeta
    key, other = NOW[0, 2], drawn("another transcript")
    cases = [
        ("of another transcript", key, other, "mid", blob),
        ("of another sender", key, transcript, "zeta", blob),
        ("under the key of another peer", NOW[0, 1], transcript, "mid", blob),
        ("under the key of the attempt before", reference.ratchet(IN_EPOCH[0, 2], 1), transcript, "mid", blob),
        ("with another nonce", key, transcript, "mid", bytes([blob[0] ^ 1]) + blob[1:]),
        ("with one bit changed", key, transcript, "mid", blob[:40] + bytes([blob[40] ^ 128]) + blob[41:]),
        ("with another tag", key, transcript, "mid", blob[:-1] + bytes([blob[-1] ^ 1])),
        ("cut short", key, transcript, "mid", blob[:-1]),
        ("of a nonce alone", key, transcript, "mid", blob[:12]),
        ("empty", key, transcript, "mid", b""),
        ("followed by a byte", key, transcript, "mid", blob + b"\0"),
    ]
    return [
        {"name": name, "function": "open_blob", "key": key.hex(), "transcript": about.hex(), "sender": sender, "blob": blob.hex(),
         "error": "ProtocolError", "phrase": f"the shares that came from {sender} are not what it sent"}
        for name, key, about, sender, blob in cases
    ]  # fmt: skip


def refused_statements():
    transcript, digest = (
        drawn("train 16", "transcript"),
        bytes.fromhex(answer("train 16", 2, drawn("train 16", "transcript"))["digest"]),
    )
    purpose, text = "secagg-upload", "the secagg-upload signature of mid is not valid"
    cases = [
        ("by another site", reference.sign(SIGNING["beta"], purpose, transcript + digest)),
        ("under another transcript", reference.sign(SIGNING["mid"], purpose, drawn("another transcript") + digest)),
        ("of another digest", reference.sign(SIGNING["mid"], purpose, transcript + drawn("another digest"))),
        ("for another purpose", reference.sign(SIGNING["mid"], "secagg-key", transcript + digest)),
        ("cut short", reference.sign(SIGNING["mid"], purpose, transcript + digest)[:-2]),
        ("that is no hexadecimal", "x" * 128),
        ("that is empty", ""),
    ]
    return [
        {"name": name, "function": "witness", "site": "mid", "identity": IDENTITIES["mid"], "transcript": transcript.hex(),
         "digest": digest.hex(), "signature": signature, "error": "TrustError", "phrase": text}
        for name, signature in cases
    ]  # fmt: skip


def refused_shares():
    made = attempt("train 16")
    revealed, hashes = made["revealed"], {one["site"]: one["hashes"] for one in made["answers"]}
    wrong = revealed["mid"][:-2] + f"{int(revealed['mid'][-2:], 16) ^ 1:02x}"
    cases = [
        ("of two sites", {site: revealed[site] for site in ("zeta", "mid")}, "2 sites reveal"),
        ("too short from one", revealed | {"mid": revealed["mid"][:-2]}, "2 sites reveal"),
        ("too long from one", revealed | {"mid": revealed["mid"] + "00"}, "2 sites reveal"),
        ("with one bit changed", revealed | {"mid": wrong}, "the revealed shares of beta fit no secret"),
        ("of two sites exchanged", revealed | {"mid": revealed["beta"], "beta": revealed["mid"]},
         "the revealed shares of zeta fit no secret"),
    ]  # fmt: skip
    return [
        {"name": name, "function": "recover", "shares": shares, "hashes": hashes, "error": "ProtocolError", "phrase": phrase}
        for name, shares, phrase in cases
    ]


def refused_steps():
    seed = drawn("a seed").hex()
    return [
        {"name": f"{steps} steps", "function": "ratchet", "key": seed, "steps": steps, "error": "ProtocolError",
         "phrase": f"{steps} attempts from the last one"}
        for steps in (1001, -1)
    ]  # fmt: skip


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]"


if __name__ == "__main__":
    sections = ",\n".join(f'"{function}": {lines(cases)}' for function, cases in accepted().items())
    facts = json.dumps({**FACTS, "identities": IDENTITIES, "threshold": THRESHOLD, "attempt": ATTEMPT})
    refused = [*refused_keys(), *refused_blobs(), *refused_statements(), *refused_shares(), *refused_steps()]
    sys.stdout.write(f'{{"facts": {facts},\n"accepted": {{\n{sections}\n}},\n"refused": {lines(refused)}}}\n')
