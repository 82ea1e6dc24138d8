"""A site's part in secure aggregation (csasn/federated/secagg), with its memory on disk before anything of it leaves.

`secure.json` in the folder of a run holds keys and what was committed to. `revealed.json` beside the runs holds for whom was
revealed in any of them, and how often a study was revealed for fewer than all its sites. Both are the owner's alone (0600), and not
encrypted.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from client.site_state import Outcome
from csasn.errors import ProtocolError, TrustError
from csasn.federated.messages import Answer, Confirmation, Header, Request, Shares
from csasn.federated.secagg.messages import EpochContext, Roster, Sign, SignedKey, Survivors
from csasn.federated.secagg.site import Occasion, SiteState, begin_epoch, confirm, open_attempt, reveal, seal
from csasn.storage import write_json

STATE_FILE, REVEALED_FILE, PRIVATE = "secure.json", "revealed.json", 0o600


class SecureSite:
    """One site in one run; `folder` is the site's, `run_folder` the run's in it."""

    def __init__(self, folder: Path, run_folder: Path, site: str, study_hash: str, roster: Roster, sign: Sign) -> None:
        self.site, self.roster, self.sign = site, roster, sign
        self._file, self._revealed_file = run_folder / STATE_FILE, folder / REVEALED_FILE
        self._study_hash = study_hash

    @property
    def _state(self) -> SiteState:
        """What is on disk: in Flower's simulation another process may have had this site's last turn."""
        return _read_state(self._file, self._revealed_file, self._study_hash)

    def make_key(self, request: Request) -> SignedKey:
        """A key for the epoch that the request begins."""
        context = _context(request.header, request.header.attempt)
        state, key = begin_epoch(self._state, context, os.urandom, self.sign)
        self._keep(state)
        return key

    def open(self, request: Request, transcript: bytes) -> None:
        """Turns to an attempt.

        Raises:
            KeysMissingError: there is no key of the epoch.
            ProtocolError, TrustError: see `open_attempt`.
        """
        if request.keys is None:
            raise ProtocolError(
                "the request carries no keys, and the approved study masks what leaves this site", "tell the coordinator"
            )
        header, model = request.header, request.model
        keys = _context(header, request.keys.epoch), request.keys
        occasion = Occasion(str(request.kind), header.round, model.state_hash if model else "")
        state = open_attempt(self._state, self.site, keys, header.attempt, transcript, occasion, self.roster)
        self._keep(state)

    def seal(self, answer: Answer) -> tuple[Answer, bytes]:
        """The answer, masked in place, and this site's own shares of its masks."""
        sealed = seal(
            self._state, self.site, answer.update_P, answer.counts, self.roster, os.urandom, self.sign, torch.get_num_threads()
        )
        return replace(answer, sealing=sealed.sealing), sealed.own_shares

    def confirm(self, request: Request) -> Confirmation:
        """Commits to a set of survivors."""
        state, signature = confirm(self._state, self.site, request.header.attempt, _survivors(request), self.roster, self.sign)
        self._keep(state)
        return Confirmation(signature)

    def reveal(self, request: Request, outcome_of: Callable[[int], Outcome]) -> Shares:
        """This site's shares for a set of survivors; `outcome_of` gives what was kept of an attempt."""
        survivors = _survivors(request)
        senders = [name for name in survivors.sites if name != self.site]
        if len(senders) != len(request.blobs):
            raise ProtocolError(f"{len(request.blobs)} blobs came for {len(senders)} other survivors")
        blobs = dict(zip(senders, request.blobs, strict=True))
        attempt, before = request.header.attempt, self._state
        own_shares = outcome_of(attempt).own_shares if attempt == before.attempt else b""
        state, data = reveal(before, self.site, attempt, survivors, blobs, own_shares, self.roster)
        self._keep(state)
        return Shares(data)

    def _keep(self, state: SiteState) -> None:
        before = self._state
        if state == before:
            return
        if state.revealed_for != before.revealed_for:
            self._keep_revealed(state)
        facts = asdict(replace(state, pairs={}, revealed_for={}))
        facts |= {"private": state.private.hex(), "transcript": state.transcript.hex()}
        write_json(self._file, facts | {"pairs": {peer: key.hex() for peer, key in state.pairs.items()}}, PRIVATE)

    def _keep_revealed(self, state: SiteState) -> None:
        partial = _read_revealed(self._revealed_file)["partial"]
        partial[self._study_hash] = [state.num_partial, state.num_partial_finish]
        revealed = {key: list(sites) for key, sites in state.revealed_for.items()}
        write_json(self._revealed_file, {"revealed_for": revealed, "partial": partial}, PRIVATE)


def _survivors(request: Request) -> Survivors:
    if request.survivors is None:
        raise ProtocolError(f"the request to {request.kind} names no survivors")
    return request.survivors


def _context(header: Header, epoch: int) -> EpochContext:
    return EpochContext(header.study_hash, header.membership_hash, header.run, epoch)


def _read_revealed(file: Path) -> dict[str, dict[str, list[object]]]:
    facts = json.loads(file.read_text()) if file.exists() else {"revealed_for": {}, "partial": {}}
    return {name: dict(facts[name]) for name in ("revealed_for", "partial")}


def _read_state(file: Path, revealed_file: Path, study_hash: str) -> SiteState:
    """What was kept; without it the site asks for new keys.

    Raises:
        TrustError: a file is damaged: it might have said what this site must not reveal.
    """
    try:
        revealed = _read_revealed(revealed_file)
        facts = json.loads(file.read_text()) if file.exists() else {}
        for name in ("occasion", "revealed"):
            facts |= {name: Occasion(**facts[name])} if facts.get(name) else {}
        if facts:
            facts |= {"private": bytes.fromhex(facts["private"]), "transcript": bytes.fromhex(facts["transcript"])}
            facts |= {"pairs": {peer: bytes.fromhex(key) for peer, key in facts["pairs"].items()}}
            facts |= {"survivors": tuple(facts["survivors"])}
        train, finish = revealed["partial"].get(study_hash, [0, 0])
        facts |= {"num_partial": int(str(train)), "num_partial_finish": int(str(finish))}
        facts |= {"revealed_for": {key: tuple(map(str, sites)) for key, sites in revealed["revealed_for"].items()}}
        return SiteState(**facts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise TrustError(
            f"{file.name} or {revealed_file.name} is damaged, so that this site no longer knows what it may reveal",
            "tell the coordinator; with another run and another study seed both may be removed",
        ) from None
