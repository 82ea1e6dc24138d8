"""A site's part: keys of an epoch, masked answers, and what it reveals of them, once and for one set of survivors.

Each function takes the site's state and gives the next one, which has to be on disk before anything that came with it leaves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.federated.secagg import pairs
from csasn.federated.secagg.masks import SEED_BYTES, Mask, add_masks
from csasn.federated.secagg.messages import (
    KEY_PURPOSE,
    SURVIVORS_PURPOSE,
    UPLOAD_PURPOSE,
    EpochContext,
    KeySet,
    KeysMissingError,
    Roster,
    Sealing,
    Sign,
    SignedKey,
    Survivors,
    check_keys,
    hash_payload,
    hash_secret,
)
from csasn.federated.secagg.shares import split
from csasn.identity import verify

Random = Callable[[int], bytes]
Integers = NDArray[np.signedinteger]
HELLO, TRAIN, FINISH = "hello", "train", "finish"  # kinds of request; to the last two an answer holds an update
MAX_PARTIAL_FINISH = 1  # of a study, over all its runs
LIE = "nothing is revealed; tell the coordinator, whose server may be tampered with"
SAME_AGAIN = "the difference of both would be one site's update: wait for the same sites, or begin a study with another seed"


@dataclass(frozen=True)
class Occasion:
    """What an attempt is for: the kind of its request, its round, and the model that it is about."""

    kind: str
    round: int
    state_hash: str

    @property
    def key(self) -> str:
        """Names all that an update follows from, beside the study and the site's cases."""
        return f"{self.kind} {self.round} {self.state_hash}"


@dataclass(frozen=True)
class SiteState:
    """What a site remembers. `pairs` are K with each peer, of `attempt`; `private` is the X25519 key until they are agreed.

    `transcript` and `occasion` are of the attempt, `survivors` the U that the site committed to in it. `revealed` is the last
    occasion in this run for which it revealed. What follows is of earlier runs too, since the same state gives the same update in
    every run, and nearly the same state nearly the same update: `num_partial` counts rounds of the study that were revealed for
    fewer than all, `num_partial_finish` its ends, and `revealed_for` holds, by `Occasion.key`, the U of each reveal.
    """

    epoch: int = 0
    private: bytes = b""
    attempt: int = 0
    pairs: Mapping[str, bytes] = field(default_factory=dict)
    transcript: bytes = b""
    occasion: Occasion | None = None
    survivors: tuple[str, ...] = ()
    revealed: Occasion | None = None
    num_partial: int = 0
    num_partial_finish: int = 0
    revealed_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sealed:
    """The sealing of a masked answer, and this site's own shares of its secrets, which stay at the site."""

    sealing: Sealing
    own_shares: bytes


def begin_epoch(state: SiteState, context: EpochContext, random: Random, sign: Sign) -> tuple[SiteState, SignedKey]:
    """A fresh key for an epoch; asked again before the epoch began, the same.

    Raises:
        ProtocolError: an attempt that goes back.
    """
    if context.epoch <= max(state.attempt, state.epoch) and not (context.epoch == state.epoch and state.private):
        raise ProtocolError(f"keys are asked for in attempt {context.epoch}, after attempt {max(state.attempt, state.epoch)}")
    if context.epoch > state.epoch:
        state = replace(state, epoch=context.epoch, private=random(SEED_BYTES), pairs={})
    public = pairs.public_of(state.private)
    return state, SignedKey(public, sign(KEY_PURPOSE, context.digest + public))


def open_attempt(
    state: SiteState,
    site: str,
    keys: tuple[EpochContext, KeySet],
    attempt: int,
    transcript: bytes,
    occasion: Occasion,
    roster: Roster,
) -> SiteState:
    """Turns to an attempt: agrees on the keys of a new epoch, then takes them forward to the attempt.

    Raises:
        KeysMissingError: this site has no key of the epoch.
        ProtocolError: an attempt that goes back, or has another transcript than before; a round that goes back; a second histogram
            of the training cases; a key that is not this site's in its place.
        TrustError: a key without its signature.
    """
    context, offered = keys
    if state.epoch != context.epoch or not (state.private or state.pairs):
        raise KeysMissingError(f"this site holds no keys of epoch {context.epoch}")
    if state.private:
        check_keys(offered, context, roster)
        agreed = pairs.agree(state.private, site, offered, context, roster)
        state = replace(state, private=b"", pairs=agreed, attempt=context.epoch, transcript=b"")
    if attempt < state.attempt or attempt == context.epoch:
        raise ProtocolError(f"attempt {attempt} comes after attempt {state.attempt}, which this site saw", LIE)
    if attempt == state.attempt:
        if transcript != state.transcript:
            raise ProtocolError(f"attempt {attempt} is asked for with other contents than before", LIE)
        return state
    _check_order(state, occasion)
    forward = pairs.ratchet(state.pairs, attempt - state.attempt)
    return replace(state, attempt=attempt, pairs=forward, transcript=transcript, occasion=occasion, survivors=())


