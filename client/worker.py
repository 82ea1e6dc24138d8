"""A site's worker: it keeps model and data warm, checks every request, evaluates, trains, and answers {update, counts}."""

import hashlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from client.broadcasts import Followed
from client.secrecy import SecureSite
from client.site_state import Outcome, SiteState
from csasn.contract import Contract
from csasn.data.cases import TEST, TRAIN, VALIDATION, SiteData, load_site_data
from csasn.errors import ConfigurationError, ProtocolError
from csasn.evaluation import count_split
from csasn.feature_cache import with_frozen_maps
from csasn.federated.aggregate import apply_step
from csasn.federated.messages import Absence, Answer, Kind, ModelUpdate, Reason, Reply, Request, Weighting, transcript
from csasn.federated.quantise import Quantised, Scale, SignedIntegers, integer_type, quantise, step_sizes
from csasn.federated.secagg.messages import KeysMissingError, Sign
from csasn.loss import LossTerms
from csasn.membership import Membership
from csasn.metrics import FIXED_POINT
from csasn.model.network import build_network, image_size
from csasn.model.state import own_tensors, read_tensors, write_tensors
from csasn.normalisation import MEASURED_MODES, apply_moments, measure_moments, read_affine, renew_statistics
from csasn.randomness import fast_generator
from csasn.site import Site
from csasn.study import Study
from csasn.training import LocalPlan, LocalResult, num_epoch_steps, train_locally
from csasn.weighting import ClassWeights, class_weights

Integers = NDArray[np.int64]
OMEGA_TOLERANCE = 1e-9
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Trained:
    """What the network was trained `on`, its counts of validation cases from before, and what training did."""

    on: tuple[object, ...]
    counts: dict[str, Integers]
    result: LocalResult


class NeedsModelError(ProtocolError):
    """The site holds another model than the one that the step starts from."""


