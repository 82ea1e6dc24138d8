"""What may be in an answer, derived from the study alone: shapes, types, bounds. Whatever differs is refused."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from csasn.data.survey_tables import CASES, parts_of, survey_layout, totals
from csasn.errors import ProtocolError
from csasn.federated.aggregate import apply_step_, check_bound
from csasn.federated.messages import Answer, Kind, Moments, Step
from csasn.federated.quantise import Floats32, bits_of_round, integer_type, largest_upload
from csasn.federated.secagg.keys import Roster
from csasn.learning.normalisation import channels_of, has_own_statistics, is_measured, moments_layout, statistics_from
from csasn.learning.objectives.objective import local_objective
from csasn.measures.blocks import Integers, Layout
from csasn.measures.counts import OWN, PAIRED, case_layout
from csasn.measures.temperature import CALIBRATION, UNCHANGED
from csasn.model.network import build_network
from csasn.model.state import StateLayout
from csasn.study import Study
from csasn.trust.membership import Membership

# counted by a site in training: sum over its one round of (loss in 2^-16, optimiser steps, values clipped, values sent)
TRAINING = ("training", (4,))
MAX_COUNT = 1 << 53  # of a sum: masks that do not cancel leave more
# of each split: cases and images in use, and those left out since no image, or it, can be read
USED, LEFT_OUT = ("used", (3, 2)), ("left_out", (3, 2))
WITHDRAWN = ("withdrawn", (1,))  # patients who withdrew after cases were counted first
FAILED = ("failed", (1,))  # 1 of a site that could not do what was asked; all else of it is 0 then, or noise that is masked


@dataclass(frozen=True)
class Contract:
    """The study, its membership, the places of the model's tensors, and the count vector of each kind of question that it asks."""

    study: Study
    membership: Membership
    state: StateLayout
    counts: Mapping[Kind, Layout]
    moments: Layout  # what is summed to measure a model, besides counts; empty where no model is measured
    channels: tuple[tuple[str, int], ...]  # of the normalisation layers: what `moments` are of

    @classmethod
    def of_study(cls, study: Study, membership: Membership) -> Self:
        """The contract of a study, from the shapes of its network alone."""
        with torch.device("meta"):
            return cls.of(study, membership, build_network(study))

    @classmethod
    def of(cls, study: Study, membership: Membership, network: nn.Module) -> Self:
        """The contract of a study; `network` gives the shapes, whatever its weights.

        Raises:
            ConfigurationError: see `LocalObjective.check`.
        """
        objective = local_objective(study.federation)
        objective.check(study)
        cases = case_layout(len(study.classes), 0 < len(study.malignant) < len(study.classes)).shapes
        own = [(OWN + name, shape) for name, shape in cases] + [PAIRED] if has_own_statistics(study, network) else []
        validation = (*cases, CALIBRATION) if study.calibration == "temperature" else cases
        layouts = {
            Kind.HELLO: Layout((("histogram", (len(study.classes),)), USED, LEFT_OUT, FAILED)),
            Kind.TRAIN: Layout((*validation, TRAINING, FAILED)),
            Kind.VALIDATE: Layout((*validation, FAILED)),
            Kind.FINISH: Layout((*cases, *own, WITHDRAWN, FAILED)),
        }
        moments = Layout(())
        if is_measured(study, network):
            moments, layouts[Kind.MEASURE] = moments_layout(network), Layout((FAILED,))
        if study.survey:
            layouts = {Kind.SURVEY: Layout((*survey_layout(study).shapes, FAILED))}
        state = StateLayout.of(network, study.federation.batchnorm, controls=objective.controls)
        return cls(study, membership, state, layouts, moments, channels_of(network))

    @property
    def num_sites(self) -> int:
        """n: the whole membership."""
        return len(self.membership.members)

    def bits(self, current_round: int) -> int:
        """Bits of a value of an update in a round."""
        return bits_of_round(self.study.federation.upload_bits, current_round)

    @property
    def secure(self) -> bool:
        """Whether what leaves a site is masked."""
        return self.study.federation.secure_aggregation

    @property
    def roster(self) -> Roster:
        """The sites with their identities."""
        return Roster({member.site: member.identity or "" for member in self.membership.members})

    def pack(self, kind: Kind, blocks: Mapping[str, Integers]) -> Integers:
        """The count vector of an answer; of work that failed, without blocks, zeros but for the mark of it."""
        layout = self.counts[kind]
        given = blocks or {name: np.zeros(shape, np.int64) for name, shape in layout.shapes}
        return layout.pack({**given, FAILED[0]: np.array([not blocks], np.int64)})

    def noise(self, kind: Kind, current_round: int) -> Answer:
        """What is summed where work failed: numbers from the operating system, but for the mark of it. The sum says how many
        failed, and nothing else."""
        counts = np.frombuffer(bytearray(os.urandom(8 * self.counts[kind].size)), np.int64)
        self.counts[kind].unpack(counts)[FAILED[0]][0] = 1
        upload = self.upload(kind, current_round)
        if upload is None:
            return Answer(counts)
        dtype, size = upload
        return Answer(counts, np.frombuffer(bytearray(os.urandom(dtype.itemsize * size)), dtype))

    def largest_upload(self, site: str, current_round: int) -> int:
        """floor(p L) of a site in a round."""
        return largest_upload(self.bits(current_round), self.num_sites, self.membership.weight_units[site])

    def upload(self, kind: Kind, current_round: int) -> tuple[np.dtype[np.signedinteger], int] | None:
        """Type and number of values of what is summed beside counts, None where there is nothing."""
        if kind is Kind.TRAIN:
            return integer_type(self.bits(current_round)), self.state.num_shared
        return (np.dtype("<i8"), self.moments.size) if kind is Kind.MEASURE else None

    def move_(self, model: Floats32, move: Step | Moments) -> None:
        """Moves a model (P + Q,) in place, by a step or to the statistics that its moments give; the same at all sides.

        Raises:
            ProtocolError: the moments are none.
        """
        if isinstance(move, Step):
            apply_step_(model, move, self.state.shared)
        elif not self.moments.shapes:
            raise ProtocolError("moments of normalisation came, and no model of this study is measured")
        else:
            self.state.put(model, statistics_from(self.moments.unpack(move.sum_M), self.channels))

    def check(self, kind: Kind, site: str, current_round: int, answer: Answer) -> None:
        """Refuses an answer that the study does not allow; of one that is masked nothing but its form can be told.

        Raises:
            ProtocolError: an update where none belongs or none where one does, a wrong type, size or value, a negative count, a
                sealing where the study has none or none where it has.
        """
        if (answer.sealing is not None) != self.secure:
            raise ProtocolError(f"the answer to {kind} is {'sealed' if answer.sealing else 'not sealed'}, unlike the study")
        self._check_form(kind, current_round, answer)
        if not self.secure:
            self.check_values(kind, site, current_round, answer)

    def _check_form(self, kind: Kind, current_round: int, answer: Answer) -> None:
        expected, update_P = self.upload(kind, current_round), answer.update_P
        if (update_P is None) != (expected is None):
            raise ProtocolError(f"the answer to {kind} holds {'no' if update_P is None else 'an'} update")
        if update_P is not None and expected is not None and (update_P.dtype, update_P.shape) != (expected[0], (expected[1],)):
            raise ProtocolError(
                f"the update has shape {update_P.shape} of {update_P.dtype}, expected ({expected[1]},) of {expected[0]}"
            )
        self.counts[kind].unpack(answer.counts)

    def check_values(self, kind: Kind, site: str, current_round: int, answer: Answer) -> None:
        """Refuses values that the study does not allow, before they are masked.

        Raises:
            ProtocolError: an update beyond floor(p L), or a negative count.
        """
        if kind is Kind.TRAIN and answer.update_P is not None:
            check_bound(answer.update_P, self.largest_upload(site, current_round))
        blocks = self.counts[kind].unpack(answer.counts)
        if negative := [name for name, block in blocks.items() if (block < 0).any()]:
            raise ProtocolError(f"counts {negative[0]} are negative")

    def check_sums(self, kind: Kind, num_sites: int, counts: Integers) -> None:
        """Refuses summed counts that no honest sites have: a lie within these bounds passes.

        Raises:
            ProtocolError: a count is negative or beyond 2^53, cases, images, score histograms or the values sent are not as many as
                they must be, more values were clipped than sent, more cases are in a table than there are, or more sites hid them.
        """
        blocks = self.counts[kind].unpack(counts)
        failed = int(blocks[FAILED[0]][0])
        if 0 < failed <= num_sites:
            return  # of work that failed all else is noise
        if failed or (counts < 0).any() or (counts > MAX_COUNT).any():
            raise ProtocolError(f"the summed counts of {kind} are no counts")
        if kind is Kind.HELLO:
            cases_3, images_3 = blocks[USED[0]].T
            if blocks["histogram"].sum() > cases_3[0] or (images_3 < cases_3).any():
                raise ProtocolError("the summed histogram of hello is of other cases than those that sites say they use")
        if kind is Kind.SURVEY:
            _check_survey(blocks, num_sites)
        if "confusion" in blocks:
            cases_K = blocks["confusion"].sum(axis=1)
            sides_K2 = blocks["scores"].sum(axis=2)
            if not np.array_equal(sides_K2, np.stack([cases_K.sum() - cases_K, cases_K], axis=1)):
                raise ProtocolError(f"the summed scores of {kind} are of other cases than the confusion")
            if CALIBRATION[0] in blocks and blocks[CALIBRATION[0]][UNCHANGED] != blocks["loss"][0]:
                raise ProtocolError(f"the summed losses of {kind} are others where their temperature is 1")
            if PAIRED[0] in blocks and not _are_paired(blocks):
                raise ProtocolError(f"the summed cases of {kind} are others with statistics of the sites' own")
        if kind is Kind.TRAIN:
            _, _, clipped, sent = blocks["training"]
            if sent != num_sites * self.state.num_shared or clipped > sent:
                raise ProtocolError(f"{num_sites} sites say that they sent {sent} values, {clipped} of them clipped")


def _are_paired(blocks: Mapping[str, Integers]) -> bool:
    """Whether both confusions are of the same cases, and differ by as many right ones as the pairs say."""
    released_KK, own_KK = blocks["confusion"], blocks[OWN + "confusion"]
    more, fewer = blocks[PAIRED[0]].tolist()
    same = np.array_equal(released_KK.sum(axis=1), own_KK.sum(axis=1))
    return same and int(own_KK.trace() - released_KK.trace()) == more - fewer


def _check_survey(blocks: Mapping[str, Integers], num_sites: int) -> None:
    """No table holds more cases than there are, no cell is hidden by more sites.

    Raises:
        ProtocolError: one does, or is.
    """
    tables, marks = parts_of(blocks)
    if max(totals(tables)) > tables[CASES][0] or any((block > num_sites).any() for block in marks.values()):
        raise ProtocolError(f"the summed tables of the survey are not of {num_sites} sites with the same cases in each")
