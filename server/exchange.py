"""One exchange with the sites: what each is sent, whether its answer keeps the contract, and who is asked again."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol

from csasn.contract import Contract
from csasn.errors import ProtocolError
from csasn.federated.messages import Absence, Answer, Kind, ModelUpdate, Reason, Replies, Request, Step

MAX_RETRIES = 2  # of a site that failed, or needs the whole model, within one attempt


class Exchange(Protocol):
    """Sends each site its request and collects the answers.

    Waits until every site of `patient_for` answered, `deadline_s` at most; a site that has not answered then is absent.
    """

    def __call__(self, requests: Mapping[str, Request], patient_for: Collection[str], deadline_s: float) -> Replies:
        """Requests by site -> what came back."""
        ...


class Correspondence:
    """Asks the membership, and remembers which model each site holds and which sites let a deadline pass."""

    def __init__(self, contract: Contract, exchange: Exchange) -> None:
        self.contract = contract
        self.exchange = exchange
        self._step: Step | None = None
        self._step_from = ""
        self._holds: dict[str, str] = {}  # site -> hash of the model that it holds
        self._lost: set[str] = set()  # asked again each time, but not waited for

    def remember_step(self, from_hash: str, step: Step) -> None:
        """The step that leads from the model of `from_hash` to the one that is broadcast next."""
        self._step_from, self._step = from_hash, step

    def ask(self, request: Request) -> Replies:
        """One attempt: every site's checked answer, or why there is none. `request` carries the whole model."""
        answers: dict[str, Answer] = {}
        absent: dict[str, Absence] = {}
        bytes_up = bytes_down = 0
        sites: Collection[str] = self.contract.membership.sites
        for _ in range(MAX_RETRIES + 1):
            by_step = self._by_step(request)
            requests = {site: by_step if by_step and self._is_near(request, site) else request for site in sites}
            patient_for = [site for site in sites if site not in self._lost] or sites
            replies = self.exchange(requests, patient_for, self.contract.study.federation.answer_deadline_s)
            bytes_up, bytes_down = bytes_up + replies.bytes_up, bytes_down + replies.bytes_down
            good, broken = self._checked(request, replies.answers)
            answers |= good
            absent = {site: reason for site, reason in absent.items() if site not in sites} | dict(replies.absent) | broken
            if request.model is not None:
                self._holds |= dict.fromkeys(good, request.model.state_hash)
            sites = [site for site, absence in absent.items() if absence.reason in (Reason.NEEDS_MODEL, Reason.FAILED)]
            for site in sites:
                self._holds.pop(site, None)
            if not sites:
                break
        self._lost = {site for site, absence in absent.items() if absence.reason is Reason.DEADLINE}
        return Replies(answers, absent, bytes_up, bytes_down)

    def _by_step(self, request: Request) -> Request | None:
        """`request` with the last step in place of the whole model; one object for all sites, which is serialised once."""
        if request.model is None or self._step is None or request.kind is Kind.FINISH:
            return None
        return replace(request, model=ModelUpdate(request.model.state_hash, step=self._step))

    def _is_near(self, request: Request, site: str) -> bool:
        """Whether the site holds the model before, or this one already."""
        return request.model is not None and self._holds.get(site) in (self._step_from, request.model.state_hash)

    def _checked(self, request: Request, answers: Mapping[str, Answer]) -> tuple[dict[str, Answer], dict[str, Absence]]:
        """The answers that keep the contract, and why each other does not count."""
        good, broken = {}, {}
        for site, answer in answers.items():
            try:
                self.contract.check(request.kind, site, request.header.round, answer)
                good[site] = answer
            except ProtocolError as error:
                broken[site] = Absence(Reason.BROKEN, error.message)
        return good, broken
