"""What the coordinator learns of one request to the sites: sums, and who is in them.

In plain mode (`PlainSums`) each site's update and counts pass through this process; with secure aggregation (server/masked_sums.py)
they are masked. What comes out is the same.
"""

from typing import Protocol

from csasn.contract import Contract
from csasn.errors import CsasnError, ProtocolError
from csasn.federated.aggregate import add_integers
from csasn.federated.messages import Absence, Answer, Integers, Reason, Replies, Reply, Request
from csasn.federated.quantise import SignedIntegers
from server.exchange import Correspondence


class Sums(Protocol):
    """Asks the whole membership, and sums what comes."""

    def ask(self, request: Request, least: int) -> Replies:
        """One attempt; `request` carries the whole model. Updates of fewer than `least` sites are not summed."""
        ...


class Answers:
    """What came of an attempt so far: answers that keep the contract, already summed, and why each other site's does not count.

    `wanted` are the sites whose updates are summed.
    """

    def __init__(self, contract: Contract, request: Request, wanted: frozenset[str]) -> None:
        self.contract, self.request, self.wanted = contract, request, wanted
        self.counts: Integers | None = None
        self.sum_P: SignedIntegers | None = None
        self.answered: set[str] = set()
        self.absent: dict[str, Absence] = {}
        self.bytes_up = 0

    def take(self, site: str, reply: Reply) -> None:
        """One reply of a site; a site counts once."""
        if site in self.answered:
            return
        if isinstance(reply, Absence):
            self.absent[site] = reply
            return
        try:
            self.check(site, reply)
        except CsasnError as error:
            self.absent[site] = Absence(Reason.BROKEN, error.message)
            return
        assert isinstance(reply, Answer)
        self.bytes_up += reply.num_bytes
        self.absent.pop(site, None)
        self.answered.add(site)
        self.counts = add_integers(self.counts, reply.counts)
        if reply.update_P is not None and site in self.wanted:
            self.sum_P = add_integers(self.sum_P, reply.update_P)

    def check(self, site: str, reply: Reply) -> None:
        """Refuses a reply that is no answer, or none that the study allows.

        Raises:
            ProtocolError: see `Contract.check`.
        """
        if not isinstance(reply, Answer):
            raise ProtocolError(f"a {type(reply).__name__} came in answer to {self.request.kind}")
        self.contract.check(self.request.kind, site, self.request.header.round, reply)

    @property
    def participants(self) -> tuple[str, ...]:
        """The sites that answered and are wanted, in roster order."""
        return tuple(site for site in self.contract.membership.sites if site in self.answered & self.wanted)

    def may_be_summed(self, least: int) -> bool:
        """Whether there are so many, and none that a repeat would bring back at once."""
        back_soon = any(absence.reason in (Reason.SCALE_TOO_SMALL, Reason.NEEDS_KEYS) for absence in self.absent.values())
        return len(self.participants) >= least and not back_soon


class PlainSums:
    """Sums of what sites send as it is."""

    def __init__(self, contract: Contract, sites: Correspondence) -> None:
        self.contract, self.sites = contract, sites

    def ask(self, request: Request, least: int) -> Replies:
        """See `Sums`. Counts of fewer than all sites are withheld, unless the study says reveal."""
        answers = Answers(self.contract, request, frozenset(self.contract.membership.sites))
        bytes_down = self.sites.broadcast(request, answers)
        shown = not answers.absent or self.contract.study.federation.on_loss == "reveal"
        return Replies(
            attempt=request.header.attempt,
            participants=answers.participants,
            counts=answers.counts if shown else None,
            whole=not answers.absent,
            sum_P=answers.sum_P if answers.may_be_summed(least) else None,
            absent=answers.absent,
            bytes_up=answers.bytes_up,
            bytes_down=bytes_down,
        )
