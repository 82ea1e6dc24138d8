"""Writes secagg.json: canonical bytes, transcripts, seeds, masked answers and signatures, worked out again without code of ours.

    python tests/vectors/make_secagg.py > tests/vectors/secagg.json

X25519 is RFC 7748's ladder, HKDF is RFC 5869 over hmac, AES and Ed25519 come from pycryptodome (the code under test takes them from
cryptography), and integers are Python's. A value is written as [kind, ...]: see `tree`.
"""

import hashlib
import hmac
import json
import struct
import sys

from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

PRIME = 2**255 - 19
LEFT_OUT = {("Header", "run"), ("Header", "attempt"), ("ModelUpdate", "whole"), ("ModelUpdate", "step")}
SITES = ("zeta", "alpha", "mid")  # in roster order


# ---- canonical bytes


def canonical(value):
    tag, content = tagged(value)
    return tag + struct.pack(">Q", len(content)) + content


def tagged(value):
    return CONTENTS[value[0]](*value[1:])


CONTENTS = {
    "none": lambda: (b"n", b""),
    "truth": lambda given: (b"b", b"\1" if given else b"\0"),
    "whole": lambda digits: (b"i", digits.encode()),
    "float": lambda written: (b"f", struct.pack(">d", float.fromhex(written))),
    "text": lambda text: (b"s", text.encode("utf-8")),
    "bytes": lambda data: (b"y", bytes.fromhex(data)),
    "list": lambda items: (b"l", b"".join(map(canonical, items))),
    "map": lambda pairs: (b"m", b"".join(sorted(canonical(key) + canonical(item) for key, item in pairs))),
    "array": lambda dtype, shape, data: (
        b"a", canonical(["text", dtype]) + canonical(["list", [["whole", str(n)] for n in shape]]) + canonical(["bytes", data]),
    ),
    "object": lambda name, fields: (b"o", canonical(["text", name]) + canonical(["map", kept(name, fields)])),
}  # fmt: skip


def kept(name, fields):
    return [[["text", key], item] for key, item in fields if (name, key) not in LEFT_OUT]


def tree(value):
    """A Python value as the vectors write it; an array is ("array", dtype, shape, numbers), an object ("object", name, fields)."""
    if isinstance(value, tuple):
        return array_tree(*value[1:]) if value[0] == "array" else ["object", value[1], [[k, tree(v)] for k, v in value[2].items()]]
    written = {
        type(None): lambda: ["none"], bool: lambda: ["truth", value], int: lambda: ["whole", str(value)],
        float: lambda: ["float", value.hex()], str: lambda: ["text", value], bytes: lambda: ["bytes", value.hex()],
        list: lambda: ["list", [tree(item) for item in value]],
        dict: lambda: ["map", [[tree(key), tree(item)] for key, item in value.items()]],
    }  # fmt: skip
    return written[type(value)]()


def array_tree(dtype, shape, numbers):
    form = {"|i1": "b", "|u1": "B", "<i2": "h", "<i4": "i", "<i8": "q", "<u8": "Q", "<f4": "f", "<f8": "d", "|b1": "?"}[dtype]
    return ["array", dtype, list(shape), struct.pack(f"<{len(numbers)}{form}", *numbers).hex()]


def array(dtype, *numbers, shape=None):
    return "array", dtype, (len(numbers),) if shape is None else shape, numbers


def thing(name, **fields):
    return "object", name, fields


VALUES = [
    None, True, False, 0, -1, 1, 2**63, -(2**200), 10**40, 0.0, -0.0, 1.5, -1e-300, float("inf"), float("nan"), "", "a",
    "häufig ≤ 甲", "\0", b"", b"\0", b"n", bytes(range(256)), [], [None], [[], []], [[[]]], ["a", b"a"], ["ab"], ["a", "b"],
    [1, "1", 1.0, True],
    {}, {"b": 1, "a": 2}, {"a": {"b": {"c": None}}}, {1: "whole", "1": "text"}, {"ä": [], "a": {}},
    array("|i1", -128, 0, 127), array("|u1", 0, 255), array("<i2", -32768, 256), array("<i4", 1, -(2**31)), array("<i8", 2**62, -1),
    array("<u8", 2**64 - 1), array("<f4", 0.5, -0.0), array("<f8", 0.1, -0.0, float("inf")), array("|b1", True, False),
    array("<i8"), array("<i8", shape=(0, 3, 2)), array("<i8", *range(6), shape=(2, 3)), array("<i8", *range(6), shape=(3, 2)),
    thing("Empty"), thing("Point", y=2, x=1), thing("Other", y=2, x=1), thing("Point", x=1, y=None),
    thing("Header", run="left out", attempt=3, kept=1),
    thing("Nested", inner=thing("Point", x=array("<f8", 1.0), y=[thing("Empty")])),
]  # fmt: skip


