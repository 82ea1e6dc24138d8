"""Sites with real keys for one question, for tests of secure aggregation."""

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.stats import chi2

from csasn.federated.secagg.keys import Roster, sign_key
from csasn.federated.secagg.sealing import Sealer
from csasn.trust.identity import public_hex, sign

TYPES = {8: np.dtype("int8"), 16: np.dtype("<i2"), 64: np.dtype("<i8")}
T = hashlib.sha256(b"a question").digest()
FALSE_ALARM = 1e-6  # of a test of uniformity; keys follow from names, so that each run gives the same figures


def drawn(*name):
    """32 bytes that follow from a name."""
    return hashlib.sha256(repr(name).encode()).digest()


@functools.cache
def _identity(name):
    return Ed25519PrivateKey.from_private_bytes(drawn("identity", name))


def signer_of(name):
    return functools.partial(sign, _identity(name))


@dataclass(frozen=True)
class Group:
    """n sites whose names are not in alphabetical order, each with a key for the transcript."""

    num: int
    transcript: bytes = T
    draw: object = 0
    roster: Roster = field(init=False)

    def __post_init__(self):
        names = [f"site{(7 * place + 3) % 17}" for place in range(self.num)]
        object.__setattr__(self, "roster", Roster({name: public_hex(_identity(name)) for name in names}))

    @property
    def names(self):
        return self.roster.sites

    def private(self, name):
        return drawn("x25519", self.draw, name)

    def key(self, name, transcript=None):
        return sign_key(self.private(name), transcript or self.transcript, signer_of(name))

    @functools.cached_property
    def keys(self):
        return tuple(self.key(name) for name in self.names)

    def sealer(self, name, num_threads=1):
        return Sealer(name, self.roster, self.private(name), self.transcript, num_threads)

    def seal(self, name, update, counts, keys=None, num_threads=1):
        """The sealing and copies of the arrays, masked."""
        update, counts = None if update is None else update.copy(), counts.copy()
        sealing = self.sealer(name, num_threads).seal(keys or self.keys, update, counts, signer_of(name))
        return sealing, update, counts


def summed(arrays):
    """Σ modulo 2^bits, as the coordinator adds."""
    return functools.reduce(np.add, arrays)


def is_uniform(values):
    """Whether each byte of the integers takes all 256 values equally often (chi-square)."""
    columns = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    expected = len(values) / 256
    worst = max(((np.bincount(column, minlength=256) - expected) ** 2 / expected).sum() for column in columns.T)
    return bool(chi2.sf(worst, 255) > FALSE_ALARM / columns.shape[1])
