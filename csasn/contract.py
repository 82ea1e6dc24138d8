"""What may be in an answer, derived from the study alone: shapes, types, bounds. Whatever differs is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import nn

from csasn.errors import ProtocolError
from csasn.federated.aggregate import check_upload
from csasn.federated.messages import Answer, Kind
from csasn.federated.quantise import largest_upload
from csasn.membership import Membership
from csasn.metrics import Layout, case_layout
from csasn.model.state import StateLayout
from csasn.normalisation import moments_layout
from csasn.study import Study

# counted by a site in training: sum over its one round of (loss in 2^-16, optimiser steps, values clipped, values sent)
TRAINING = ("training", (4,))
SIGNED_BLOCKS = ("moments",)


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
        moments = moments_layout(network).shapes if study.federation.batchnorm == "silo" else ()
        layouts = {
            Kind.HELLO: Layout((("histogram", (len(study.classes),)),)),
            Kind.TRAIN: Layout((*cases, TRAINING)),
            Kind.VALIDATE: Layout(cases),
            Kind.FINISH: Layout((*cases, *moments)),
        }
        return cls(study, membership, StateLayout.of(network, study.federation.batchnorm), layouts)

    @property
    def num_sites(self) -> int:
        """n: the whole membership."""
        return len(self.membership.members)

    def largest_upload(self, site: str) -> int:
        """floor(p L) of a site."""
        return largest_upload(self.study.federation.upload_bits, self.num_sites, self.membership.weight_units[site])

    def check(self, kind: Kind, site: str, answer: Answer) -> None:
        """Refuses an answer that the study does not allow.

        Raises:
            ProtocolError: an update where none belongs or none where one does, a wrong type, size or value, a negative count.
        """
        if (answer.update_P is not None) != (kind is Kind.TRAIN):
            raise ProtocolError(f"the answer to {kind} holds {'an' if answer.update_P is not None else 'no'} update")
        if answer.update_P is not None:
            bits, units = self.study.federation.upload_bits, self.membership.weight_units[site]
            check_upload(answer.update_P, self.state.num_shared, bits, self.num_sites, units)
        blocks = self.counts[kind].unpack(answer.counts)
        if negative := [name for name, block in blocks.items() if name not in SIGNED_BLOCKS and (block < 0).any()]:
            raise ProtocolError(f"counts {negative[0]} are negative")
