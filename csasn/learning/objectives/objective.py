"""What a local objective is: a term that a site adds to the loss of its cases, by its gradient."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from csasn.platform.configuration import Configuration, validate
from csasn.platform.registry import LOCAL_OBJECTIVES, load
from csasn.study import Federation


class LocalObjective(Configuration):
    """A local objective; its fields are the options that a study may give. This one adds nothing."""

    def configured(self, federation: Federation) -> Self:
        """This objective with the study's options.

        Raises:
            ConfigurationError: it has no such option, or not with that value.
        """
        return validate(type(self), federation.local_options, "federation.local_options")

    def add_gradient(self, parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        """Adds the term's gradient to that of each trainable parameter, before each step of the optimiser; `received` are their
        values in the model that the site received. A parameter without a label in the batch has no gradient."""


def local_objective(federation: Federation) -> LocalObjective:
    """The objective that the study names, with its options.

    Raises:
        ConfigurationError: see `load` and `LocalObjective.configured`.
    """
    return load(LOCAL_OBJECTIVES, federation.local_objective, LocalObjective).configured(federation)
