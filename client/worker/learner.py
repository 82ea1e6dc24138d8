"""What a site does with its cases: it holds model and data warm, evaluates and trains. Of messages and keys it knows nothing."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from client.worker.kept import LeftOver
from client.worker.notes import keep_left_out
from client.worker.personal import make_personal, train_personal
from csasn.data.cases import TEST, TRAIN, Records, SiteData, load_records, site_data
from csasn.data.manifest_file import manifest_stamp
from csasn.data.survey import count_survey
from csasn.data.survey_tables import veil
from csasn.data.withdrawals import Withdrawal, withdrawals_stamp
from csasn.errors import ConfigurationError, ProtocolError
from csasn.federated.messages import Finish as FinishQuestion
from csasn.federated.messages import Kind, Measure, ModelUpdate, Train, Validate, Weighting
from csasn.federated.quantise import Quantised, Scale, SignedIntegers, integer_type, quantise, step_sizes
from csasn.federated.weighting import ClassWeights, class_weights
from csasn.learning.evaluation import count_logits, count_validation, labelled_logits, right_cases
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.loss import LossTerms
from csasn.learning.normalisation import apply_moments, measure_moments, num_measured
from csasn.learning.objectives.objective import Remembered, local_objective
from csasn.learning.personal import Tensors
from csasn.learning.training import LocalPlan, LocalResult, num_epoch_images, num_epoch_steps, train_locally
from csasn.measures.blocks import Integers
from csasn.measures.counts import FIXED_POINT, OWN, PAIRED
from csasn.model.network import build_network
from csasn.model.profiles import image_size
from csasn.model.state import read_tensors
from csasn.platform.randomness import fast_generator
from csasn.platform.share import telling_progress, wait_for_share
from csasn.privacy.contract import FAILED, LEFT_OUT, USED, Contract
from csasn.site import Site
from csasn.study import Study
from csasn.trust.membership import Membership

Floats32 = NDArray[np.float32]
OBJECTIVE = "objective"  # the name of what the local objective remembers
OMEGA_TOLERANCE = 1e-9
TOLD_AFTER_S = 60.0  # that files are away, where the coordinator waits for a site anyway
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a question came to: blocks of counts, what is summed beside them, what training left over, and a personal model."""

    counts: dict[str, Integers]
    update_P: SignedIntegers | None = None
    left: LeftOver | None = None
    personal: Tensors | None = None


class NeedsModelError(ProtocolError):
    """The site holds another model than the one that the step starts from."""


