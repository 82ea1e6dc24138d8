"""One exchange with the sites: what each is sent, who holds which model, and who is asked again."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Protocol

from csasn.contract import Contract
from csasn.federated.messages import Absence, Kind, ModelUpdate, Reason, Reply, Request, Step

MAX_RETRIES = 2  # of a site that failed, or needs the whole model, within one attempt


Take = Callable[[str, Reply], None]
Enough = Callable[[], bool]


def never() -> bool:
    """Every site is waited for."""
    return False


class Exchange(Protocol):
    """Sends each site its request, and hands over each reply as it comes.

    Waits until every site of `patient_for` answered, or `enough` says that it is, `deadline_s` at most; a site that has not
    answered then is absent.
    """

    def __call__(
        self, requests: Mapping[str, Request], patient_for: Collection[str], deadline_s: float, take: Take, enough: Enough = never
    ) -> int:
        """Requests by site; bytes sent. `take` gets one reply of each site that was asked."""
        ...


class Gathering(Protocol):
    """Takes replies as they come, and says which sites have no usable one yet, and why."""

    absent: dict[str, Absence]

    def take(self, site: str, reply: Reply) -> None:
        """One reply of a site; a site counts once."""
        ...


class Correspondence:
    """Asks sites, and remembers which model each holds and which let a deadline pass."""

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

    def wait_for_all(self) -> None:
        """Whoever let a deadline pass is waited for again: without it too few are left."""
        self._lost.clear()

    def broadcast(self, request: Request, gathering: Gathering) -> int:
        """One request to the whole membership, with the whole model or the step to it; bytes sent."""
        by_step = self._by_step(request)

        def for_site(site: str) -> Request:
            return by_step if by_step and self._is_near(request, site) else request

        num_bytes = self._ask(for_site, self.contract.membership.sites, gathering)
        if request.model is not None:
            answered = set(self.contract.membership.sites) - set(gathering.absent)
            self._holds |= dict.fromkeys(answered, request.model.state_hash)
        return num_bytes

    def deliver(self, requests: Mapping[str, Request], gathering: Gathering, enough: Enough = never) -> int:
        """To each site its own request; bytes sent."""
        return self._ask(requests.__getitem__, tuple(requests), gathering, enough)

    def _ask(self, for_site: Callable[[str], Request], sites: Collection[str], gathering: Gathering, enough: Enough = never) -> int:
        asked, num_bytes = set(sites), 0
        for _ in range(MAX_RETRIES + 1):
            requests = {site: for_site(site) for site in sites}
            patient_for = [site for site in sites if site not in self._lost] or sites
            deadline_s = self.contract.study.federation.answer_deadline_s
            num_bytes += self.exchange(requests, patient_for, deadline_s, gathering.take, enough)
            again = (Reason.NEEDS_MODEL, Reason.FAILED)
            sites = [site for site, absence in gathering.absent.items() if absence.reason in again]
            for site in sites:
                self._holds.pop(site, None)
            if not sites or enough():
                break
        late = {site for site, absence in gathering.absent.items() if absence.reason is Reason.DEADLINE and not enough()}
        self._lost = (self._lost - asked) | late
        return num_bytes

    def _by_step(self, request: Request) -> Request | None:
        """`request` with the last step in place of the whole model; one object for all sites, which is serialised once."""
        if request.model is None or self._step is None or request.kind is Kind.FINISH:
            return None
        return replace(request, model=ModelUpdate(request.model.state_hash, step=self._step))

    def _is_near(self, request: Request, site: str) -> bool:
        """Whether the site holds the model before, or this one already."""
        return request.model is not None and self._holds.get(site) in (self._step_from, request.model.state_hash)