# ---- questions


def header(number, current_round):
    return thing("Header", study_hash="5" * 64, membership_hash="6" * 64, number=number, round=current_round, run="run-1",
                 attempt=7, version=2)  # fmt: skip


def model(whole=True):
    step = thing("Step", sum_P=array("<i2", 3, -4), sizes=array("<f8", 0.25), arrived_units=64)
    return thing("ModelUpdate", state_hash="7" * 64, whole=array("<f4", 0.5, -1.5) if whole else None, step=None if whole else step)


WEIGHTING = thing("Weighting", omega_K=array("<f8", 0.75, 1.25), histogram_K=array("<i8", 30, 12),
                  history_R3K=array("<i8", 5, 6, 1, 2, 3, 4, shape=(1, 3, 2)))  # fmt: skip
ACCEPTED = hashlib.sha256(b"the one before").digest()
RANGES = array("<f8", 0.05, 0.5)


def about(number, current_round, accepted, whole=True):
    return {"header": header(number, current_round), "model": model(whole), "weighting": WEIGHTING, "accepted": accepted}


QUESTIONS = [
    ("hello", False, thing("Hello", header=header(1, 0))),
    ("train", False, thing("Train", **about(1, 1, None), ranges=RANGES)),
    ("train", True, thing("Train", **about(5, 3, ACCEPTED), ranges=RANGES)),
    ("train", False, thing("Train", **about(5, 3, ACCEPTED), ranges=RANGES)),
    ("train", True, thing("Train", **about(5, 3, ACCEPTED, whole=False), ranges=RANGES)),
    ("validate", True, thing("Validate", **about(1, 3, ACCEPTED))),
    ("finish", False, thing("Finish", **about(2, 3, None), temperature=1.0)),
]


def transcript(kind, carried, question):
    return hashlib.sha256(canonical(tree(["csasn question v2", kind, carried, question]))).digest()


# ---- keys


