"""What may be in an answer, derived from the study alone: shapes, types, bounds. Whatever differs is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import nn

from csasn.errors import ProtocolError
from csasn.federated.aggregate import check_upload
from csasn.federated.messages import Answer, Kind
from csasn.federated.quantise import bits_of_round, largest_upload
from csasn.membership import Membership
from csasn.metrics import Layout, case_layout
from csasn.model.state import StateLayout
from csasn.normalisation import MEASURED_MODES, affine_layout, moments_layout
from csasn.study import Study

# counted by a site in training: sum over its one round of (loss in 2^-16, optimiser steps, values clipped, values sent)
TRAINING = ("training", (4,))
SIGNED_BLOCKS = ("moments", "affine")


@dataclass(frozen=True)
class Contract:
    """The study, its membership, the places of the model's tensors, and the count vector of each kind of answer."""

    study: Study
    membership: Membership
    state: StateLayout
    counts: Mapping[Kind, Layout]

    @classmethod
    def of(cls, study: Study, membership: Membership, network: nn.Module) -> Self:
        """The contract of a study; `network` gives the shapes, whatever its weights."""
        cases = case_layout(len(study.classes), 0 < len(study.malignant) < len(study.classes)).shapes
        mode = study.federation.batchnorm
        moments = moments_layout(network).shapes if mode in MEASURED_MODES else ()
        affine = affine_layout(network).shapes if mode == "fedbn" else ()
        layouts = {
            Kind.HELLO: Layout((("histogram", (len(study.classes),)),)),
            Kind.TRAIN: Layout((*cases, TRAINING)),
            Kind.VALIDATE: Layout(cases),
            Kind.FINISH: Layout((*cases, *moments, *affine)),
        }
        return cls(study, membership, StateLayout.of(network, mode), layouts)

    @property
    def num_sites(self) -> int:
        """n: the whole membership."""
        return len(self.membership.members)

    def bits(self, current_round: int) -> int:
        """Bits of a value of an update in a round."""
        return bits_of_round(self.study.federation.upload_bits, current_round)

    def largest_upload(self, site: str, current_round: int) -> int:
        """floor(p L) of a site in a round."""
        return largest_upload(self.bits(current_round), self.num_sites, self.membership.weight_units[site])

    def check(self, kind: Kind, site: str, current_round: int, answer: Answer) -> None:
        """Refuses an answer that the study does not allow.

        Raises:
            ProtocolError: an update where none belongs or none where one does, a wrong type, size or value, a negative count.
        """
        if (answer.update_P is not None) != (kind is Kind.TRAIN):
            raise ProtocolError(f"the answer to {kind} holds {'an' if answer.update_P is not None else 'no'} update")
        if answer.update_P is not None:
            units = self.membership.weight_units[site]
            check_upload(answer.update_P, self.state.num_shared, self.bits(current_round), self.num_sites, units)
        blocks = self.counts[kind].unpack(answer.counts)
        if negative := [name for name, block in blocks.items() if name not in SIGNED_BLOCKS and (block < 0).any()]:
            raise ProtocolError(f"counts {negative[0]} are negative")
