"""A site's worker: it checks every request, has the learner work on it, and answers each question once, in one form.

A question is answered in two exchanges where sums are masked (csasn/SPEC.md, "Secure aggregation"): `Ready` once the work is done
and on disk, then, against the signed keys of all sites, the masked answer. From the moment that a model is in the network nothing
but these leaves, whatever the cases do to it.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from client.worker.diary import Diary, Entry, Hospitals, NumberError
from client.worker.kept import Asked, Kept, LeftOver, Pending, forget_memberships, state_name
from client.worker.learner import Learner, NeedsModelError, Work
from client.worker.personal import keep_personal
from client.worker.replay import keep_replay
from csasn.data.manifest_file import manifest_sha256
from csasn.data.withdrawals import BRING_BACK, WITHDRAWN_FILE
from csasn.errors import ConfigurationError, CsasnError, ProtocolError, TrustError
from csasn.federated.messages import (
    CONTRACT_VERSION,
    AboutModel,
    Absence,
    Answer,
    Collect,
    Finish,
    Hello,
    Kind,
    Question,
    Ready,
    Reason,
    Reply,
    Request,
    Survey,
    Train,
    transcript,
)
from csasn.federated.quantise import Floats32
from csasn.federated.secagg.keys import SignedKey, fresh_key, sign_key
from csasn.federated.secagg.sealing import Sealer
from csasn.federated.weighting import ClassWeights
from csasn.measures.temperature import is_temperature
from csasn.privacy.contract import WITHDRAWN
from csasn.privacy.ledger import Ledger, Occasion
from csasn.site import Site
from csasn.study import Study
from csasn.trust.identity import Sign
from csasn.trust.membership import Membership

log = logging.getLogger(__name__)
COUNTED = (Kind.HELLO, Kind.SURVEY)  # answers that tell how many cases the manifest holds


class SiteWorker:
    """One site in one study and membership; `folder` is where it keeps its state.

    `sign` signs with the site's identity, which secure aggregation asks for; `ledger` is where withdrawals are written; `doing` is
    told what it does, in words for people.
    """

    def __init__(
        self,
        study: Study,
        membership: Membership,
        site: Site,
        folder: Path,
        sign: Sign | None = None,
        doing: Callable[[str], None] = lambda _: None,
        ledger: Ledger | None = None,
    ) -> None:
        self.study, self.site, self.sign, self.ledger = study, site, sign, ledger
        if study.federation.secure_aggregation and sign is None:
            raise ConfigurationError(f"{site.site} has no identity to sign with", "make it with client keygen")
        self.learner = Learner(study, membership, site, doing)
        self.contract = self.learner.contract
        hashes = study.study_hash, membership.membership_hash
        forget_memberships(folder, *hashes)
        self.kept = Kept(folder / state_name(*hashes))
        self.diary = Diary(self.kept.folder, Hospitals(study_hash=hashes[0], membership_hash=hashes[1], sites=membership.sites))

    def answer(self, request: Request) -> Reply:
        """The answer to a request.

        Raises:
            CsasnError: the request is refused, or the site cannot do what it asks.
        """
        if request.header.version != CONTRACT_VERSION:
            return Absence(Reason.VERSION)
        self._check_header(request)
        try:
            return self._collect(request) if isinstance(request, Collect) else self._ask(request)
        except NeedsModelError:
            return Absence(Reason.NEEDS_MODEL)
        except NumberError as error:
            log.warning("%s", error.message)
            return Absence(Reason.NUMBER, error.at)

    def _ask(self, question: Question) -> Reply:
        """Works on a question, once, and keeps what came of it; the answer itself where sums are plain."""
        about = question if isinstance(question, AboutModel) else None
        model = None if about is None else self.learner.receive(about.model)
        accepted = None if about is None else about.accepted
        before = self.kept.left(accepted)
        digest = transcript(question, carried=self.contract.secure and before is not None)
        header = question.header
        self.diary.check(question.kind, header.number, digest, self.study.federation.rounds)
        pending = self.kept.pending(digest)
        if pending is None:
            if not isinstance(question, Survey):
                self.learner.load_data()
            weights = None if about is None else self.learner.check_weighting(about.weighting)
            self.kept.settle(accepted)
            work = self._work(question, model, weights, before)
            self._note_withdrawals(question)
            if isinstance(question, Finish) and work.counts:
                self._count_withdrawn(work)
            if work.personal is not None:
                keep_personal(self.kept.folder, work.personal, self.study, header.round)
            pending = self._keep(question, digest, work, accepted if before else None)
            if isinstance(question, Train) and model is not None and self.site.policy.keep_for_replay:
                answer = Answer(pending.counts, pending.update_P)
                keep_replay(self.kept, question, model, answer, Path(self.site.manifest), len(self.learner.withdrawals))
        if self.contract.secure:
            return Ready(digest, pending.key)
        answer = Answer(pending.counts, pending.update_P)
        self._note(pending.asked, answer.digest)
        return answer

    def _work(self, question: Question, model: Floats32 | None, weights: ClassWeights | None, before: LeftOver | None) -> Work:
        """What a question comes to; where that fails, nothing and the mark of it: no answer in plain speaks of the cases."""
        if isinstance(question, Survey):
            return Work(self.learner.count_survey())
        if isinstance(question, Hello) or model is None or weights is None:
            return Work(self.learner.count_data())
        try:
            return self.learner.work(question, model, weights, before)
        except CsasnError as error:
            log.error("%s failed: %s", question.kind, f"{error.message}; {error.hint}" if error.hint else error.message)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the cases stays here, but for its type
            log.error("%s failed: unexpected %s", question.kind, type(error).__name__)
        return self.learner.nothing(question.kind, question.header.round, before)

    def _note_withdrawals(self, question: Question) -> None:
        """In the ledger, which of them are in effect in what this question came to and were not in the last.

        Raises:
            TrustError: fewer are in effect than before.
        """
        withdrawals, header = self.learner.withdrawals, question.header
        if len(withdrawals) < self.diary.withdrawn:
            raise TrustError(f"{self.diary.withdrawn} patients had withdrawn, {WITHDRAWN_FILE} says {len(withdrawals)}", BRING_BACK)
        occasion = Occasion(header.run, header.round, header.attempt, question.kind.value)
        for withdrawal in withdrawals[self.diary.withdrawn :]:
            if self.ledger:
                self.ledger.note_withdrawal(withdrawal.sha256, occasion)
        self.diary.note_withdrawn(len(withdrawals), before=isinstance(question, Hello))

    def _count_withdrawn(self, work: Work) -> None:
        """Adds to what finish counts how many patients withdrew while the model was trained."""
        work.counts[WITHDRAWN[0]] = np.array([self.diary.withdrawn_since], np.int64)

    def _keep(self, question: Question, digest: bytes, work: Work, before: bytes | None) -> Pending:
        """Keeps what a question came to; it went on from `before`. Where work failed and sums are masked, noise is summed in its
        place: beside zeros, a sum in which the work went well would show this site's part of it."""
        answer = Answer(self.contract.pack(question.kind, work.counts), work.update_P)
        self.contract.check_values(question.kind, self.site.site, question.header.round, answer)
        if self.contract.secure and not work.counts:
            answer = self.contract.noise(question.kind, question.header.round)
        private = fresh_key() if self.contract.secure else b""
        key = sign_key(private, digest, self._signer) if private else SignedKey(b"", "")
        asked = Asked(
            kind=question.kind,
            number=question.header.number,
            transcript=digest,
            private=private,
            public=key.public,
            signature=key.signature,
        )
        pending = Pending(asked, answer.counts, answer.update_P)
        self.kept.keep(pending, None if work.left is None else replace(work.left, before=before or b""))
        return pending

    def _collect(self, request: Collect) -> Reply:
        """The masked answer to a question that this site is ready for: under the same keys the same bytes, under others none."""
        if not self.contract.secure:
            raise ProtocolError(f"the approved study, {self.study.name}, does not mask what leaves a site")
        pending = self.kept.pending(request.transcript)
        if pending is None:
            return Absence(Reason.NEEDS_KEY)
        asked = pending.asked
        if (asked.kind, asked.number) != (request.of, request.header.number):
            raise ProtocolError(f"{request.of} {request.header.number} is collected, this site is ready for {asked.kind}")
        self.diary.check(asked.kind, asked.number, asked.transcript, self.study.federation.rounds)
        sealer = Sealer(self.site.site, self.contract.roster, asked.private, asked.transcript, torch.get_num_threads())
        self.kept.forget_arrays()  # those in memory are masked in place
        sealing = sealer.seal(request.keys, pending.update_P, pending.counts, self._signer)
        self._note(asked, sealing.view.hex())
        return Answer(pending.counts, pending.update_P, sealing)

    def _note(self, asked: Asked, answer: str) -> None:
        """Writes into the diary how a question is answered, before the answer leaves."""
        counted = manifest_sha256(Path(self.site.manifest)) if asked.kind in COUNTED else None
        entry = Entry(number=asked.number, transcript=asked.transcript.hex(), answer=answer)
        self.diary.note(asked.kind, entry, self.ledger.num_lines if self.ledger else 0, counted)

    def _signer(self, purpose: str, data: bytes) -> str:
        assert self.sign is not None
        return self.sign(purpose, data)

    def _check_header(self, request: Request) -> None:
        header, contract = request.header, self.contract
        for name, given, expected in (
            ("study", header.study_hash, contract.study.study_hash),
            ("membership", header.membership_hash, contract.membership.membership_hash),
        ):
            if given != expected:
                raise ProtocolError(
                    f"the request is of {name} {given[:12]}, this site approved {expected[:12]}",
                    "compare study.yaml with the coordinator's",
                )
        kind = request.of if isinstance(request, Collect) else request.kind
        if kind not in contract.counts:
            approved = "a survey, which counts cases alone" if contract.study.survey else "no survey"
            raise ProtocolError(f"the request is a {kind}, the approved study is {approved}", "a survey is approved by itself")
        rounds = contract.study.federation.rounds
        trains = isinstance(request, Train)
        if header.number < 1 or not trains <= header.round <= rounds or (trains and header.round > header.number):
            raise ProtocolError(f"the request is question {header.number} of round {header.round}, of {rounds} rounds")
        if isinstance(request, Train):
            ranges, expected_shape = request.ranges, (len(contract.state.shared),)
            if ranges.shape != expected_shape or not (np.isfinite(ranges).all() and (ranges > 0).all()):
                raise ProtocolError(f"the ranges of the tensors are not {expected_shape[0]} positive numbers")
        if isinstance(request, Finish) and not is_temperature(request.temperature, contract.study.calibration):
            raise ProtocolError(
                f"the temperature is {request.temperature}, expected one of calibration {contract.study.calibration}"
            )
