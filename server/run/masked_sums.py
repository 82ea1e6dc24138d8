"""Secure aggregation at the coordinator: whole sums or none (csasn/SPEC.md, "Secure aggregation").

Two exchanges: sites say that they are ready, each under a fresh key, and then answer, masked, against the keys of all. Nothing is
opened, stored or asked for afterwards: a coordinator that was killed asks anew, and gets the same bits.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from csasn.errors import CsasnError, ProtocolError, QuorumError
from csasn.federated.messages import (
    AboutModel,
    Absence,
    Answer,
    Collect,
    Question,
    Ready,
    Reason,
    Replies,
    Reply,
    transcript,
)
from csasn.federated.quantise import SignedIntegers, largest_magnitude, largest_sum
from csasn.federated.secagg.keys import check_keys, view_of
from csasn.federated.secagg.sealing import check_sealing
from csasn.privacy.contract import Contract
from server.run.exchange import SiteChannel, wait_for_it
from server.run.sums import ONE_OF_THEM, Answers, PlainSums, Sums, check_sums

MEND = "mend what the site says, then resume"
USED_UP = "the questions of this study are used up; go on with another study, whose seed differs"


class _AskAnewError(Exception):
    """What was gathered so far is of no use: the question has to be asked as `question`."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


class MaskedSums:
    """Sums that nobody can see the parts of."""

    def __init__(self, contract: Contract, sites: SiteChannel) -> None:
        self.contract, self.sites, self.roster = contract, sites, contract.roster

    def ask(self, question: Question, least: int) -> Replies:
        """See `Sums`. Every site is waited for, however many are asked for at `least`.

        Raises:
            QuorumError: a site refuses, was asked something else, or its answer breaks the contract.
        """
        assert least <= len(self.roster.sites)
        bytes_down, times = 0, 0
        while True:
            self.sites.pause(times)
            times += 1
            ready = _ReadySites(question)
            try:
                bytes_down += self.sites.ask(question, self.roster.sites, ready.take, wait_for_it)
                answers = self._collect(question, ready.agreed(), ready.sites)
            except _AskAnewError as anew:
                question = anew.question
                continue
            return self._checked(question, ready.agreed(), answers, bytes_down)

    def _collect(self, question: Question, digest: bytes, ready: Mapping[str, Ready]) -> "_MaskedAnswers":
        """The masked answers of all sites, summed.

        Raises:
            _AskAnewError: a site no longer holds what it was ready with.
        """
        keys = tuple(ready[site].key for site in self.roster.sites)
        try:
            check_keys(keys, digest, self.roster)
        except CsasnError as error:
            raise QuorumError(f"the sites agree on no keys: {error.message}", error.hint) from None
        request = Collect(question.header, question.kind, digest, keys)
        answers = _MaskedAnswers(self.contract, question, view_of(digest, keys))
        answers.bytes_down = self.sites.deliver(lambda _: request, self.roster.sites, answers.take, wait_for_it)
        return answers

    def _checked(self, question: Question, digest: bytes, answers: "_MaskedAnswers", bytes_down: int) -> Replies:
        """What was summed, if it can be: masks that did not cancel leave other numbers.

        Raises:
            QuorumError: it cannot.
        """
        header, counts = question.header, answers.counts
        assert counts is not None
        check_sums(self.contract, question.kind, len(self.roster.sites), counts)
        if not answers.num_failed and self._is_beyond(question, answers.sum_P):
            raise QuorumError(f"the sum of updates of {question.kind} is none that sites can have", ONE_OF_THEM)
        return Replies(
            attempt=header.attempt,
            number=header.number,
            transcript=digest,
            participants=answers.participants,
            counts=counts,
            whole=True,
            sum_P=answers.sum_P,
            num_failed=answers.num_failed,
            carried=digest == transcript(question, carried=True),
            bytes_up=answers.bytes_up,
            bytes_down=bytes_down + answers.bytes_down,
        )

    def _is_beyond(self, question: Question, sum_P: SignedIntegers | None) -> bool:
        """Whether a sum of updates is above L, which those of sites never are."""
        if sum_P is None or sum_P.dtype == np.dtype("<i8"):
            return False
        return largest_magnitude(sum_P) > largest_sum(self.contract.bits(question.header.round), len(self.roster.sites))


