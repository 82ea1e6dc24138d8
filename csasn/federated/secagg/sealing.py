"""A masked answer: what hides it, and the site's signature over all of it.

In the sum over all sites the masks cancel, and nothing is opened afterwards. Not protected: what the sum itself says, and the last
site against all others together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.keys import Roster, SignedKey, check_keys, share_seeds, view_of
from csasn.federated.secagg.masks import Mask, add_masks
from csasn.platform.canonical import canonical
from csasn.trust.identity import Sign, verify

ANSWER_PURPOSE = "secagg-answer"


@dataclass(frozen=True)
class Sealing:
    """What goes with a masked answer: the view V under which it is masked, and the site's signature (hex)."""

    view: bytes
    signature: str


@dataclass(frozen=True)
class Sealer:
    """One site, with its private key for a question; `num_threads` work on a mask."""

    site: str
    roster: Roster
    private: bytes
    transcript: bytes
    num_threads: int = 1

    def seal(self, keys: Sequence[SignedKey], update: SignedIntegers | None, counts: SignedIntegers, sign: Sign) -> Sealing:
        """Masks update and counts in place, under the keys of all sites.

        Raises:
            ProtocolError, TrustError: see `check_keys` and `share_seeds`; nothing was masked.
        """
        check_keys(keys, self.transcript, self.roster)
        view = view_of(self.transcript, keys)
        seeds = share_seeds(self.private, self.site, view, keys, self.roster)
        signs = {peer: self.roster.sign_of(self.site, peer) for peer in seeds}
        add_masks(counts, [Mask(seed.counts, signs[peer]) for peer, seed in seeds.items()])
        if update is not None:
            add_masks(update, [Mask(seed.update, signs[peer]) for peer, seed in seeds.items()], self.num_threads)
        return Sealing(view, sign(ANSWER_PURPOSE, _statement(view, update, counts)))


def check_sealing(sealing: Sealing, update: SignedIntegers | None, counts: SignedIntegers, site: str, identity: str) -> None:
    """Refuses an answer that this site did not sign.

    Raises:
        TrustError: the signature is not valid.
    """
    verify(identity, ANSWER_PURPOSE, _statement(sealing.view, update, counts), sealing.signature, site)


def _statement(view: bytes, update: SignedIntegers | None, counts: SignedIntegers) -> bytes:
    digests = [None if array is None else hashlib.sha256(array.data).digest() for array in (update, counts)]
    return canonical([view, *digests])