def _check_order(state: SiteState, occasion: Occasion) -> None:
    """The training cases are counted once in a run, and rounds do not go back."""
    if occasion.kind == HELLO and state.occasion is not None and state.occasion.kind != HELLO:
        raise ProtocolError(f"the training cases are asked for again, after {state.occasion.kind}", LIE)
    revealed = state.revealed
    if revealed is None or occasion.kind != TRAIN:
        return
    if revealed.kind != TRAIN or occasion.round < revealed.round:
        raise ProtocolError(f"to train round {occasion.round} comes after {revealed.kind} of round {revealed.round}", LIE)


def seal(
    state: SiteState,
    site: str,
    upload: Integers | None,
    counts: Integers,
    roster: Roster,
    random: Random,
    sign: Sign,
    num_threads: int = 1,
) -> Sealed:
    """Masks upload and counts in place, and shares the secrets of the upload's masks among all sites."""
    peers, transcript = roster.others(site), state.transcript
    add_masks(counts, [Mask(pairs.counts_seed(state.pairs[peer], transcript), roster.sign_of(site, peer)) for peer in peers])
    if upload is None:
        return _signed((counts,), (), (), transcript, sign, b"")
    seeds = {peer: pairs.update_seed(state.pairs[peer], transcript) for peer in peers}
    own = random(SEED_BYTES)
    add_masks(upload, [Mask(own, 1), *(Mask(seeds[peer], roster.sign_of(site, peer)) for peer in peers)], num_threads)
    secrets = [own if name == site else seeds[name] for name in roster.sites]
    shares = [split(secret, roster.threshold, len(roster.sites)) for secret in secrets]
    parts = {name: b"".join(share[place] for share in shares) for place, name in enumerate(roster.sites)}
    blobs = tuple(pairs.close_blob(state.pairs[peer], transcript, site, parts[peer], random(pairs.NONCE_BYTES)) for peer in peers)
    return _signed((upload, counts), blobs, tuple(hash_secret(secret) for secret in secrets), transcript, sign, parts[site])


def _signed(
    arrays: tuple[Integers, ...],
    blobs: tuple[bytes, ...],
    hashes: tuple[bytes, ...],
    transcript: bytes,
    sign: Sign,
    own_shares: bytes,
) -> Sealed:
    sealing = Sealing(blobs, hashes, "")
    digest = sealing.digest(hash_payload([array.data for array in arrays]))
    return Sealed(replace(sealing, signature=sign(UPLOAD_PURPOSE, transcript + digest)), own_shares)


def confirm(state: SiteState, site: str, attempt: int, survivors: Survivors, roster: Roster, sign: Sign) -> tuple[SiteState, str]:
    """The signature (hex) under a set of survivors; from now on this site knows no other in the attempt.

    Raises:
        ProtocolError, TrustError: see `_check_survivors`.
    """
    _check_survivors(state, site, attempt, survivors, roster)
    state = replace(state, survivors=survivors.sites)
    return state, sign(SURVIVORS_PURPOSE, survivors.statement(state.transcript))


def reveal(
    state: SiteState, site: str, attempt: int, survivors: Survivors, blobs: Mapping[str, bytes], own_shares: bytes, roster: Roster
) -> tuple[SiteState, bytes]:
    """This site's shares for one set of survivors: for each site of U in roster order its share of b, then those of the masks with
    each missing site.

    Raises:
        ProtocolError: see `_check_survivors`; U is not confirmed by t of its sites, or a blob is not what its sender wrote.
        TrustError: a signature is not valid.
    """
    _check_survivors(state, site, attempt, survivors, roster)
    missing = [name for name in roster.sites if name not in survivors.sites]
    if missing:
        _check_confirmations(state, survivors, roster)
    assert state.occasion is not None
    revealed = []
    for sender in survivors.sites:
        part = own_shares if sender == site else _open(state, sender, blobs, len(roster.sites))
        revealed += [_piece(part, roster.index(name)) for name in (sender, *missing)]
    first_partial = bool(missing) and state.occasion.key not in state.revealed_for
    state = replace(
        state,
        survivors=survivors.sites,
        revealed=state.occasion,
        num_partial=state.num_partial + (first_partial and state.occasion.kind == TRAIN),
        num_partial_finish=state.num_partial_finish + (first_partial and state.occasion.kind == FINISH),
        revealed_for={**state.revealed_for, state.occasion.key: survivors.sites},
    )
    return state, b"".join(revealed)