def sums_of(contract: Contract, sites: SiteChannel) -> Sums:
    """As the study has it, masked or plain."""
    return MaskedSums(contract, sites) if contract.secure else PlainSums(contract, sites)


def _refuse(site: str, absence: Absence) -> None:
    """Stops where asking again would end alike."""
    if absence.reason.is_refusal:
        raise QuorumError(f"{site}: {absence}", MEND)


def _renumbered(question: Question, site: str, absence: Absence) -> Question:
    """The question under the number after the one that a site answered.

    Raises:
        QuorumError: there is none left.
    """
    if absence.at < question.header.number:
        raise QuorumError(f"{site} answered {question.kind} {absence.at} times, as often as it will", USED_UP)
    return replace(question, header=replace(question.header, number=absence.at + 1))


class _ReadySites:
    """Who is ready for a question."""

    def __init__(self, question: Question) -> None:
        self.question, self.sites = question, dict[str, Ready]()
        self._plain, self._carried = transcript(question), transcript(question, carried=True)

    def take(self, site: str, reply: Reply) -> None:
        """One reply of a site.

        Raises:
            _AskAnewError: the question's number is taken.
            QuorumError: the site refuses, or was asked something else.
        """
        if isinstance(reply, Absence):
            _refuse(site, reply)
            if reply.reason is Reason.NUMBER:
                raise _AskAnewError(_renumbered(self.question, site, reply))
        elif not isinstance(reply, Ready):
            raise QuorumError(f"{site} sent a {type(reply).__name__} where none was asked for", MEND)
        elif reply.transcript not in (self._plain, self._carried):
            raise QuorumError(f"{site} read another question than was asked", "does it run another version? see server status")
        else:
            self.sites[site] = reply

    def agreed(self) -> bytes:
        """The transcript under which all sites are ready.

        Raises:
            _AskAnewError: some carry on what the last round left over, and some no longer hold it: none shall.
        """
        digests = {ready.transcript for ready in self.sites.values()}
        if len(digests) > 1:
            assert isinstance(self.question, AboutModel)
            raise _AskAnewError(replace(self.question, accepted=None))
        return digests.pop()


class _MaskedAnswers(Answers):
    """Answers under one view, each signed by its site."""

    def __init__(self, contract: Contract, question: Question, view: bytes) -> None:
        super().__init__(contract, question.kind, question.header.round)
        self._question, self._view = question, view
        self.bytes_down = 0

    def take(self, site: str, reply: Reply) -> None:
        """As `Answers`.

        Raises:
            _AskAnewError: the site has to work on the question again, or its number is taken.
            QuorumError: the site refuses, or its answer breaks the contract.
        """
        super().take(site, reply)
        if (absence := self.absent.get(site)) is not None:
            _refuse(site, absence)
            if absence.reason is Reason.NUMBER:
                raise _AskAnewError(_renumbered(self._question, site, absence))
            if absence.reason is Reason.NEEDS_KEY:
                raise _AskAnewError(self._question)

    def checked(self, site: str, reply: Reply) -> Answer:
        """As `Answers`; then the view, and the site's signature over all of it.

        Raises:
            ProtocolError: it is masked under other keys.
            TrustError: the signature is not valid.
        """
        answer = super().checked(site, reply)
        assert answer.sealing is not None
        if answer.sealing.view != self._view:
            raise ProtocolError("the answer is masked under other keys than those that were sent")
        check_sealing(answer.sealing, answer.update_P, answer.counts, site, self.contract.roster.identities[site])
        return answer
