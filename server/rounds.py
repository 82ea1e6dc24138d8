"""The rounds of a run: hello, train, validate, finish (csasn/SPEC.md, "Rounds").

Who took part and why another did not is in the events. The model is never silently kept, or silently averaged over fewer.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from csasn.contract import Contract
from csasn.errors import QuorumError, TrainingError
from csasn.federated.aggregate import apply_step
from csasn.federated.messages import Accepted, Header, Kind, ModelUpdate, Reason, Replies, Request, Step, Weighting
from csasn.federated.quantise import WIDENING, Floats32, Floats64, first_ranges, next_ranges, step_sizes
from csasn.metrics import FIXED_POINT, Integers, describe_metrics, metrics_from_counts
from csasn.weighting import class_sums, class_weights
from server.exchange import Correspondence, Exchange
from server.masked_sums import sums_of
from server.run_directory import BEST, RunDirectory, RunState
from server.sums import Sums

MEND = "mend what the sites say, then resume"


@dataclass(frozen=True)
class Finished:
    """The outcome of a run: the chosen model and its round, what was counted of it, None where that is withheld, and the sums of
    its normalisation statistics; `whole` if every site is in both."""

    round: int
    model: Floats32
    counts: dict[str, Integers] | None
    statistics: dict[str, Integers]
    whole: bool


class Coordinator:
    """Drives one run. The correspondence carries the messages; the run directory keeps what must survive."""

    def __init__(self, contract: Contract, directory: RunDirectory, exchange: Exchange) -> None:
        self.contract, self.study = contract, contract.study
        self.directory = directory
        self.sites = Correspondence(contract, exchange)
        self.sums: Sums = sums_of(contract, directory, self.sites)

    def run(self, initial: Floats32) -> Finished:
        """Runs or resumes the study.

        Raises:
            QuorumError: too few sites answered, again and again.
            TrainingError: sites cannot train with this study.
        """
        state = self.directory.load() or self.hello(initial)
        del initial  # a whole model
        while state.round < self.study.federation.rounds:
            state = self.train(state)
        return self.finish(state if state.validated else self.validate(state))

    def hello(self, initial: Floats32) -> RunState:
        """Sums the class histogram over the whole membership."""
        histogram_K = self._counts(Kind.HELLO, self._ask_all(Kind.HELLO, None))["histogram"]
        self.directory.event("hello", sites=list(self.contract.membership.sites), histogram=histogram_K.tolist())
        state_hash = self.contract.state.hash(initial)
        state = RunState(0, initial, state_hash, first_ranges(self.contract.state.shared, initial), histogram_K)
        self.directory.save(state)
        return state

    def train(self, state: RunState) -> RunState:
        """One round: broadcast, collect, sum, step; repeated until the study allows what came back."""
        current, started = state.round + 1, time.monotonic()
        ranges, bytes_up, bytes_down = state.ranges, 0, 0
        federation = self.study.federation
        for attempts in range(1, federation.max_attempts + 1):
            request = self._request(Kind.TRAIN, state, ranges)
            replies = self.sums.ask(request, self._least(state))
            bytes_up, bytes_down = bytes_up + replies.bytes_up, bytes_down + replies.bytes_down
            if any(absence.reason is Reason.SCALE_TOO_SMALL for absence in replies.absent.values()):
                ranges = ranges * WIDENING
            elif replies.sum_P is not None:
                after = self._step(state, replies, request)
                facts = {"bytes_up": bytes_up, "bytes_down": bytes_down, "seconds": round(time.monotonic() - started, 3)}
                # first, since a round that is told twice counts once, and one that is in the checkpoint alone would be in no report
                self.directory.event("round-finished", round=current, attempts=attempts, **self._describe(replies, after), **facts)
                self.directory.save(after)
                return after
            else:
                self._too_few_came(f"round {current}", replies)
            self.directory.event("round-repeated", round=current, attempt=replies.attempt, absent=_reasons(replies))
        raise QuorumError(_too_few(f"round {current}", federation.max_attempts, replies), MEND)

    def validate(self, state: RunState) -> RunState:
        """Evaluates the last model on validation cases, as each round does with the model before it; once, also over a crash."""
        state = replace(self._evaluated(state, self._ask_all(Kind.VALIDATE, state), Kind.VALIDATE), validated=True)
        self.directory.save(state)
        return state

    def finish(self, state: RunState) -> Finished:
        """Test cases and normalisation moments of the chosen model."""
        best = self.directory.load(BEST) if self.study.model_selection == "best" else None
        chosen = replace(state, model=best.model, model_hash=best.model_hash, round=best.round) if best else state
        replies = self._ask_all(Kind.FINISH, chosen)
        self.directory.event("finish", round=chosen.round, absent=_reasons(replies))
        counts = None if replies.counts is None else self._counts(Kind.FINISH, replies)
        moments = {} if replies.sum_P is None else self.contract.statistics.unpack(replies.sum_P.astype(np.int64, copy=False))
        return Finished(chosen.round, chosen.model, counts, moments, not replies.absent)

    def _step(self, state: RunState, replies: Replies, request: Request) -> RunState:
        """The state after a round: the average of the updates that arrived, and what the counts say of the model before."""
        bits, shared, num_sites = self.contract.bits(request.header.round), self.contract.state.shared, self.contract.num_sites
        arrived = sum(self.contract.membership.weight_units[site] for site in replies.participants)
        assert request.ranges is not None
        assert replies.sum_P is not None
        step = Step(replies.sum_P, step_sizes(request.ranges, bits, num_sites), arrived)
        largest = apply_step(state.model, step.sum_P, shared, step.sizes, step.arrived_units)  # in place: a copy is a whole model
        self.sites.remember_step(state.model_hash, step)
        return replace(
            self._evaluated(state, replies, Kind.TRAIN),
            round=state.round + 1,
            model_hash=self.contract.state.hash(state.model),
            ranges=next_ranges(largest, request.ranges),
            accepted=Accepted(replies.attempt, replies.participants),
            num_partial=state.num_partial + bool(replies.absent),
        )

    def _evaluated(self, state: RunState, replies: Replies, kind: Kind) -> RunState:
        """`state` with what was counted of its model. Where a site is missing, the weighting does not move and, unless the study
        says reveal, nothing is shown."""
        if replies.counts is None:
            self.directory.event("evaluation-withheld", round=state.round, absent=_reasons(replies))
            return state
        blocks = self._counts(kind, replies)
        metrics = metrics_from_counts(blocks)
        self.directory.event("evaluated", round=state.round, **describe_metrics(metrics, self.study.classes))
        if replies.whole:
            state = replace(state, history=(*state.history, class_sums(blocks["confusion"])))
        score = metrics.macro_auroc
        if (
            state.round > 0 and score is not None and score > state.best_score
        ):  # few validation cases can flatter the untrained model
            state = replace(state, best_round=state.round, best_score=score)
            self.directory.keep_best()
        return state

    def _least(self, state: RunState) -> int:
        """How many sites the study asks for in the next round: all, or fewer in one of the few partial rounds that it allows."""
        federation = self.study.federation
        partial_left = int(federation.max_partial_rounds * federation.rounds) - state.num_partial
        return federation.min_sites if partial_left > 0 else self.contract.num_sites

    def _too_few_came(self, what: str, replies: Replies) -> None:
        """Before a repeat, in which every site is waited for. Training is deterministic, and a refusal waits for a person: there a
        repeat would end alike.

        Raises:
            TrainingError, QuorumError: of these a site said.
        """
        reasons = {absence.reason for absence in replies.absent.values()}
        if Reason.TRAINING in reasons:
            raise TrainingError(_too_few(what, 1, replies), "change the study and begin another run")
        if Reason.REFUSED in reasons:
            raise QuorumError(_too_few(what, 1, replies), MEND)
        self.sites.wait_for_all()

    def _ask_all(self, kind: Kind, state: RunState | None) -> Replies:
        """Asks until the whole membership answered; in the end `min_sites` are enough, but never for hello."""
        federation = self.study.federation
        all_sites = self.contract.num_sites
        for attempts in range(1, federation.max_attempts + 1):
            last = attempts == federation.max_attempts and kind is not Kind.HELLO
            least = federation.min_sites if last else all_sites
            replies = self.sums.ask(self._request(kind, state), least)
            if not replies.absent or (last and self._has_enough(kind, replies)):
                return replies
            if kind is Kind.HELLO or len(replies.participants) < federation.min_sites:
                self._too_few_came(str(kind), replies)
            self.directory.event("exchange-repeated", kind=str(kind), attempt=replies.attempt, absent=_reasons(replies))
        raise QuorumError(_too_few(str(kind), federation.max_attempts, replies), MEND)

    def _has_enough(self, kind: Kind, replies: Replies) -> bool:
        """Whether `min_sites` are in what came, and in the sum of statistics where there is one."""
        summed = replies.sum_P is not None or self.contract.upload(kind, 0) is None
        return len(replies.participants) >= self.study.federation.min_sites and summed

    def _request(self, kind: Kind, state: RunState | None, ranges: Floats64 | None = None) -> Request:
        """A new attempt: its number is on disk before it is sent."""
        current = 0 if state is None else state.round + (kind is Kind.TRAIN)
        hashes = self.study.study_hash, self.contract.membership.membership_hash
        header = Header(*hashes, self.directory.run_id, current, self.directory.next_attempt())
        if state is None:
            return Request(kind, header)
        weighting = self._weighting(state)
        facts = {"round": current, "attempt": header.attempt, "class_weights": weighting.omega_K.tolist()}
        self.directory.event(f"{kind}-started", **facts)
        return Request(kind, header, ModelUpdate(state.model_hash, state.model), weighting, state.accepted, ranges)

    def _weighting(self, state: RunState) -> Weighting:
        omega_K = class_weights(self.study.class_weighting, state.histogram_K, state.history).omega_K
        empty = np.zeros((0, 3, len(self.study.classes)), np.int64)
        return Weighting(omega_K, state.histogram_K, np.stack(state.history) if state.history else empty)

    def _counts(self, kind: Kind, replies: Replies) -> dict[str, Integers]:
        assert replies.counts is not None
        return self.contract.counts[kind].unpack(replies.counts)

    def _describe(self, replies: Replies, after: RunState) -> dict[str, object]:
        facts: dict[str, object] = {
            "participants": sorted(replies.participants),
            "absent": _reasons(replies),
            "state_hash": after.model_hash,
        }
        if replies.whole:
            loss, steps, clipped, sent = self._counts(Kind.TRAIN, replies)["training"].tolist()
            facts |= {"train_loss": loss / FIXED_POINT / self.contract.num_sites, "steps": steps, "clipped_share": clipped / sent}
        return facts


def _reasons(replies: Replies) -> dict[str, str]:
    return {site: str(absence) for site, absence in sorted(replies.absent.items())}


def _too_few(what: str, attempts: int, replies: Replies) -> str:
    missing = "; ".join(f"{site}: {reason}" for site, reason in _reasons(replies).items())
    often = f" in the last of {attempts} attempts" if attempts > 1 else ""
    return f"{what}: {len(replies.participants)} sites answered{often}, nothing was summed; {missing}"
