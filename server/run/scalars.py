"""The figures of a run over its rounds, by names with a group before a stroke, as programs that draw curves take them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from csasn.report.events import Evaluated, Event, Outcome, RoundFinished, Started

NOT_IN_NAMES = re.compile(r"[^-/\w.]")  # of TensorBoard and MLflow; a class may have any name


@dataclass(frozen=True)
class Scalars:
    """Figures by name, and the round that they are of."""

    round: int = 0
    values: Mapping[str, float] = field(default_factory=dict)


def scalars_of(event: Event, classes: Sequence[str]) -> Scalars:
    """The figures that an event tells; none of most."""
    found: dict[str, float | None] = {}
    match event:
        case Started(event="train-started") if event.class_weights:
            found = {f"class-weight/{name}": weight for name, weight in zip(classes, event.class_weights, strict=True)}
        case Evaluated():
            measures = ("loss", "macro_auroc", "balanced_accuracy", "macro_f1")
            found = {f"validation/{name}": getattr(event, name) for name in measures}
            found |= {f"validation-recall/{name}": recall for name, recall in (event.recall or {}).items()}
        case RoundFinished():
            names = ("train_loss", "clipped_share", "seconds", "bytes_up", "bytes_down")
            found = {f"round/{name}": getattr(event, name) for name in names} | {"round/sites": len(event.participants)}
        case Outcome() if event.final:
            measures = ("macro_auroc", "balanced_accuracy", "macro_f1", "malignancy_auroc")
            found = {f"test/{name}": getattr(event.final, name) for name in measures}
            found |= {f"test-recall/{name}": row.recall for name, row in event.final.per_class.items()}
        case _:
            return Scalars()
    return Scalars(event.round, {NOT_IN_NAMES.sub("_", name): float(value) for name, value in found.items() if value is not None})