class Learner:
    """Model and cases of one site; `doing` is told what it does, in words for people."""

    def __init__(self, study: Study, membership: Membership, site: Site, doing: Callable[[str], None]) -> None:
        self.study, self.site, self.doing = study, site, doing
        self.device = choose_device(site, study.deterministic)
        if study.survey:
            self.contract = Contract.of_study(study, membership)
        else:
            network = build_network(study)
            self.contract = Contract.of(study, membership, network)
            self.network = network.to(self.device)
        self.objective = local_objective(self.study.federation)
        self.micro_batch = site.micro_batch
        self._model: Floats32 | None = None
        self._model_hash = ""
        self._data: SiteData | None = None
        self._cases: SiteData | None = None  # `_cases_of` with the maps of frozen branches
        self._cases_of: SiteData | None = None
        self._stamp: tuple[int, ...] = ()
        self.withdrawals: tuple[Withdrawal, ...] = ()  # in effect in what `load_data` gave last

    def receive(self, update: ModelUpdate) -> Floats32:
        """The model that a question is about, from the whole state or by the step, checked by its hash.

        Raises:
            NeedsModelError: the step does not start from the model that is held here, or leads elsewhere.
            ProtocolError: the whole model is not the one that is announced, or is not finite.
        """
        if self._model is not None and update.state_hash == self._model_hash:
            return self._model
        if update.whole is not None:
            model = update.whole.copy()
        elif self._model is not None and update.step is not None:
            step, model, self._model = update.step, self._model, None  # where the step leads elsewhere, no model is held
            self.contract.move_(model, step)
        else:
            raise NeedsModelError("no model is held here")
        found = self.contract.state.hash(model) if model.shape == (self.contract.state.size,) else "of another size"
        if found != update.state_hash:
            if update.whole is None:
                raise NeedsModelError("the step leads to another model")
            raise ProtocolError(f"the received model is {found[:12]}, announced as {update.state_hash[:12]}")
        if not np.isfinite(model).all():
            raise ProtocolError("the received model holds values that are not finite")
        self._model, self._model_hash = model, found
        return model

    def check_weighting(self, weighting: Weighting) -> ClassWeights:
        """ω recomputed from the sums it is said to follow from.

        Raises:
            ProtocolError: they differ.
        """
        weights = class_weights(self.study.class_weighting, weighting.histogram_K, list(weighting.history_R3K))
        if weighting.omega_K.shape != weights.omega_K.shape or np.abs(weighting.omega_K - weights.omega_K).max() > OMEGA_TOLERANCE:
            raise ProtocolError(f"class weights {weighting.omega_K.tolist()} do not follow from their sums")
        return weights

    def load_data(self) -> SiteData:
        """The site's cases, read again when the manifest changed or somebody withdrew.

        Files that are away are waited for, a part of them is never used.

        With masked sums the coordinator waits without end, and hears after a minute why; else as long as its deadline allows, since
        a round goes on without a site, or fails.

        Raises:
            AwayError: they were away for so long.
            DataError, StorageError: see `load_records`.
        """
        return self._waiting(self._read_data)

    def _waiting(self, read: Callable[[], T]) -> T:
        longest_s = self.study.federation.answer_deadline_s / 2
        return wait_for_share(read, min(longest_s, TOLD_AFTER_S) if self.contract.secure else longest_s, self.doing)

    def _read_records(self) -> Records:
        with telling_progress(self.doing) as advance:
            return load_records(self.study, self.site, image_size(self.study.model), advance)

    def _read_data(self) -> SiteData:
        stamp = *manifest_stamp(Path(self.site.manifest)), withdrawals_stamp(self.site)
        if self._data is None or stamp != self._stamp:
            records = self._read_records()
            self._data, self._stamp, self.withdrawals = site_data(self.study, records), stamp, records.withdrawals
            for note in self._data.notes:
                log.log(logging.WARNING if note in records.left_out else logging.INFO, "manifest.csv: %s", note)
            keep_left_out(self.site, records.left_out)
        return self._data

    def count_data(self) -> dict[str, Integers]:
        """The training cases (K,) of each class; cases and images (3, 2) of each split that are used, and that are left out."""
        data = self.load_data()
        classes = data.class_C[data.cases(TRAIN)]
        histogram_K = np.bincount(classes[classes >= 0], minlength=len(self.study.classes)).astype(np.int64)
        return {"histogram": histogram_K, USED[0]: data.count_used(), LEFT_OUT[0]: data.left_out_32}

    def count_survey(self) -> dict[str, Integers]:
        """The tables of a survey, without what this site's policy hides.

        Raises:
            AwayError, DataError, StorageError: as `load_data`.
        """
        records = self._waiting(self._read_records)
        self.withdrawals = records.withdrawals
        return veil(count_survey(self.study, records), self.site.policy.smallest_cell)

    def work(
        self,
        question: Measure | Train | Validate | FinishQuestion,
        model: Floats32,
        weights: ClassWeights,
        before: LeftOver | None,
    ) -> Work:
        """What a question about a model comes to; `before` is what an earlier one left over.

        Raises:
            TrainingError: the model, its loss or its logits are not finite on these cases.
        """
        current = question.header.round
        self._load(model)
        if isinstance(question, Measure):
            self.doing(f"round {current}: measuring normalisation")
            return self._measure()
        self.doing(f"round {current}: evaluating")
        if isinstance(question, Train):
            return self._train(question, model, weights, before)
        if isinstance(question, Validate):
            return Work(self._validate(weights))
        return self._finish(model, weights, question.temperature, before)

    def _load(self, model: Floats32) -> None:
        """Puts the received model into the network."""
        data = self.load_data()
        self.contract.state.write(self.network, model)
        if self._cases_of is not data:
            self._cases_of, self._cases = data, with_frozen_maps(self.network, data, self.study)

    @property
    def _loaded(self) -> SiteData:
        assert self._cases is not None
        return self._cases

    def _train(self, question: Train, model: Floats32, weights: ClassWeights, before: LeftOver | None) -> Work:
        header = question.header
        counts = self._validate(weights)
        kept = before.memory if before else {}
        remembered = Remembered.of(self.objective, self.contract.state, model, kept.get(OBJECTIVE))
        corrections = remembered.corrections(self.network) if remembered else ()
        plan = LocalPlan(self.site.site, header.round, self.objective, number=header.number, corrections=corrections)
        terms = LossTerms.of(self.study, weights, self.device)
        result = self._train_within_memory(plan, terms, model)
        self.network.zero_grad()  # gradients are as large as the model
        num_shared = self.contract.state.num_shared
        update_P = self.contract.state.read(self.network)[:num_shared]
        update_P -= model[:num_shared]
        memory = {OBJECTIVE: remembered.finish(update_P, result.total_rate)} if remembered else {}
        upload = self._quantise(update_P, before, question)
        counts["training"] = _training_counts(result, upload)
        if self.study.federation.personal == "ditto":
            self.doing(f"round {header.round}: training the personal model")
            self.contract.state.write(self.network, model)
            beside = replace(plan, micro_batch=self.micro_batch)
            memory |= train_personal(self.network, self._loaded, self.study, terms, beside, kept)
            self.network.zero_grad()
        return Work(counts, upload.integers_P, LeftOver(upload.residual_P, memory))

    def _train_within_memory(self, plan: LocalPlan, terms: LossTerms, model: Floats32) -> LocalResult:
        """Trains, and begins anew with half the micro batch where the GPU's memory is too small."""
        while True:
            steps = self._count_steps(plan.round)
            try:
                return train_locally(
                    self.network, self._loaded, self.study, terms, replace(plan, micro_batch=self.micro_batch), steps
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
            torch.cuda.empty_cache()

    def _count_steps(self, current_round: int) -> Callable[[], None]:
        """Tells how far training is, at most once for each part in a hundred."""
        steps = num_epoch_steps(num_epoch_images(self._loaded, self.study), self.study.optimiser.batch_size)
        steps *= self.study.federation.local_epochs
        done = itertools.count(1)
        told = -1

        def step() -> None:
            nonlocal told
            share = min(100, 100 * next(done) // max(steps, 1))
            if share != told:
                told = share
                self.doing(f"round {current_round}: training, {share} %")

        return step

    def _quantise(self, update_P: Floats32, before: LeftOver | None, question: Train) -> Quantised:
        header = question.header
        bits = self.contract.bits(header.round)
        scale = Scale(
            segments=self.contract.state.shared,
            sizes=step_sizes(question.ranges, bits, self.contract.num_sites),
            weight_units=self.contract.membership.weight_units[self.site.site],
            largest=self.contract.largest_upload(self.site.site, header.round),
            dtype=integer_type(bits),
        )
        residual_P = np.zeros_like(update_P) if before is None else before.residual_P
        return quantise(update_P, residual_P, scale, fast_generator(self.study.seed, "rounding", self.site.site, header.number))

    def _measure(self) -> Work:
        """The moments of the model's normalisation on some training cases."""
        units = self.contract.membership.weight_units[self.site.site]
        moments = measure_moments(self.network, self._loaded, self.study, self.site.site, num_measured(units))
        return Work({FAILED[0]: np.zeros(1, np.int64)}, self.contract.moments.pack(moments))

    def _validate(self, weights: ClassWeights) -> dict[str, Integers]:
        return count_validation(self.network, self._loaded, self.study, weights)

    def _finish(self, model: Floats32, weights: ClassWeights, temperature: float, before: LeftOver | None) -> Work:
        """Counts of test cases by the model as it is released; beside them, with normalisation statistics of the site's own. After
        them, what stays at the site."""
        self.network.finish_subtype_logits(weights.offset_K, temperature)
        as_released = ClassWeights.finished(weights.adjustment_K / temperature)
        logits_CK, classes_C = labelled_logits(self.network, self._loaded, TEST, self.study)
        counts = count_logits(logits_CK, classes_C, self.study, as_released)
        if PAIRED in self.contract.counts[Kind.FINISH].shapes:
            apply_moments(self.network, measure_moments(self.network, self._loaded, self.study, self.site.site))
            own_CK, _ = labelled_logits(self.network, self._loaded, TEST, self.study)
            counts |= {OWN + name: block for name, block in count_logits(own_CK, classes_C, self.study, as_released).items()}
            released_C, own_C = right_cases(logits_CK, classes_C), right_cases(own_CK, classes_C)
            counts[PAIRED[0]] = np.array([(own_C & ~released_C).sum(), (released_C & ~own_C).sum()], np.int64)
        self._load(model)
        kept = before.memory if before else {}
        if not make_personal(self.network, self._loaded, self.study, weights, self.site.site, self.micro_batch, kept):
            return Work(counts)
        self.network.finish_subtype_logits(weights.offset_K, temperature)
        floats = [name for name, tensor in self.network.state_dict().items() if tensor.is_floating_point()]
        return Work(counts, personal=read_tensors(self.network, floats))

    def nothing(self, kind: Kind, current_round: int, before: LeftOver | None) -> Work:
        """What stands for work that failed: nothing to sum, and what was left over before, unchanged."""
        upload = self.contract.upload(kind, current_round)
        update_P = None if upload is None else np.zeros(upload[1], upload[0])
        left = before or LeftOver(np.zeros(self.contract.state.num_shared, np.float32))
        return Work({}, update_P, left if kind is Kind.TRAIN else None)


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
