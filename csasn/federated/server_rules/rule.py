"""What a rule of the server is: it makes of the mean update, and of what it remembers, the step of a round.

The step is integers, step sizes and a weight, which both sides apply by one function (`apply_step_`): a site needs to know nothing
of the rule. csasn/SPEC.md, "Model as a step", holds the equations. P is the number of values that updates move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from csasn.errors import ConfigurationError
from csasn.federated.aggregate import mean_update
from csasn.federated.messages import Step
from csasn.federated.quantise import Floats32, Scale, integer_type, largest_magnitude, largest_sum, quantise
from csasn.model.segments import Segment
from csasn.platform.configuration import Configuration
from csasn.platform.registry import SERVER_RULES, load
from csasn.study import Federation
from csasn.trust.membership import WEIGHT_UNITS

Memory = Mapping[str, Floats32]  # what a rule remembers from round to round, by name; empty before the first
LEFT_OVER = "left-over"  # the name of what quantising the step left over


@dataclass(frozen=True)
class StepForm:
    """How a step is written: places of the tensors, bits of a value, and the generator of stochastic rounding; `last` of the run
    or not."""

    segments: tuple[Segment, ...]
    bits: int
    random: np.random.Generator
    last: bool = False


class ServerRule(Configuration):
    """A rule of the server: it defines `move` or, where nothing shall be rounded, `step`. Its fields are the options that a study
    may give, `words` what it does.

    What a rule that `follows_sites` remembers is of what sites remember: where they began anew, so does it.
    """

    follows_sites: ClassVar[bool] = False

    words: ClassVar[str] = "a rule that an installed package brings"

    def model_post_init(self, context: object, /) -> None:  # noqa: ARG002 - as pydantic calls it
        """Refuses a rule that does nothing.

        Raises:
            ConfigurationError: it defines neither.
        """
        kind = type(self)
        if kind.move is ServerRule.move and kind.step is ServerRule.step:
            raise ConfigurationError(
                f"the rule {kind.__name__} defines neither move nor step, expected one of them", "see its package"
            )

    def configured(self, federation: Federation) -> Self:
        """This rule with the study's options, which were checked when the study was read."""
        return self.model_validate(dict(self) | federation.server_options)

    def step(self, summed: Step, memory: Memory, form: StepForm) -> tuple[Step, Memory]:
        """The step of a round, and what the rule remembers after it. Running statistics, where they are shared, take their mean:
        they are measured, so that a rule of training has nothing to say on them.

        Args:
            summed: the sum of the updates that arrived, as a step: that to their mean.
            memory: what this gave in the round before.
            form: how to write the step.

        Raises:
            TrainingError: a value is not finite.
        """
        own = {name: array_P for name, array_P in memory.items() if name != LEFT_OVER}
        mean_P = mean_update(summed, form.segments)
        move_P, after = self.move(mean_P, own)
        for part in (segment.part for segment in form.segments if segment.is_statistic):
            move_P[part] = mean_P[part]
        step, left_over_P = quantise_step(move_P, memory.get(LEFT_OVER, np.zeros_like(move_P)), form)
        return step, {**after, LEFT_OVER: left_over_P}

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """How the model shall move (P,) after a mean update (P,), and what the rule remembers; all are new arrays."""
        raise NotImplementedError


def server_rule(federation: Federation) -> ServerRule:
    """The rule that the study names, with its options.

    Raises:
        ConfigurationError: see `load`.
    """
    return load(SERVER_RULES, federation.server_rule, ServerRule).configured(federation)


def in_words(federation: Federation) -> str:
    """The rule that the study names, what it does, and all its options, for people who approve it.

    Raises:
        ConfigurationError: see `load`.
    """
    rule = server_rule(federation)
    options = ", ".join(f"{name} {value}" for name, value in rule)
    return f"{federation.server_rule}: {rule.words}" + (f" ({options})" if options else "")


def quantise_step(move_P: Floats32, left_over_P: Floats32, form: StepForm) -> tuple[Step, Floats32]:
    """The step (integers of the round's bits) nearest to a move and what was left over before, and what it leaves over.

    The step size of each tensor follows from its own largest value, so that nothing is clipped.
    """
    largest = largest_sum(form.bits, 0)
    ranges = np.array([largest_magnitude(move_P[s.part] + left_over_P[s.part]) for s in form.segments], np.float64)
    sizes = np.where(ranges > 0, ranges / largest, 1.0)
    scale = Scale(form.segments, sizes, WEIGHT_UNITS, largest, integer_type(form.bits))
    written = quantise(move_P.copy(), left_over_P, scale, form.random)
    return Step(written.integers_P, sizes, WEIGHT_UNITS), written.residual_P
