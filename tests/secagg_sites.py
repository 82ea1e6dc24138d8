"""Sites with keys agreed, for tests of secure aggregation: real states, real functions, and bytes that can be drawn again."""

import functools
import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn.federated.secagg import coordinator, site
from csasn.federated.secagg.messages import EpochContext, KeySet, Roster, Survivors
from csasn.identity import sign

NAMES = ("zeta", "alpha", "mid", "beta", "omega", "kappa", "eta", "iota")  # their order is the roster's, not the alphabet's
TYPES = {8: np.int8, 16: np.dtype("<i2"), 64: np.dtype("<i8")}
CONTEXT = EpochContext("a" * 64, "b" * 64, "run", 1)


def seeded(*name):
    """A source of bytes that follows from a name."""
    numbers = itertools.count()

    def random(size):
        return hashlib.shake_256(repr((*name, next(numbers))).encode()).digest(size)

    return random


def digest_of(*name):
    return seeded("digest", *name)(32)


@dataclass(frozen=True)
class Sites:
    """A roster, the private identities, and each site's state after it agreed on keys."""

    roster: Roster
    identities: dict
    states: dict

    def signer(self, name):
        return functools.partial(sign, self.identities[name])

    def open(self, name, attempt, occasion, transcript, state=None):
        return site.open_attempt(state or self.states[name], name, (CONTEXT, self.keys), attempt, transcript, occasion, self.roster)

    @property
    def keys(self):
        return key_set(len(self.identities))


def names(num):
    return NAMES[:num]


@functools.cache
def identities(num):
    return {name: Ed25519PrivateKey.from_private_bytes(digest_of("identity", name)) for name in names(num)}


def roster_of(num, min_sites=1, max_partial=3):
    publics = {name: key.public_key().public_bytes_raw().hex() for name, key in identities(num).items()}
    return Roster(publics, min_sites, max_partial)


@functools.cache
def begun(num, context=CONTEXT):
    """Each site's state and key of an epoch, before it holds the others'."""
    signers = {name: functools.partial(sign, key) for name, key in identities(num).items()}
    return {name: site.begin_epoch(site.SiteState(), context, seeded("x25519", name), signers[name]) for name in names(num)}


@functools.cache
def key_set(num):
    return KeySet(CONTEXT.epoch, tuple(key for _, key in begun(num).values()))


def sites(num, min_sites=1, max_partial=3):
    return Sites(roster_of(num, min_sites, max_partial), identities(num), {name: state for name, (state, _) in begun(num).items()})


@dataclass(frozen=True)
class Answer:
    """What came of one site in an attempt."""

    state: site.SiteState
    upload: np.ndarray
    counts: np.ndarray
    sealing: object
    own_shares: bytes


TRAINING = site.Occasion(site.TRAIN, 4, "c" * 64)


def answers(group, attempt=2, occasion=TRAINING, x=None, counts=None, transcript=None, states=None, num_threads=1):
    """Each site's answer to an attempt; x and counts by site are left as they are, x None where the kind has no upload."""
    transcript = transcript or digest_of("transcript", attempt, occasion)
    result = {}
    for name in group.roster.sites:
        state = group.open(name, attempt, occasion, transcript, (states or group.states)[name])
        upload = x and x[name].copy()
        z = counts[name].copy() if counts else np.zeros(3, np.int64)
        random = seeded("answer", name, attempt, transcript)
        sealed = site.seal(state, name, upload, z, group.roster, random, group.signer(name), num_threads)
        result[name] = Answer(state, upload, z, sealed.sealing, sealed.own_shares)
    return result


def values(group, num, bits, seed=1):
    """Small random integers for each site, whose sum fits the ring."""
    random = np.random.default_rng(seed)
    most = (1 << min(bits, 40) - 1) // len(group.identities) - 1
    return {name: random.integers(-most, most, num, endpoint=True).astype(TYPES[bits]) for name in group.roster.sites}


def witnesses(group, answered, transcript=None):
    return {
        name: coordinator.witness_upload(
            name, transcript or answer.state.transcript, answer.upload, answer.counts, answer.sealing, group.roster
        )
        for name, answer in answered.items()
    }


def survivors_of(group, answered, chosen):
    """U in roster order, confirmed by all its members where it is not everybody."""
    inside = [name for name in group.roster.sites if name in chosen]
    proved = witnesses(group, {name: answered[name] for name in inside})
    survivors = Survivors.of(inside, proved)
    if len(inside) == len(group.roster.sites):
        return survivors
    transcript = answered[inside[0]].state.transcript
    given = {name: sign(group.identities[name], "secagg-survivors", survivors.statement(transcript)) for name in inside}
    return Survivors(survivors.sites, survivors.witnesses, given)


def revealed_by(group, answered, survivors, who, state=None):
    """What one site reveals: its next state and its shares."""
    sealings = {name: answered[name].sealing for name in survivors.sites}
    blobs = coordinator.blobs_for(who, sealings, survivors, group.roster)
    answer = answered[who]
    state = state or answer.state
    return site.reveal(state, who, state.attempt, survivors, blobs, answer.own_shares, group.roster)


def hashes_of(answered, survivors):
    return {name: answered[name].sealing.hashes for name in survivors.sites}


def summed(arrays):
    """Σ modulo 2^bits, as the coordinator adds."""
    return functools.reduce(np.add, arrays)


def drop_patterns(num, threshold):
    """Every set of survivors that the threshold allows, the whole first."""
    return [inside for size in range(num, threshold - 1, -1) for inside in itertools.combinations(names(num), size)]
