"""Secure aggregation again, slow and plain, from csasn/SPEC.md alone: Python's integers, one cipher block at a time.

No code of ours: X25519 is RFC 7748's ladder, HKDF is RFC 5869 over hmac, AES comes from pycryptodome (the code under test takes it
from cryptography), and Shamir's scheme is written out over GF(2^128) with x^128 + x^7 + x^2 + x + 1, numbers big-endian.
"""

import hashlib
import hmac
import json

from Crypto.Cipher import AES
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIME = 2**255 - 19
POLYNOMIAL = (1 << 128) | (1 << 7) | (1 << 2) | 2 | 1


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


def public_key(private):
    return x25519(private, (9).to_bytes(32, "little"))


def hkdf(key, info):
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def context(study_hash, membership_hash, run, epoch):
    return hashlib.sha256(json.dumps([study_hash, membership_hash, run, epoch], separators=(",", ":")).encode()).digest()


def sign(private, purpose, data):
    return Ed25519PrivateKey.from_private_bytes(private).sign(b"csasn " + purpose.encode() + b" v1\x00" + data).hex()


def identity(private):
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def pair_key(private, own, peer, publics, c):
    """K of the sites at two places, from 0, of the roster."""
    low, high = min(own, peer), max(own, peer)
    return hkdf(x25519(private, publics[peer]), b"csasn pair v1" + c + publics[low] + publics[high])


def ratchet(key, steps):
    for _ in range(steps):
        key = hkdf(key, b"csasn ratchet v1")
    return key


def update_seed(key, transcript):
    return hkdf(key, b"csasn update v1" + transcript)


def counts_seed(key, transcript):
    return hkdf(key, b"csasn counts v1" + transcript)


# ---- masks


def keystream(seed, size):
    cipher, stream = AES.new(seed, AES.MODE_ECB), b""
    for number in range(-(-size // 16)):
        stream += cipher.encrypt(number.to_bytes(16, "big"))
    return stream[:size]


def prg(seed, num, bits):
    size = bits // 8
    stream = keystream(seed, num * size)
    return [int.from_bytes(stream[place : place + size], "little") for place in range(0, num * size, size)]


def in_ring(value, bits):
    """The representative from -2^(bits-1) to 2^(bits-1) - 1."""
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def add(values, seeds, bits):
    """Values plus, for each (seed, sign), sign times PRG(seed)."""
    for seed, sigma in seeds:
        values = [value + sigma * mask for value, mask in zip(values, prg(seed, len(values), bits), strict=True)]
    return [in_ring(value, bits) for value in values]


def add_up(lists, bits):
    return [in_ring(sum(column), bits) for column in zip(*lists, strict=True)]


def sigma(own, peer):
    return 1 if own < peer else -1


def as_bytes(values, bits):
    return b"".join((value % (1 << bits)).to_bytes(bits // 8, "little") for value in values)


# ---- shares


def multiply(one, other):
    product = 0
    for place in range(128):
        if other >> place & 1:
            product ^= one << place
    for place in reversed(range(128, 256)):
        if product >> place & 1:
            product ^= POLYNOMIAL << (place - 128)
    return product


def invert(value):
    """value^(2^128 - 2)."""
    result = 1
    for _ in range(127):
        value = multiply(value, value)
        result = multiply(result, value)
    return result


def split_half(half, coefficients, index):
    """The polynomial with the secret at 0 and these coefficients of x, x², ..., at `index`."""
    total, power = int.from_bytes(half, "big"), 1
    for coefficient in coefficients:
        power = multiply(power, index)
        total ^= multiply(int.from_bytes(coefficient, "big"), power)
    return total.to_bytes(16, "big")


def split(secret, coefficients, num_sites):
    """Shares of 32 bytes; `coefficients` are t - 1 pieces of 32 bytes, a half for each half of the secret."""
    firsts, seconds = [piece[:16] for piece in coefficients], [piece[16:] for piece in coefficients]
    sites = range(1, num_sites + 1)
    return [split_half(secret[:16], firsts, index) + split_half(secret[16:], seconds, index) for index in sites]


def combine(shares):
    """The secret from shares by index, as many as the threshold."""
    weights = {}
    for own in shares:
        top = bottom = 1
        for other in shares:
            if other != own:
                top, bottom = multiply(top, other), multiply(bottom, own ^ other)
        weights[own] = multiply(top, invert(bottom))
    halves = []
    for half in (slice(0, 16), slice(16, 32)):
        total = 0
        for index, share in shares.items():
            total ^= multiply(int.from_bytes(share[half], "big"), weights[index])
        halves.append(total.to_bytes(16, "big"))
    return b"".join(halves)


def close_blob(key, transcript, sender, plain, nonce):
    cipher = AES.new(hkdf(key, b"csasn blob v1" + transcript + sender.encode()), AES.MODE_GCM, nonce=nonce)
    sealed, tag = cipher.encrypt_and_digest(plain)
    return nonce + sealed + tag


def open_blob(key, transcript, sender, blob):
    cipher = AES.new(hkdf(key, b"csasn blob v1" + transcript + sender.encode()), AES.MODE_GCM, nonce=blob[:12])
    return cipher.decrypt_and_verify(blob[12:-16], blob[-16:])


# ---- answers


def hash_secret(secret):
    return hashlib.sha256(b"csasn secret v1" + secret).digest()


def upload_digest(upload, counts, blobs, hashes):
    """d, of the bytes of y and z; y is None where there is no upload."""
    arrays = (counts,) if upload is None else (upload, counts)
    parts = [hashlib.sha256(array).digest() for array in arrays]
    return hashlib.sha256(b"".join([*parts, *blobs, *hashes])).digest()


def survivors_statement(transcript, sites):
    return transcript + ("[" + ",".join(f'"{site}"' for site in sites) + "]").encode()


def unmask(sums, own_secrets, missing_secrets, bits):
    """Σ x from Σ y; `missing_secrets` holds (s, σ) of each survivor with each missing site."""
    return add(sums, [*((seed, -1) for seed in own_secrets), *((seed, -sign) for seed, sign in missing_secrets)], bits)
