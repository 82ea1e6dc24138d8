"""Secure aggregation at the coordinator: keys of an epoch, masked answers, and the secrets of one set of survivors.

csasn/SPEC.md, "Secure aggregation"; the arithmetic is csasn/federated/secagg/coordinator.py. What must outlive a crash, the keys of
the epoch, the survivors of a round and their masked sum, is in the run directory before it is sent.
"""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from csasn.contract import Contract
from csasn.errors import CsasnError, ProtocolError, QuorumError, TrustError
from csasn.federated.messages import (
    Absence,
    Answer,
    Confirmation,
    Header,
    Integers,
    Kind,
    Reason,
    Replies,
    Reply,
    Request,
    Shares,
    transcript,
)
from csasn.federated.secagg.coordinator import blobs_for, recover, unmask, witness_upload
from csasn.federated.secagg.messages import (
    SURVIVORS_PURPOSE,
    EpochContext,
    KeySet,
    Sealing,
    SignedKey,
    Survivors,
    Witness,
    check_keys,
)
from csasn.identity import verify
from server.exchange import Correspondence
from server.run_directory import RunDirectory
from server.sums import Answers, PlainSums, Sums
from server.unmasking import Unmasking, drop_unmasking, find_unmasking, keep_unmasking, occasion_of

GRACE_S = 2.0  # for the rest, once as many sites revealed as are needed
MAX_COUNT = 1 << 53  # of a summed count: masks that do not cancel leave more
LEFT_OUT = Absence(Reason.LEFT_OUT)
RESUME = "look for a site of another version, then resume"
T = TypeVar("T", SignedKey, Confirmation, Shares)


class MaskedSums:
    """Sums that nobody can see the parts of."""

    def __init__(self, contract: Contract, directory: RunDirectory, sites: Correspondence) -> None:
        self.contract, self.directory, self.sites = contract, directory, sites
        self.roster = contract.roster
        self._keys = directory.load_keys()

    def ask(self, request: Request, least: int) -> Replies:
        """See `Sums`. What is summed is unmasked for one set of survivors, once; counts for the whole membership alone.

        Where an earlier attempt at the same waits for shares, they are asked for first.
        """
        if (waiting := find_unmasking(self.directory.path, request)) is not None:
            self.directory.event("shares-asked-again", attempt=waiting[0].header.attempt)
            revealed = self._reveal(*waiting)
            if revealed.sum_P is not None:
                return revealed
            drop_unmasking(self.directory.path)
        if self._keys is None and (failed := self._agree(request.header)) is not None:
            return failed
        if self._keys is not None and self._keys.epoch > request.header.attempt:
            request = replace(request, header=replace(request.header, attempt=self.directory.next_attempt()))
        request = replace(request, keys=self._keys)
        fixed = self.directory.survivors_of(occasion_of(request))
        answers = _MaskedAnswers(self.contract, request, frozenset(fixed or self.roster.sites))
        bytes_down = self.sites.broadcast(request, answers)
        if any(absence.reason is Reason.NEEDS_KEYS for absence in answers.absent.values()):
            self._keys = None
        replies = Replies(
            attempt=request.header.attempt,
            participants=answers.participants,
            counts=None if answers.absent else _checked(answers.counts, str(request.kind)),
            absent=answers.absent | dict.fromkeys(answers.answered - answers.wanted, LEFT_OUT),
            whole=not answers.absent,
            bytes_up=answers.bytes_up,
            bytes_down=bytes_down,
        )
        least = max(least, self.roster.threshold, len(fixed))
        if answers.sum_P is None or not answers.may_be_summed(least):
            return replies
        return self._unmask(request, answers, replies)

    def _agree(self, header: Header) -> Replies | None:
        """The keys of a new epoch, of the whole membership; what came instead, where a site is missing."""
        header = replace(header, attempt=self.directory.next_attempt())
        context = EpochContext(header.study_hash, header.membership_hash, header.run, header.attempt)
        words = _Words(SignedKey)
        sites = self.roster.sites
        bytes_down = self.sites.deliver({site: Request(Kind.KEYS, header) for site in sites}, words)
        if words.absent:
            return Replies(header.attempt, tuple(sorted(words.words)), absent=words.absent, bytes_down=bytes_down)
        keys = KeySet(header.attempt, tuple(words.words[site] for site in sites))
        try:
            check_keys(keys, context, self.roster)
        except CsasnError as error:
            raise QuorumError(f"the sites agree on no keys: {error.message}", error.hint) from None
        self.directory.keep_keys(keys)
        self.directory.event("keys-agreed", epoch=keys.epoch)
        self._keys = keys
        return None

    def _unmask(self, request: Request, answers: "_MaskedAnswers", replies: Replies) -> Replies:
        """`replies` with the sum over their participants; where too few of them go on, without it and with why."""
        survivors = Survivors.of(replies.participants, answers.witnesses)
        if len(survivors.sites) < len(self.roster.sites):
            requests = {site: _about(request.header, Kind.CONFIRM, survivors) for site in survivors.sites}
            confirmed, replies = self._collect(Confirmation, requests, replies)
            survivors = replace(survivors, confirmations=self._verified(confirmed, survivors, transcript(request)))
            if len(survivors.confirmations) < self.roster.threshold:
                return self._given_up(replies, survivors.confirmations, "too few sites confirmed the survivors")
        unmasking = Unmasking(
            occasion=occasion_of(request),
            header=request.header,
            survivors=survivors,
            sealings={site: answers.sealings[site] for site in survivors.sites},
            absent={site: absence for site, absence in replies.absent.items() if site not in survivors.sites},
        )
        replies = replace(replies, sum_P=answers.sum_P)
        keep_unmasking(self.directory.path, unmasking, request, replies)
        self.directory.keep_survivors(unmasking.occasion, survivors.sites)
        return self._reveal(unmasking, replies)

    def _reveal(self, unmasking: Unmasking, replies: Replies) -> Replies:
        """`replies`, whose sum is masked, with the shares of its survivors applied; without it where too few reveal them."""
        sealings, survivors = unmasking.sealings, unmasking.survivors
        blobs = {site: tuple(blobs_for(site, sealings, survivors, self.roster).values()) for site in survivors.sites}
        requests = {site: _about(unmasking.header, Kind.UNMASK, survivors, blobs[site]) for site in survivors.sites}
        shares, replies = self._collect(Shares, requests, replies)
        try:
            hashes = {site: sealings[site].hashes for site in survivors.sites}
            found = recover({site: word.data for site, word in shares.items()}, survivors.sites, hashes, self.roster)
        except ProtocolError as error:
            return self._given_up(replies, shares, error.message)
        if found.wrong:
            self.directory.event("shares-that-do-not-fit", round=unmasking.header.round, sites=list(found.wrong))
        assert replies.sum_P is not None
        unmask(replies.sum_P, found, len(os.sched_getaffinity(0)))
        return replace(replies, absent=unmasking.absent)

    def _collect(self, kind: type[T], requests: Mapping[str, Request], replies: Replies) -> tuple[dict[str, T], Replies]:
        """What survivors say to small requests; `replies` with the bytes, and with why others said nothing."""
        words = _Words(kind, self.roster.threshold)
        num_bytes = self.sites.deliver(requests, words, words.enough)
        absent = {**replies.absent, **words.absent}
        return words.words, replace(replies, absent=absent, bytes_down=replies.bytes_down + num_bytes)

    def _verified(self, words: Mapping[str, Confirmation], survivors: Survivors, digest: bytes) -> dict[str, str]:
        """The signatures that hold; one that does not is in the events."""
        confirmations = {}
        for site, word in words.items():
            try:
                identity = self.roster.identities[site]
                verify(identity, SURVIVORS_PURPOSE, survivors.statement(digest), word.signature, site)
            except TrustError as error:
                self.directory.event("wrong-confirmation", site=site, why=error.message)
            else:
                confirmations[site] = word.signature
        return confirmations

    def _given_up(self, replies: Replies, went_on: Collection[str], why: str) -> Replies:
        absent = {site: str(absence) for site, absence in replies.absent.items()}
        self.directory.event("nothing-unmasked", attempt=replies.attempt, why=why, absent=absent)
        went_on = tuple(site for site in self.roster.sites if site in went_on)
        return replace(replies, participants=went_on, sum_P=None)


