"""The rounds of a run: hello, measure and train, validate, finish (csasn/SPEC.md, "Rounds"); or the one question of a survey.

Who took part and why another did not is in the events. The model is never silently kept, or silently averaged over fewer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from csasn.errors import QuorumError, TrainingError
from csasn.federated.aggregate import largest_moves
from csasn.federated.messages import (
    Finish,
    Header,
    Hello,
    Kind,
    Measure,
    ModelUpdate,
    Moments,
    Question,
    Replies,
    Step,
    Survey,
    Train,
    Validate,
    Weighting,
)
from csasn.federated.quantise import first_ranges, next_ranges, step_sizes
from csasn.federated.server_rules.rule import StepForm, server_rule
from csasn.federated.weighting import class_sums, class_weights
from csasn.measures.blocks import Integers
from csasn.measures.counts import FIXED_POINT, describe_metrics, metrics_from_counts
from csasn.measures.temperature import temperature_of
from csasn.platform.randomness import fast_generator
from csasn.privacy.contract import LEFT_OUT, USED, WITHDRAWN, Contract
from server.run.exchange import Exchange, SiteChannel
from server.run.masked_sums import sums_of
from server.run.run_directory import BEFORE, BEST, Beginning, RunDirectory, RunState
from server.run.sums import Sums
from server.run.telling import reasons_of, too_few
from server.run.waits import find_paces

MEND = "mend what the sites say, then resume"
Initial = Callable[[], Beginning]
OF_ALL = (Kind.HELLO, Kind.SURVEY)  # asked of the whole membership, or of nobody


@dataclass(frozen=True)
class Finished:
    """The outcome of a run: the state whose model was chosen, with the class sums of all rounds, and what was counted of its test
    cases, None where that is withheld."""

    chosen: RunState
    counts: dict[str, Integers] | None


class StudyRun:
    """Drives one run. The exchange carries the messages; the run directory keeps what must survive."""

    def __init__(self, contract: Contract, directory: RunDirectory, exchange: Exchange) -> None:
        self.contract, self.study = contract, contract.study
        self.directory = directory
        self.rule = server_rule(self.study.federation)
        self.sites = SiteChannel(
            contract, exchange, lambda waiting: directory.event("waiting", sites=waiting), find_paces(directory.events())
        )
        self.sums: Sums = sums_of(contract, self.sites)

    def run(self, initial: Initial) -> Finished:
        """Runs or resumes the study; `initial` gives what to begin with, where the run is not begun yet.

        Raises:
            QuorumError: sites refuse, or too few answered again and again.
            TrainingError: sites cannot train with this study, or training diverges.
        """
        state = self.directory.load() or self.hello(initial())
        if state.membership_hash != self.contract.membership.membership_hash:
            state = self.go_on(state)
        while not state.validated:
            if self.contract.moments.shapes and not state.measured:
                state = self.measure(state)
            state = self.train(state) if state.round < self.study.federation.rounds else self.validate(state)
        return self.finish(state)

    def survey(self) -> dict[str, Integers]:
        """The summed tables of a survey, over the whole membership; they are in memory alone.

        csasn/data/survey_tables.py says what is shown.

        Raises:
            QuorumError: sites refuse, or did not answer again and again.
        """
        header = self._header(1, 0)
        self.directory.event("survey-started", round=0, attempt=header.attempt)
        return self._counts(Kind.SURVEY, self._ask_all(Survey(header)))

    def hello(self, initial: Beginning) -> RunState:
        """The state before the first round: what a run begins with, and the cases of all."""
        layout, membership_hash = self.contract.state, self.contract.membership.membership_hash
        state = RunState(
            0, initial.model, layout.hash(initial.model), first_ranges(layout.shared, initial.model), self._count_cases(0),
            history=initial.history, memory=initial.memory, membership_hash=membership_hash,
        )  # fmt: skip
        self.directory.save(state)
        return state

    def go_on(self, before: RunState) -> RunState:
        """What the run goes on with under another membership than that of `before`: the model, and the cases of all anew."""
        state = before.under(self.contract.membership.membership_hash, self._count_cases(before.round))
        self.directory.save(state)
        return state

    def _count_cases(self, current_round: int) -> Integers:
        """Sums the class histogram (K,) over the whole membership, and how many cases and images are used and left out."""
        header = self._header(1, current_round)
        self.directory.event("hello-started", round=current_round, attempt=header.attempt)
        counts = self._counts(Kind.HELLO, self._ask_all(Hello(header)))
        facts = {name: counts[name].tolist() for name in ("histogram", USED[0], LEFT_OUT[0])}
        membership = self.contract.membership
        told = {"sites": list(membership.sites), "membership_hash": membership.membership_hash, "round": current_round}
        self.directory.event("hello", **told, **facts)
        return counts["histogram"]

    def measure(self, state: RunState) -> RunState:
        """Gives the model the normalisation statistics with which it is evaluated, and released if it is chosen."""
        replies = self._ask_all(Measure(*self._about(Kind.MEASURE, state, state.number + 1)))
        assert replies.sum_P is not None
        moments = Moments(replies.sum_P.astype(np.int64, copy=False))
        self.contract.move_(state.model, moments)
        measured = replace(state, model_hash=self.contract.state.hash(state.model), measured=True)
        self.sites.remember_step(state.model_hash, measured.model_hash, moments)
        self.directory.save(measured)
        return measured

    def train(self, state: RunState) -> RunState:
        """One round: broadcast, collect, sum, step; repeated until the study allows what came back, or undone if it made the model
        worse."""
        current, started = state.round + 1, time.monotonic()
        bytes_up, bytes_down = 0, 0
        federation = self.study.federation
        for attempts in range(1, federation.max_attempts + 1):
            question = Train(*self._about(Kind.TRAIN, state, state.number + 1), state.ranges)
            replies = self._ask(question, self._least(state))
            bytes_up, bytes_down = bytes_up + replies.bytes_up, bytes_down + replies.bytes_down
            if replies.sum_P is not None:
                evaluated = self._evaluated(state, replies, Kind.TRAIN)
                if (before := self._undone(evaluated, replies.number)) is not None:
                    return before
                after = self._step(evaluated, replies, question)
                facts = {"bytes_up": bytes_up, "bytes_down": bytes_down, "seconds": round(time.monotonic() - started, 3)}
                # first, since a round that is told twice counts once, and one that is in the checkpoint alone would be in no report
                self.directory.event("round-finished", round=current, attempts=attempts, **self._describe(replies, after), **facts)
                self.directory.save(after)
                return after
            self._too_few_came(f"round {current}", replies)
            self.directory.event("round-repeated", round=current, attempt=replies.attempt, absent=reasons_of(replies))
        raise QuorumError(too_few(f"round {current}", federation.max_attempts, replies), MEND)

    def validate(self, state: RunState) -> RunState:
        """Evaluates the last model on validation cases, as each round does with the model before it; once, also over a crash."""
        replies = self._ask_all(Validate(*self._about(Kind.VALIDATE, state, 1)))
        evaluated = self._evaluated(state, replies, Kind.VALIDATE)
        after = self._undone(evaluated, state.number) or replace(evaluated, validated=True)
        self.directory.save(after)
        return after

    def finish(self, state: RunState) -> Finished:
        """Test cases of the chosen model."""
        elsewhere = self.study.model_selection == "best" and state.best_round != state.round
        best = self.directory.load(BEST) if elsewhere else None
        chosen = state
        if best and best.membership_hash == state.membership_hash:  # else no model of this membership was judged
            chosen = replace(best, histogram_K=state.histogram_K, history=state.history, temperature=state.best_temperature)
        replies = self._ask_all(Finish(*self._about(Kind.FINISH, chosen, 1), chosen.temperature))
        counts = None if replies.counts is None else self._counts(Kind.FINISH, replies)
        withdrawn = None if counts is None else int(counts.pop(WITHDRAWN[0])[0])
        self.directory.event("finish", round=chosen.round, absent=reasons_of(replies), withdrawn=withdrawn)
        return Finished(chosen, counts)

    def _step(self, state: RunState, replies: Replies, question: Train) -> RunState:
        """The state after a round: what the rule of the server makes of the sum of the updates that arrived."""
        bits, shared, num_sites = self.contract.bits(question.header.round), self.contract.state.shared, self.contract.num_sites
        arrived = sum(self.contract.membership.weight_units[site] for site in replies.participants)
        assert replies.sum_P is not None
        summed = Step(replies.sum_P, step_sizes(question.ranges, bits, num_sites), arrived)
        random = fast_generator(self.study.seed, "server rounding", replies.number)
        last = state.round + 1 == self.study.federation.rounds
        before = {} if self.rule.follows_sites and not replies.carried else state.memory
        step, memory = self.rule.step(summed, before, StepForm(shared, bits, random, last))
        self.directory.keep_before()
        self.contract.move_(state.model, step)
        model_hash = self.contract.state.hash(state.model)
        self.sites.remember_step(state.model_hash, model_hash, step)
        return replace(
            state,
            round=state.round + 1,
            number=replies.number,
            model_hash=model_hash,
            memory=memory,
            measured=False,
            temperature=1.0,
            ranges=next_ranges(largest_moves(summed, shared), question.ranges, self.contract.state.num_controls),
            accepted=replies.transcript,
            num_partial=state.num_partial + bool(replies.absent),
        )

    def _evaluated(self, state: RunState, replies: Replies, kind: Kind) -> RunState:
        """`state` with what was counted of its model. Where a site is missing, the weighting does not move and, unless the study
        says reveal, nothing is shown."""
        if replies.counts is None:
            self.directory.event("evaluation-withheld", round=state.round, absent=reasons_of(replies))
            return state
        blocks = self._counts(kind, replies)
        metrics = metrics_from_counts(blocks)
        self.directory.event("evaluated", round=state.round, **describe_metrics(metrics, self.study.classes))
        if replies.whole:
            self._tell_changed_totals(state, blocks["confusion"])
            history = (*state.history, class_sums(blocks["confusion"]))
            state = replace(state, history=history, loss=metrics.loss, temperature=temperature_of(blocks))
        if self._is_worse(state):
            return state
        score = metrics.macro_auroc
        if (
            state.round > 0 and score is not None and score > state.best_score
        ):  # few validation cases can flatter the untrained model
            state = replace(state, best_round=state.round, best_score=score, best_temperature=state.temperature)
            self.directory.keep_best()
        trained = state.loss if state.round > 0 else None  # first rounds from random weights do worse than chance, and recover
        losses = [loss for loss in (trained, state.best_loss) if loss is not None]
        return replace(state, best_loss=min(losses, default=None))

    def _tell_changed_totals(self, state: RunState, confusion_KK: Integers) -> None:
        """Validation cases of a class are as many as in the round before, unless a site changed its manifest, or lies."""
        if state.loss is None:
            return  # the first evaluation, or that of a new membership
        hits_K, _, missed_K = state.history[-1]
        before_K, now_K = hits_K + missed_K, confusion_KK.sum(axis=1)
        if not np.array_equal(before_K, now_K):
            self.directory.event("totals-changed", round=state.round, before=before_K.tolist(), now=now_K.tolist())

    def _is_worse(self, state: RunState) -> bool:
        """Whether the validation loss of a model is beyond what the study allows over the best so far."""
        guard, loss, best = self.study.federation.loss_guard, state.loss, state.best_loss
        return guard is not None and loss is not None and best is not None and state.round > 0 and loss > guard * best

    def _undone(self, state: RunState, number: int) -> RunState | None:
        """The state before the round that made a model much worse, on disk, to train it once more with the randomness of the
        question after `number`; None where nothing is wrong.

        Raises:
            TrainingError: it was undone before.
        """
        if not self._is_worse(state):
            return None
        what = f"validation loss {state.loss:.4g} after round {state.round}, {state.best_loss:.4g} was the best so far"
        if state.undone == state.round:
            raise TrainingError(f"{what}, also after the round was undone", "lower optimiser.learning_rate, or see loss_guard")
        self.directory.event("round-undone", round=state.round, why=what)
        before = self.directory.load(BEFORE)
        assert before is not None
        before = replace(before, number=number, undone=state.round)
        self.directory.save(before)
        return before

    def _least(self, state: RunState) -> int:
        """How many sites the study asks for in the next round: all, or fewer in one of the few partial rounds that it allows."""
        federation = self.study.federation
        partial_left = int(federation.max_partial_rounds * federation.rounds) - state.num_partial
        return federation.min_sites if partial_left > 0 else self.contract.num_sites

    def _too_few_came(self, what: str, replies: Replies) -> None:
        """Before a repeat, in which every site is waited for. A refusal waits for a person: there a repeat would end alike.

        Raises:
            QuorumError: a site refused.
        """
        if any(absence.reason.is_refusal for absence in replies.absent.values()):
            raise QuorumError(too_few(what, 1, replies), MEND)
        self.sites.wait_for_all()

    def _ask(self, question: Question, least: int) -> Replies:
        """One question to all sites.

        Raises:
            TrainingError: sites could not do what was asked. Training is deterministic, so a repeat would end alike.
        """
        replies = self.sums.ask(question, least)
        if replies.num_failed:
            sites = "1 site" if replies.num_failed == 1 else f"{replies.num_failed} sites"
            what = f"{sites} could not {'train' if question.kind is Kind.TRAIN else 'evaluate the model'}"
            raise TrainingError(f"{what}; each site's own log says which", "change the study and begin another run")
        return replies

    def _ask_all(self, question: Question) -> Replies:
        """Asks until the whole membership answered; in the end `min_sites` are enough, but never for hello or a survey."""
        federation = self.study.federation
        all_sites, kind = self.contract.num_sites, question.kind
        for attempts in range(1, federation.max_attempts + 1):
            last = attempts == federation.max_attempts and kind not in OF_ALL
            least = federation.min_sites if last else all_sites
            replies = self._ask(question, least)
            if not replies.absent or (last and self._has_enough(kind, replies)):
                return replies
            if kind in OF_ALL or len(replies.participants) < federation.min_sites:
                self._too_few_came(str(kind), replies)
            self.directory.event("exchange-repeated", kind=str(kind), attempt=replies.attempt, absent=reasons_of(replies))
            question = replace(question, header=replace(question.header, attempt=self.directory.next_attempt()))
        raise QuorumError(too_few(str(kind), federation.max_attempts, replies), MEND)

    def _has_enough(self, kind: Kind, replies: Replies) -> bool:
        """Whether `min_sites` are in what came, and in the sum of statistics where there is one."""
        summed = replies.sum_P is not None or self.contract.upload(kind, 0) is None
        return len(replies.participants) >= self.study.federation.min_sites and summed

    def _header(self, number: int, current_round: int) -> Header:
        """Of a question, under a new label."""
        hashes = self.study.study_hash, self.contract.membership.membership_hash
        return Header(*hashes, number, current_round, self.directory.run_id, self.directory.next_attempt())

    def _about(self, kind: Kind, state: RunState, number: int) -> tuple[Header, ModelUpdate, Weighting, bytes | None]:
        """What a question about the model of `state` says."""
        header = self._header(number, state.round + (kind is Kind.TRAIN))
        omega_K = class_weights(self.study.class_weighting, state.histogram_K, state.history).omega_K
        empty = np.zeros((0, 3, len(self.study.classes)), np.int64)
        weighting = Weighting(omega_K, state.histogram_K, np.stack(state.history) if state.history else empty)
        facts = {"round": header.round, "attempt": header.attempt, "class_weights": omega_K.tolist()}
        self.directory.event(f"{kind}-started", **facts)
        return header, ModelUpdate(state.model_hash, state.model), weighting, state.accepted

    def _counts(self, kind: Kind, replies: Replies) -> dict[str, Integers]:
        assert replies.counts is not None
        return self.contract.counts[kind].unpack(replies.counts)

    def _describe(self, replies: Replies, after: RunState) -> dict[str, object]:
        facts: dict[str, object] = {
            "participants": sorted(replies.participants),
            "absent": reasons_of(replies),
            "state_hash": after.model_hash,
        }
        if replies.whole:
            loss, steps, clipped, sent = self._counts(Kind.TRAIN, replies)["training"].tolist()
            facts |= {"train_loss": loss / FIXED_POINT / self.contract.num_sites, "steps": steps, "clipped_share": clipped / sent}
        return facts
