"""What a rule of the server is: it makes of the mean update, and of what it remembers, the step of a round.

The step is integers, step sizes and a weight, which both sides apply by one function (`apply_step_`): a site needs to know nothing
of the rule. csasn/SPEC.md, "Model as a step", holds the equations. P is the number of values that updates move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from csasn.federated.aggregate import mean_update
from csasn.federated.messages import Step
from csasn.federated.quantise import Floats32, Scale, integer_type, largest_magnitude, largest_sum, quantise
from csasn.model.segments import Segment
from csasn.platform.configuration import Configuration, validate
from csasn.platform.registry import SERVER_RULES, load
from csasn.study import Federation
from csasn.trust.membership import WEIGHT_UNITS

Memory = Mapping[str, Floats32]  # what a rule remembers from round to round, by name; empty before the first
LEFT_OVER = "left-over"  # the name of what quantising the step left over


@dataclass(frozen=True)
class StepForm:
    """How a step is written: places of the tensors, bits of a value, and the generator of stochastic rounding."""

    segments: tuple[Segment, ...]
    bits: int
    random: np.random.Generator


class ServerRule(Configuration):
    """A rule of the server; its fields are the options that a study may give. Most rules define `move` alone.

    What a rule that `follows_sites` remembers is of what sites remember: where they began anew, so does it.
    """

    follows_sites: ClassVar[bool] = False

    def configured(self, federation: Federation) -> Self:
        """This rule with the study's options.

        Raises:
            ConfigurationError: it has no such option, or not with that value.
        """
        return validate(type(self), federation.server_options, "federation.server_options")

    def step(self, summed: Step, memory: Memory, form: StepForm) -> tuple[Step, Memory]:
        """The step of a round, and what the rule remembers after it.

        Args:
            summed: the sum of the updates that arrived, as a step: that to their mean.
            memory: what this gave in the round before.
            form: how to write the step.

        Raises:
            TrainingError: a value is not finite.
        """
        own = {name: array_P for name, array_P in memory.items() if name != LEFT_OVER}
        move_P, after = self.move(mean_update(summed, form.segments), own)
        step, left_over_P = quantise_step(move_P, memory.get(LEFT_OVER, np.zeros_like(move_P)), form)
        return step, {**after, LEFT_OVER: left_over_P}

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """How the model shall move (P,) after a mean update (P,), and what the rule remembers; both are new arrays."""
        raise NotImplementedError


def server_rule(federation: Federation) -> ServerRule:
    """The rule that the study names, with its options.

    Raises:
        ConfigurationError: see `load` and `ServerRule.configured`.
    """
    return load(SERVER_RULES, federation.server_rule, ServerRule).configured(federation)


def quantise_step(move_P: Floats32, left_over_P: Floats32, form: StepForm) -> tuple[Step, Floats32]:
    """The step (integers of the round's bits) nearest to a move and what was left over before, and what it leaves over.

    The step size of each tensor follows from its own largest value, so that nothing is clipped.
    """
    largest = largest_sum(form.bits, 0)
    parts = [slice(segment.start, segment.stop) for segment in form.segments]
    ranges = np.array([largest_magnitude(move_P[part] + left_over_P[part]) for part in parts], np.float64)
    sizes = np.where(ranges > 0, ranges / largest, 1.0)
    scale = Scale(form.segments, sizes, WEIGHT_UNITS, largest, integer_type(form.bits))
    written = quantise(move_P.copy(), left_over_P, scale, form.random)
    return Step(written.integers_P, sizes, WEIGHT_UNITS), written.residual_P