class SiteWorker:
    """One site. `folder` is where it keeps its state of each run; `doing` is told what it does, in words for people.

    `sign` signs with the site's identity, which secure aggregation asks for.
    """

    def __init__(
        self,
        study: Study,
        membership: Membership,
        site: Site,
        folder: Path,
        sign: Sign | None = None,
        doing: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.study, self.site = study, site
        self.device = choose_device(site, study.deterministic)
        self.network = build_network(study).to(self.device)
        self.contract = Contract.of(study, membership, self.network)
        self.folder, self.sign, self.doing = folder, sign, doing
        self.micro_batch = site.micro_batch
        self._run = ""
        self.secrecy: SecureSite | None = None
        self._model: NDArray[np.float32] | None = None
        self._model_hash = ""
        self._followed = Followed()
        self._data: SiteData | None = None
        self._cases_of: SiteData | None = None  # `_cases` is this with the maps of frozen branches
        self._manifest_stamp = (0, 0)
        self._trained: _Trained | None = None  # as the network is now

    def answer(self, request: Request) -> Reply:
        """The answer to a request.

        Raises:
            CsasnError: the request is refused, or the site cannot do what it asks.
        """
        self._check_header(request)
        self._open_run(request.header.run)
        match request.kind:
            case Kind.KEYS:
                return self._secrecy().make_key(request)
            case Kind.CONFIRM:
                return self._secrecy().confirm(request)
            case Kind.UNMASK:
                return self._secrecy().reveal(request, self.state.outcome)
        try:
            return self._answer_once(request)
        except NeedsModelError:
            return Absence(Reason.NEEDS_MODEL)
        except KeysMissingError:
            return Absence(Reason.NEEDS_KEYS)

    def _answer_once(self, request: Request) -> Answer:
        """The answer to an attempt; what was sent before is sent again, to the byte."""
        digest = transcript(request)
        model = None
        if request.kind is not Kind.HELLO:
            if request.model is None or request.weighting is None:
                raise ProtocolError(f"the request to {request.kind} lacks model or weighting")
            model = self._receive(request.model)
        if (answer := self.state.answer_to(request.header.attempt, digest.hex())) is not None:
            return answer
        if self.contract.secure:
            self._secrecy().open(request, digest)
        outcome = replace(self._work(request, model), attempt=request.header.attempt, request=digest.hex())
        self.contract.check_values(request.kind, self.site.site, request.header.round, outcome.answer)
        if self.contract.secure:
            sealed, own_shares = self._secrecy().seal(outcome.answer)
            outcome = replace(outcome, answer=sealed, own_shares=own_shares)
        self.state.keep(outcome)
        return outcome.answer

    def _secrecy(self) -> SecureSite:
        if self.secrecy is None:
            raise ProtocolError(f"the approved study, {self.study.name}, does not mask what leaves a site")
        return self.secrecy

    def _work(self, request: Request, model: NDArray[np.float32] | None) -> Outcome:
        """What an attempt comes to, before it is masked."""
        if model is None or request.weighting is None:
            histogram = self.contract.counts[Kind.HELLO].pack({"histogram": self._class_histogram()})
            return Outcome(request.header.attempt, "", Answer(histogram))
        weights = self._check_weighting(request.weighting)
        max_widenings = self.study.federation.max_attempts
        self._followed = self._followed.check(request, self.contract.state.shared, model, max_widenings)
        before = self.state.settle(request.accepted, self.site.site)
        if request.kind is Kind.TRAIN:
            return self._train(request, model, weights, before)
        self._load(model, before)
        self.doing(f"round {request.header.round}: evaluating")
        return Outcome(request.header.attempt, "", self._evaluate(request.kind, weights))

    def _load(self, model: NDArray[np.float32], before: Outcome | None) -> None:
        """Puts the received model, and what stayed at the site, into the network."""
        self._trained = None
        self.contract.state.write(self.network, model)
        if self._cases_of is not self.data:
            self._cases_of = self.data
            self._cases = with_frozen_maps(self.network, self.data, self.study)
        if before is not None:
            write_tensors(self.network, before.own)

    @property
    def data(self) -> SiteData:
        """The site's cases, read again when the manifest changed."""
        status = Path(self.site.manifest).stat() if Path(self.site.manifest).exists() else None
        stamp = (status.st_mtime_ns, status.st_size) if status else (0, 0)
        if self._data is None or stamp != self._manifest_stamp:
            self._data = load_site_data(self.study, self.site, image_size(self.study.model))
            self._manifest_stamp = stamp
        return self._data

    def _open_run(self, run: str) -> None:
        """Turns to what is kept of this run; its name comes from the coordinator, and becomes no path."""
        if run != self._run:
            folder = self.folder / f"run-{hashlib.sha256(run.encode()).hexdigest()[:12]}"
            self.state, self._followed = SiteState(folder), Followed()
            self.secrecy = None
            if self.contract.secure:
                if self.sign is None:
                    raise ConfigurationError(f"{self.site.site} has no identity to sign with", "make it with client keygen")
                self.secrecy = SecureSite(
                    self.folder, folder, self.site.site, self.study.study_hash, self.contract.roster, self.sign
                )
            self._run = run

    def _class_histogram(self) -> Integers:
        classes = self.data.class_C[self.data.cases(TRAIN)]
        return np.bincount(classes[classes >= 0], minlength=len(self.study.classes)).astype(np.int64)

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

    def _receive(self, update: ModelUpdate) -> NDArray[np.float32]:
        """The model that the request is about, from the whole state or by the step, checked by its hash."""
        if self._model is not None and update.state_hash == self._model_hash:
            return self._model
        if update.whole is not None:
            model, self._followed = update.whole.copy(), self._followed.after_whole()
        elif self._model is not None and update.step is not None:
            step, model, self._model = update.step, self._model, None  # where the step leads elsewhere, no model is held
            largest = apply_step(model, step.sum_P, self.contract.state.shared, step.sizes, step.arrived_units)
            self._followed = self._followed.after_step(largest)
        else:
            raise NeedsModelError("no model is held here")
        found = self.contract.state.hash(model) if model.shape == (self.contract.state.size,) else "of another size"
        if found != update.state_hash:
            if update.whole is None:
                raise NeedsModelError("the step leads to another model")
            raise ProtocolError(f"the received model is {found[:12]}, announced as {update.state_hash[:12]}")
        self._model, self._model_hash = model, found
        return model

    def _check_weighting(self, weighting: Weighting) -> ClassWeights:
        """ω recomputed from the sums it is said to follow from; a difference is refused."""
        weights = class_weights(self.study.class_weighting, weighting.histogram_K, list(weighting.history_R3K))
        if weighting.omega_K.shape != weights.omega_K.shape or np.abs(weighting.omega_K - weights.omega_K).max() > OMEGA_TOLERANCE:
            raise ProtocolError(f"class weights {weighting.omega_K.tolist()} do not follow from their sums")
        return weights

    def _train(self, request: Request, model: NDArray[np.float32], weights: ClassWeights, before: Outcome | None) -> Outcome:
        """Trains, but not again for another attempt at the same: the network still holds what came of it."""
        if request.ranges is None or request.ranges.shape != (len(self.contract.state.shared),):
            raise ProtocolError("the request to train lacks the ranges of the tensors")
        header, classes = request.header, (weights.omega_K.tobytes(), weights.adjustment_K.tobytes())
        on = (header.run, header.round, self._model_hash, request.accepted, id(self.data), *classes)
        if self._trained is None or self._trained.on != on:
            self._load(model, before)
            self.doing(f"round {header.round}: evaluating")
            counts = self._validate(weights)
            plan = LocalPlan(self.site.site, header.round, self.study.federation.proximal_mu)
            result = self._train_within_memory(plan, LossTerms.of(self.study, weights, self.device), model)
            self.network.zero_grad()  # gradients are as large as the model
            self._trained = _Trained(on, counts, result)
        num_shared = self.contract.state.num_shared
        update_P = self.contract.state.read(self.network)[:num_shared]
        update_P -= model[:num_shared]
        upload = self._quantise(update_P, before, request.ranges, header.round)
        counts = self._trained.counts | {"training": _training_counts(self._trained.result, upload)}
        answer = Answer(self.contract.counts[Kind.TRAIN].pack(counts), upload.integers_P)
        own = read_tensors(self.network, own_tensors(self.network, self.study.federation.batchnorm))
        return Outcome(header.attempt, "", answer, upload.residual_P, own)

    def _train_within_memory(self, plan: LocalPlan, terms: LossTerms, model: NDArray[np.float32]) -> LocalResult:
        """Trains, and begins anew with half the micro batch where the GPU's memory is too small."""
        own = read_tensors(self.network, own_tensors(self.network, self.study.federation.batchnorm))
        while True:
            steps = self._count_steps(plan.round)
            try:
                return train_locally(
                    self.network, self._cases, self.study, terms, replace(plan, micro_batch=self.micro_batch), steps
                )
            except torch.OutOfMemoryError:
                tried = self.micro_batch or self.study.optimiser.batch_size
                if tried == 1:
                    raise ConfigurationError(
                        "the GPU's memory is too small for one image at a time",
                        "free it, use another GPU, or set device: cpu in the site file",
                    ) from None
                self.micro_batch = tried // 2
            log.warning("out of GPU memory with %d images at once; set micro_batch: %d in the site file", tried, self.micro_batch)
            self.doing(f"round {plan.round}: out of GPU memory, training {self.micro_batch} images at once")
            self.contract.state.write(self.network, model)
            write_tensors(self.network, own)
            torch.cuda.empty_cache()

    def _count_steps(self, current_round: int) -> Callable[[], None]:
        """Tells how far training is, at most once for each part in a hundred."""
        steps = num_epoch_steps(len(self._cases.cases(TRAIN)), self.study.optimiser.batch_size) * self.study.federation.local_epochs
        done = itertools.count(1)
        told = -1

        def step() -> None:
            nonlocal told
            share = min(100, 100 * next(done) // max(steps, 1))
            if share != told:
                told = share
                self.doing(f"round {current_round}: training, {share} %")

        return step

    def _quantise(
        self, update_P: NDArray[np.float32], before: Outcome | None, ranges: NDArray[np.float64], current_round: int
    ) -> Quantised:
        bits = self.contract.bits(current_round)
        scale = Scale(
            segments=self.contract.state.shared,
            sizes=step_sizes(ranges, bits, self.contract.num_sites),
            weight_units=self.contract.membership.weight_units[self.site.site],
            largest=self.contract.largest_upload(self.site.site, current_round),
            dtype=integer_type(bits),
        )
        residual_P = np.zeros_like(update_P) if before is None or before.residual_P is None else before.residual_P
        return quantise(update_P, residual_P, scale, fast_generator(self.study.seed, "rounding", self.site.site, current_round))

    def _validate(self, weights: ClassWeights) -> dict[str, Integers]:
        renew_statistics(self.network, self._cases, self.study, self.site.site)
        return count_split(self.network, self._cases, VALIDATION, self.study, weights)

    def _evaluate(self, kind: Kind, weights: ClassWeights) -> Answer:
        """Counts of validation cases; to finish, of test cases, and the normalisation moments of the finished model."""
        if kind is Kind.VALIDATE:
            return Answer(self.contract.counts[kind].pack(self._validate(weights)))
        mode, more = self.study.federation.batchnorm, {}
        if mode in MEASURED_MODES:
            more = measure_moments(self.network, self._cases, self.study, self.site.site)
            apply_moments(self.network, more)
        if mode == "fedbn":
            more |= read_affine(self.network, self.contract.membership.weight_units[self.site.site])
        counts = count_split(self.network, self._cases, TEST, self.study, weights)
        moments = self.contract.statistics.pack(more) if more else None
        return Answer(self.contract.counts[kind].pack(counts), cast(SignedIntegers | None, moments))


def _training_counts(result: LocalResult, upload: Quantised) -> Integers:
    loss = round(min(result.loss, 1e6) * FIXED_POINT)
    return np.array([loss, result.num_steps, upload.num_clipped, upload.integers_P.size], np.int64)


def choose_device(site: Site, deterministic: bool) -> torch.device:
    """The site's device; `auto` takes a GPU where there is one.

    Raises:
        ConfigurationError: the site file asks for a GPU and there is none.
    """
    if site.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"site {site.site}: device is 'cuda', but torch finds no GPU", "check the driver, or set device: cpu"
        )
    name = "cuda" if site.device != "cpu" and torch.cuda.is_available() else "cpu"
    if name == "cuda" and deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return torch.device(name)
