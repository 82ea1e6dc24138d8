"""One exchange with the sites: what each is sent, whether its answer keeps the contract, and who is asked again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Protocol

from csasn.contract import Contract
from csasn.errors import ProtocolError
from csasn.federated.aggregate import add_upload
from csasn.federated.messages import Absence, Answer, Integers, Kind, ModelUpdate, Reason, Replies, Request, Step
from csasn.federated.quantise import SignedIntegers

MAX_RETRIES = 2  # of a site that failed, or needs the whole model, within one attempt


Take = Callable[[str, Answer | Absence], None]


class Exchange(Protocol):
    """Sends each site its request, and hands over each reply as it comes.

    Waits until every site of `patient_for` answered, `deadline_s` at most; a site that has not answered then is absent.
    """

    def __call__(self, requests: Mapping[str, Request], patient_for: Collection[str], deadline_s: float, take: Take) -> int:
        """Requests by site; bytes sent. `take` gets one reply of each site that was asked."""
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
        gathered = _Gathered(self.contract, request)
        bytes_down = 0
        sites: Collection[str] = self.contract.membership.sites
        for _ in range(MAX_RETRIES + 1):
            by_step = self._by_step(request)
            requests = {site: by_step if by_step and self._is_near(request, site) else request for site in sites}
            patient_for = [site for site in sites if site not in self._lost] or sites
            bytes_down += self.exchange(requests, patient_for, self.contract.study.federation.answer_deadline_s, gathered.take)
            if request.model is not None:
                self._holds |= dict.fromkeys(gathered.counts, request.model.state_hash)
            sites = [site for site, absence in gathered.absent.items() if absence.reason in (Reason.NEEDS_MODEL, Reason.FAILED)]
            for site in sites:
                self._holds.pop(site, None)
            if not sites:
                break
        self._lost = {site for site, absence in gathered.absent.items() if absence.reason is Reason.DEADLINE}
        return Replies(gathered.counts, gathered.sum_P, gathered.absent, gathered.bytes_up, bytes_down)

    def _by_step(self, request: Request) -> Request | None:
        """`request` with the last step in place of the whole model; one object for all sites, which is serialised once."""
        if request.model is None or self._step is None or request.kind is Kind.FINISH:
            return None
        return replace(request, model=ModelUpdate(request.model.state_hash, step=self._step))

    def _is_near(self, request: Request, site: str) -> bool:
        """Whether the site holds the model before, or this one already."""
        return request.model is not None and self._holds.get(site) in (self._step_from, request.model.state_hash)


class _Gathered:
    """What came back so far: answers that keep the contract, their updates already summed, and why each other does not count."""

    def __init__(self, contract: Contract, request: Request) -> None:
        self.contract, self.request = contract, request
        self.counts: dict[str, Integers] = {}
        self.sum_P: SignedIntegers | None = None
        self.absent: dict[str, Absence] = {}
        self.bytes_up = 0

    def take(self, site: str, reply: Answer | Absence) -> None:
        """One reply of a site; a site counts once."""
        if site in self.counts:
            return
        if isinstance(reply, Absence):
            self.absent[site] = reply
            return
        self.bytes_up += reply.num_bytes
        try:
            self.contract.check(self.request.kind, site, self.request.header.round, reply)
        except ProtocolError as error:
            self.absent[site] = Absence(Reason.BROKEN, error.message)
            return
        self.absent.pop(site, None)
        self.counts[site] = reply.counts
        if reply.update_P is not None:
            self.sum_P = add_upload(self.sum_P, reply.update_P)