def sums_of(contract: Contract, directory: RunDirectory, sites: Correspondence) -> Sums:
    """As the study has it, masked or plain."""
    return MaskedSums(contract, directory, sites) if contract.secure else PlainSums(contract, sites)


class _MaskedAnswers(Answers):
    """Answers with what is signed and shared beside them."""

    def __init__(self, contract: Contract, request: Request, wanted: frozenset[str]) -> None:
        super().__init__(contract, request, wanted)
        self.roster, self._transcript = contract.roster, transcript(request)
        self.witnesses: dict[str, Witness] = {}
        self.sealings: dict[str, Sealing] = {}

    def check(self, site: str, reply: Reply) -> None:
        """As `Answers`; then the site's signature over all of it.

        Raises:
            TrustError: it is not valid.
        """
        super().check(site, reply)
        assert isinstance(reply, Answer)
        assert reply.sealing is not None
        sealing = reply.sealing
        self.witnesses[site] = witness_upload(site, self._transcript, reply.update_P, reply.counts, sealing, self.roster)
        self.sealings[site] = sealing


class _Words(Generic[T]):
    """Small replies of one kind. `num_needed` of them are enough; the rest is given a moment."""

    def __init__(self, kind: type[T], num_needed: int | None = None) -> None:
        self.kind: type[T] = kind
        self.num_needed = num_needed
        self.words: dict[str, T] = {}
        self.absent: dict[str, Absence] = {}
        self._enough_since = 0.0

    def take(self, site: str, reply: Reply) -> None:
        """One reply of a site; a site counts once."""
        if isinstance(reply, self.kind):
            self.absent.pop(site, None)
            self.words[site] = reply
        elif site not in self.words:
            broken = Absence(Reason.BROKEN, f"a {type(reply).__name__} came in place of a {self.kind.__name__}")
            self.absent[site] = reply if isinstance(reply, Absence) else broken

    def enough(self) -> bool:
        """Whether nobody need be waited for any more."""
        if self.num_needed is None or len(self.words) < self.num_needed:
            return False
        self._enough_since = self._enough_since or time.monotonic()
        return time.monotonic() > self._enough_since + GRACE_S


def _about(header: Header, kind: Kind, survivors: Survivors, blobs: tuple[bytes, ...] = ()) -> Request:
    return Request(kind, header, survivors=survivors, blobs=blobs)


def _checked(counts: Integers | None, what: str) -> Integers | None:
    """Counts of the whole membership, if they can be any: what is left of masks that did not cancel cannot.

    Raises:
        QuorumError: they are no counts.
    """
    if counts is not None and ((counts < 0).any() or (counts > MAX_COUNT).any()):
        raise QuorumError(f"the summed counts of {what} are no counts: the sites did not all answer the same request", RESUME)
    return counts