def x25519(private, public):
    scalar = int.from_bytes(private, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(public, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    for place in reversed(range(255)):
        bit = scalar >> place & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % PRIME, c * b % PRIME, a * a % PRIME, b * b % PRIME
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, (aa - bb) * (aa + 121665 * (aa - bb)) % PRIME
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def hkdf(secret, info):
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\1", "sha256")


def drawn(*name):
    return hashlib.sha256(repr(("secagg vectors", *name)).encode()).digest()


def sign(site, purpose, data):
    key = ECC.construct(curve="Ed25519", seed=drawn("identity", site))
    return eddsa.new(key, "rfc8032").sign(b"csasn " + purpose.encode() + b" v1\0" + data).hex()


def identity(site):
    return ECC.construct(curve="Ed25519", seed=drawn("identity", site)).public_key().export_key(format="raw").hex()


PRIVATE = {site: drawn("x25519", site) for site in SITES}
PUBLIC = {site: x25519(PRIVATE[site], (9).to_bytes(32, "little")) for site in SITES}
T = transcript(*QUESTIONS[2])


def key(site, public=None, digest=T, purpose="secagg-key", signer=None):
    public = PUBLIC[site] if public is None else public
    return {"public": public.hex(), "signature": sign(signer or site, purpose, canonical(tree([digest, public])))}


KEYS = [key(site) for site in SITES]
VIEW = hashlib.sha256(canonical(tree(["csasn view v1", T, [PUBLIC[site] for site in SITES]]))).digest()


def seed(site, peer, use):
    first, second = sorted((site, peer), key=SITES.index)
    return hkdf(x25519(PRIVATE[site], PUBLIC[peer]), canonical(tree(["csasn mask v2", VIEW, first, second, use])))


# ---- masked answers


def keystream(key_bytes, num, bits):
    cipher, size = AES.new(key_bytes, AES.MODE_ECB), num * bits // 8
    stream = b"".join(cipher.encrypt(number.to_bytes(16, "big")) for number in range(-(-size // 16)))[:size]
    return [int.from_bytes(stream[place : place + bits // 8], "little") for place in range(0, size, bits // 8)]


def in_ring(value, bits):
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def masked(site, values, use, bits):
    for peer in SITES:
        if peer != site:
            sigma = 1 if SITES.index(site) < SITES.index(peer) else -1
            stream = keystream(seed(site, peer, use), len(values), bits)
            values = [value + sigma * mask for value, mask in zip(values, stream, strict=True)]
    return [in_ring(value, bits) for value in values]


def as_bytes(values, bits):
    return b"".join((value % (1 << bits)).to_bytes(bits // 8, "little") for value in values)


def updates(bits):
    """Updates and counts by site, within what a sum of three may hold."""
    most = (1 << bits - 1) // 3 - 1 if bits < 64 else 10**12
    return {site: [most, -most, 0, place - 1, 7 * place, -most // (place + 1)] for place, site in enumerate(SITES)}


COUNTS = {"zeta": [3, 0, 2**40], "alpha": [0, 1, 5], "mid": [9, 0, 0]}


def answer(site, bits):
    z = masked(site, COUNTS[site], "counts", 64)
    y = None if bits is None else masked(site, updates(bits)[site], "update", bits)
    digests = [None if y is None else hashlib.sha256(as_bytes(y, bits)).digest(), hashlib.sha256(as_bytes(z, 64)).digest()]
    return {
        "site": site, "private": PRIVATE[site].hex(), "x": None if bits is None else updates(bits)[site], "counts": COUNTS[site],
        "y": y, "z": z, "signature": sign(site, "secagg-answer", canonical(tree([VIEW, *digests]))),
    }  # fmt: skip


def whole(bits):
    answers = [answer(site, bits) for site in SITES]
    sums = None if bits is None else [in_ring(sum(column), bits) for column in zip(*(a["y"] for a in answers), strict=True)]
    counts = [in_ring(sum(column), 64) for column in zip(*(a["z"] for a in answers), strict=True)]
    assert counts == [sum(column) for column in zip(*COUNTS.values(), strict=True)]
    assert bits is None or sums == [sum(column) for column in zip(*updates(bits).values(), strict=True)]
    return {"bits": bits, "answers": answers, "sum": sums, "sum_of_counts": counts}


# ---- what is refused


def refused():
    def with_last(other):
        return [*KEYS[:-1], other]

    other = x25519(drawn("other"), (9).to_bytes(32, "little"))
    number = "keys came, expected a different one of each of the 3 sites"
    replaced = "the key in this site's place is not its own"
    invalid, unusable = "the secagg-key signature of mid is not valid", "the key of mid cannot be used"
    order_eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    return [
        {"name": name, "keys": keys, "error": error, "phrase": phrase}
        for name, keys, error, phrase in [
            ("no keys", [], "ProtocolError", f"0 {number}"),
            ("two keys", KEYS[:2], "ProtocolError", f"2 {number}"),
            ("four keys", [*KEYS, key("mid", other)], "ProtocolError", f"4 {number}"),
            ("a key twice, signed by both", with_last(key("mid", PUBLIC["alpha"])), "ProtocolError", f"3 {number}"),
            ("two keys in each other's place", [KEYS[0], KEYS[2], KEYS[1]], "TrustError", "the secagg-key signature of alpha"),
            ("a key of one that carries nothing", with_last(key("mid", digest=transcript(*QUESTIONS[3]))), "TrustError", invalid),
            ("a key of an earlier question", with_last(key("mid", digest=transcript(*QUESTIONS[1]))), "TrustError", invalid),
            ("a key for another purpose", with_last(key("mid", purpose="secagg-answer")), "TrustError", invalid),
            ("a key of another identity", with_last(key("mid", signer="nobody")), "TrustError", invalid),
            ("another key under the signature", with_last({**KEYS[2], "public": other.hex()}), "TrustError", invalid),
            ("no signature", with_last({**KEYS[2], "signature": ""}), "TrustError", invalid),
            ("this site's key replaced", [key("zeta", other), *KEYS[1:]], "ProtocolError", replaced),
            ("a key of order one", with_last(key("mid", bytes(32))), "ProtocolError", unusable),
            ("a key of order two", with_last(key("mid", b"\1" + bytes(31))), "ProtocolError", unusable),
            ("a key of order eight", with_last(key("mid", order_eight.to_bytes(32, "little"))), "ProtocolError", unusable),
            ("a key of 31 bytes", with_last(key("mid", PUBLIC["mid"][:31])), "ProtocolError", unusable),
        ]
    ]  # fmt: skip


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]"


if __name__ == "__main__":
    values = [{"value": tree(value), "bytes": canonical(tree(value)).hex()} for value in VALUES]
    questions = [
        {"kind": kind, "carried": carried, "question": tree(question), "transcript": transcript(kind, carried, question).hex()}
        for kind, carried, question in QUESTIONS
    ]
    seeds = [
        {"site": site, "peer": peer, **{use: seed(site, peer, use).hex() for use in ("update", "counts")}}
        for site in SITES for peer in SITES if site != peer
    ]  # fmt: skip
    facts = {"identities": {site: identity(site) for site in SITES}, "transcript": T.hex(), "view": VIEW.hex(), "keys": KEYS}
    wholes = [whole(bits) for bits in (8, 16, 64, None)]
    sections = {"canonical": values, "questions": questions, "seeds": seeds, "wholes": wholes, "refused": refused()}
    body = ",\n".join(f'"{name}": {lines(cases)}' for name, cases in sections.items())
    sys.stdout.write(f'{{"facts": {json.dumps(facts)},\n{body}}}\n')