def _check_survivors(state: SiteState, site: str, attempt: int, survivors: Survivors, roster: Roster) -> None:
    """Refuses a set of survivors that this site may not help to unmask.

    Raises:
        ProtocolError: of another attempt than the last; too small, without this site, or not of the roster; another one than it
            committed to in this attempt, or revealed for in this round; one partial round too many.
        TrustError: a member of it never uploaded under this site's transcript.
    """
    sites, least = survivors.sites, max(roster.threshold, roster.min_sites)
    occasion = state.occasion
    if attempt != state.attempt or occasion is None or occasion.kind not in (TRAIN, FINISH):
        raise ProtocolError(f"survivors of attempt {attempt}, in which this site sent no update; its last is {state.attempt}", LIE)
    if sites != tuple(name for name in roster.sites if name in sites) or len(survivors.witnesses) != len(sites):
        raise ProtocolError("the survivors are not sites of the study in roster order, with one witness each", LIE)
    if len(sites) < least:
        raise ProtocolError(f"{len(sites)} survivors, the study asks for {least} at least", LIE)
    if site not in sites:
        raise ProtocolError("this site answered, and is not among the survivors", LIE)
    if state.survivors and state.survivors != sites:
        raise ProtocolError(f"other survivors than those that this site committed to in attempt {attempt}", LIE)
    if _same_round(state.revealed, occasion) and state.revealed != occasion:
        raise ProtocolError(f"{occasion.kind} of round {occasion.round} was revealed for another model before", LIE)
    if state.revealed_for.get(occasion.key, sites) != sites:
        raise ProtocolError(f"{occasion.kind} of round {occasion.round} was revealed for other survivors before", SAME_AGAIN)
    if len(sites) < len(roster.sites) and occasion.key not in state.revealed_for:
        train = occasion.kind == TRAIN
        before, allowed = (state.num_partial, roster.max_partial) if train else (state.num_partial_finish, MAX_PARTIAL_FINISH)
        if before >= allowed:
            what = f"{before} rounds were partial" if train else "the study was finished without a site"
            raise ProtocolError(f"{what} before, in this run or another; {allowed} may be", LIE)
    for name, witness in zip(sites, survivors.witnesses, strict=True):
        witness.check(name, roster.identities[name], state.transcript)


def _same_round(one: Occasion | None, other: Occasion) -> bool:
    return one is not None and one.kind == other.kind and (one.round == other.round or one.kind == FINISH)


def _check_confirmations(state: SiteState, survivors: Survivors, roster: Roster) -> None:
    given = {name: signature for name, signature in survivors.confirmations.items() if name in survivors.sites}
    for name, signature in given.items():
        verify(roster.identities[name], SURVIVORS_PURPOSE, survivors.statement(state.transcript), signature, name)
    if len(given) < roster.threshold:
        raise ProtocolError(f"{len(given)} sites confirmed the survivors, expected {roster.threshold} at least", LIE)


def _open(state: SiteState, sender: str, blobs: Mapping[str, bytes], num_sites: int) -> bytes:
    if sender not in blobs:
        raise ProtocolError(f"the shares of {sender} are missing")
    if sender not in state.pairs:
        raise ProtocolError(f"the shares of {sender} cannot be read: new keys were asked for, and those of the attempt are gone")
    part = pairs.open_blob(state.pairs[sender], state.transcript, sender, blobs[sender])
    if len(part) != num_sites * SEED_BYTES:
        raise ProtocolError(f"the shares of {sender} have {len(part)} bytes, expected {num_sites * SEED_BYTES}")
    return part


def _piece(part: bytes, index: int) -> bytes:
    return part[(index - 1) * SEED_BYTES : index * SEED_BYTES]
