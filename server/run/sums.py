"""What the coordinator learns of one question to the sites: sums, and who is in them.

In plain mode (`PlainSums`) each site's update and counts pass through this process; with secure aggregation
(server/run/masked_sums.py) they are masked. What comes out is the same.
"""

from dataclasses import replace
from typing import Protocol

from csasn.errors import CsasnError, ProtocolError, QuorumError
from csasn.federated.aggregate import add_integers
from csasn.federated.messages import Absence, Answer, Kind, Question, Reason, Replies, Reply, transcript
from csasn.federated.quantise import SignedIntegers
from csasn.measures.blocks import Integers
from csasn.privacy.contract import FAILED, Contract
from server.run.exchange import SiteChannel, try_a_few_times

ONE_OF_THEM = "one of the sites, or their versions: compare the versions (server status), and what each site's audit says"


class Sums(Protocol):
    """Asks the whole membership, and sums what comes."""

    def ask(self, question: Question, least: int) -> Replies:
        """One question, with the whole model; updates of fewer than `least` sites are not summed.

        Where sites answered one of this number before, it is asked under a higher one.
        """
        ...


class Answers:
    """What came to a question so far: answers that keep the contract, already summed, and why each other site's does not count."""

    def __init__(self, contract: Contract, kind: Kind, current_round: int) -> None:
        self.contract, self.kind, self.round = contract, kind, current_round
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
            answer = self.checked(site, reply)
        except CsasnError as error:
            self.absent[site] = Absence(Reason.BROKEN, text=error.message)
            return
        self.bytes_up += answer.num_bytes
        self.absent.pop(site, None)
        self.answered.add(site)
        self.counts = add_integers(self.counts, answer.counts)
        if answer.update_P is not None:
            self.sum_P = add_integers(self.sum_P, answer.update_P)

    def checked(self, site: str, reply: Reply) -> Answer:
        """Refuses a reply that is no answer, or none that the study allows.

        Raises:
            ProtocolError: see `Contract.check`.
        """
        if not isinstance(reply, Answer):
            raise ProtocolError(f"a {type(reply).__name__} came in place of an answer to {self.kind}")
        self.contract.check(self.kind, site, self.round, reply)
        return reply

    @property
    def participants(self) -> tuple[str, ...]:
        """The sites that answered, in roster order."""
        return tuple(site for site in self.contract.membership.sites if site in self.answered)

    @property
    def num_failed(self) -> int:
        """How many sites say that they could not do what was asked."""
        return 0 if self.counts is None else int(self.contract.counts[self.kind].unpack(self.counts)[FAILED[0]][0])


def check_sums(contract: Contract, kind: Kind, num_sites: int, counts: Integers) -> None:
    """Stops where summed counts are none that honest sites have; nobody can say whose they are.

    Raises:
        QuorumError: see `Contract.check_sums`.
    """
    try:
        contract.check_sums(kind, num_sites, counts)
    except ProtocolError as error:
        raise QuorumError(error.message, ONE_OF_THEM) from None


class PlainSums:
    """Sums of what sites send as it is."""

    def __init__(self, contract: Contract, sites: SiteChannel) -> None:
        self.contract, self.sites = contract, sites

    def ask(self, question: Question, least: int) -> Replies:
        """See `Sums`. Counts of fewer than all sites are withheld, unless the study says reveal."""
        roster, header = self.contract.membership.sites, question.header
        bytes_down = 0
        while True:
            answers = Answers(self.contract, question.kind, header.round)
            bytes_down += self.sites.ask(question, roster, answers.take, try_a_few_times)
            at = max((absence.at for absence in answers.absent.values() if absence.reason is Reason.NUMBER), default=0)
            if at < header.number:
                break
            header = replace(header, number=at + 1)
            question = replace(question, header=header)
        if answers.counts is not None:
            check_sums(self.contract, question.kind, len(answers.answered), answers.counts)
        shown = not answers.absent or self.contract.study.federation.on_loss == "reveal"
        return Replies(
            attempt=header.attempt,
            number=header.number,
            transcript=transcript(question),
            participants=answers.participants,
            counts=answers.counts if shown else None,
            whole=not answers.absent,
            sum_P=answers.sum_P if len(answers.participants) >= least else None,
            num_failed=answers.num_failed,
            absent=answers.absent,
            bytes_up=answers.bytes_up,
            bytes_down=bytes_down,
        )
