"""What the coordinator says to sites and hears of them: who is sent what, who holds which model, who is asked again, and when."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from csasn.federated.messages import (
    AboutModel,
    Absence,
    Finish,
    Measure,
    ModelUpdate,
    Moments,
    Question,
    Reason,
    Reply,
    Request,
    Step,
    Train,
    Validate,
)
from csasn.privacy.contract import Contract

MAX_RETRIES = 2  # of a site that failed, where a round may do without it
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0  # before a site that is waited for is asked again
FEW_TIMES = (
    4  # that a question is asked anew at once: under the next number, with nothing carried on, of a site that lost its answer
)
AT_ONCE = (Reason.NEEDS_MODEL, Reason.DEADLINE)
SLACK = 3.0  # how many times longer than for its last round a site may take


class Exchange(Protocol):
    """Carries messages to sites and back."""

    def send(self, requests: Mapping[str, Request], deadlines_s: Mapping[str, float]) -> int:
        """Sends each site its request, in place of an earlier one; bytes sent. A site has the deadline of its name."""
        ...

    def receive(self) -> Iterable[tuple[str, Reply]]:
        """What has come since, after a short wait; a site that let its deadline pass is absent."""
        ...


Take = Callable[[str, Reply], None]
Again = Callable[[Absence, int, float], float | None]  # why, asked again how often, seconds left until the deadline


def wait_for_it(absence: Absence, times: int, _: float) -> float | None:
    """A site that nothing can do without is asked again, for as long as it takes, at growing intervals."""
    return 0.0 if absence.reason in AT_ONCE else _pause_s(times)


def try_a_few_times(absence: Absence, times: int, left_s: float) -> float | None:
    """A site that a round may do without is asked again where that may help at once, or where its people can mend what is in its
    way: as one that is away, until its deadline."""
    if absence.reason.heals and left_s > 0:
        return min(_pause_s(times), left_s)
    again = absence.reason in (Reason.NEEDS_MODEL, Reason.FAILED) and times < MAX_RETRIES
    return 0.0 if again else None


def _pause_s(times: int) -> float:
    return min(FIRST_PAUSE_S * 2.0 ** min(times, 10), LONGEST_PAUSE_S)


class SiteChannel:
    """Asks sites, and remembers which model each holds and which let a deadline pass.

    `on_waiting` is told who is waited for, with why, each time that this changes. `took` are the seconds that each site took for
    its last round, where that is known.
    """

    def __init__(
        self,
        contract: Contract,
        exchange: Exchange,
        on_waiting: Callable[[Mapping[str, str]], None],
        took: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.contract, self.exchange, self._on_waiting = contract, exchange, on_waiting
        self._took = dict(took)
        self._step: tuple[str, str, Step | Moments] | None = None  # from the model of this hash, to that of the other
        self._holds: dict[str, str] = {}  # site -> hash of the model that it holds
        self._lost: set[str] = set()  # asked again each time, but not waited for
        self._waiting: dict[str, str] = {}

    def remember_step(self, from_hash: str, to_hash: str, step: Step | Moments) -> None:
        """The step that leads from one model to another, until every site that is asked about the other holds it."""
        self._step = from_hash, to_hash, step

    def wait_for_all(self) -> None:
        """Whoever let a deadline pass is waited for again: without it too few are left."""
        self._lost.clear()

    def pause(self, times: int) -> None:
        """Before a question is asked anew for the `times`-th time: the first few at once, as after a site was restored."""
        if times > FEW_TIMES:
            time.sleep(min(FIRST_PAUSE_S * 2.0 ** min(times - FEW_TIMES, 10), LONGEST_PAUSE_S))

    def ask(self, question: Question, sites: Collection[str], take: Take, again: Again) -> int:
        """One question to sites, each with what it needs to come to the model; bytes sent. See `deliver`."""
        shorter = self._shorter(question) if isinstance(question, AboutModel) else {}

        asked: dict[str, float] = {}

        def for_site(site: str) -> Request:
            asked[site] = time.monotonic()
            return shorter.get(self._holds.get(site, ""), question)

        def take_holding(site: str, reply: Reply) -> None:
            if isinstance(reply, Absence):
                self._holds.pop(site, None)
            elif isinstance(question, AboutModel):
                self._holds[site] = question.model.state_hash
            if isinstance(question, Train) and not isinstance(reply, Absence):
                self._took[site] = time.monotonic() - asked[site]
            take(site, reply)

        num_bytes = self.deliver(for_site, sites, take_holding, again)
        if self._step is not None and all(self._holds.get(site) == self._step[1] for site in sites):
            self._step = None  # half a model
        return num_bytes

    def deliver(self, request_for: Callable[[str], Request], sites: Collection[str], take: Take, again: Again) -> int:
        """Sends each site its request, hands over each reply as it comes, and asks absent ones again when `again` says; bytes sent.

        Ends when each site has answered or will not be asked again. One that let a deadline pass before is not waited for, unless
        `again` waits for everybody.
        """
        num_bytes, times, began = 0, Counter[str](), time.monotonic()
        deadlines_s = {site: self._deadline_s(site) for site in sites}
        due, open_sites, heard = dict.fromkeys(sites, 0.0), set(sites), dict[str, Absence]()
        impatient = self._lost & open_sites if again is not wait_for_it and self._lost < open_sites else set()
        while open_sites - impatient:
            now = time.monotonic()
            if ready := [site for site, when in due.items() if when <= now]:
                num_bytes += self.exchange.send({site: request_for(site) for site in ready}, deadlines_s)
                due = {site: when for site, when in due.items() if site not in ready}
            for site, reply in self.exchange.receive():
                if site not in open_sites:
                    continue
                pause = None
                if isinstance(reply, Absence):
                    heard[site] = reply
                    pause = again(reply, times[site], began + deadlines_s[site] - time.monotonic())
                if pause is not None:
                    times[site] += 1
                    due[site] = time.monotonic() + pause
                else:
                    open_sites.discard(site)
                self._note(site, reply, asked_again=pause is not None)
                take(site, reply)
                del reply  # an update is in the sum by now
        for site in open_sites:
            take(site, heard.get(site, Absence(Reason.DEADLINE)))
        return num_bytes

    def _deadline_s(self, site: str) -> float:
        """A site with nine times the cases has nine times as long, and each several times longer than it took last."""
        usual_s = self.contract.study.federation.answer_deadline_s
        return max(usual_s * self.contract.membership.longer(site), SLACK * self._took.get(site, 0.0))

    def _note(self, site: str, reply: Reply, *, asked_again: bool) -> None:
        """Notes who let a deadline pass, and tells who is waited for, where that changed; whoever lacks the model alone is not."""
        late = isinstance(reply, Absence) and (reply.reason is Reason.DEADLINE or (reply.reason.heals and not asked_again))
        self._lost = self._lost | {site} if late else self._lost - {site}
        waiting = {name: why for name, why in self._waiting.items() if name != site}
        if asked_again and isinstance(reply, Absence) and reply.reason is not Reason.NEEDS_MODEL:
            waiting[site] = str(reply)
        if waiting != self._waiting:
            self._waiting = waiting
            self._on_waiting(waiting)

    def _shorter(self, question: Measure | Train | Validate | Finish) -> dict[str, Question]:
        """`question` without the whole model, by the hash of the model that a site holds: with the step to it, or its hash alone.
        One object for all sites, which is serialised once."""
        wanted = question.model.state_hash
        models = {wanted: ModelUpdate(wanted)}
        if self._step is not None and self._step[1] == wanted:
            models[self._step[0]] = ModelUpdate(wanted, step=self._step[2])
        return {held: replace(question, model=model) for held, model in models.items()}
