"""What a report says before all else: what was found of what, and what it must warn of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from csasn.report.figures import results_of
from csasn.report.marked import Part
from csasn.report.types import Gain, Report, Result

MEANINGS = {  # of classes of thyroid studies
    "PTC": "papillary thyroid carcinoma",
    "FTC": "follicular thyroid carcinoma",
    "MTC": "medullary thyroid carcinoma",
    "ATC": "anaplastic thyroid carcinoma",
}


@dataclass(frozen=True)
class Tile:
    """How many of all cancers, of all benign cases or of the cases of a class were decided to be that; with the places of both."""

    kind: Literal["cancers", "benign", "class"]
    name: str  # of the class
    num_found: int
    num_cases: int
    found: tuple[Part, ...]
    cases: tuple[Part, ...]

    @property
    def level(self) -> str:
        """good, half where more are missed than found, none, or unknown without a case."""
        if not self.num_cases:
            return "unknown"
        return "none" if not self.num_found else "half" if 2 * self.num_found < self.num_cases else "good"


@dataclass(frozen=True)
class Loss:
    """A model of one site alone that is above the federated one by macro AUROC; `gain` is the paired difference, if it is known."""

    name: str
    place: tuple[Part, ...]
    gain: Gain | None

    @property
    def words(self) -> str:
        """Whether that is more than chance."""
        if self.gain is None or self.gain.ci95 is None:
            return "whether that is chance is not known"
        return "more than chance explains" if self.gain.ci95[1] < 0 else "that may be chance"


class Names:
    """Gives a class by its name; the first time with what it stands for, unless the study is about another organ."""

    def __init__(self, report: Report) -> None:
        organ = (report.about or {}).get("organ")
        self._left = dict(MEANINGS) if organ is None or "thyroid" in organ.lower() else {}

    def __call__(self, name: str) -> str:
        """The name as it is to be read here."""
        meaning = self._left.pop(name, None)
        return f"{name} ({meaning})" if meaning else name


def tiles(report: Report) -> list[Tile]:
    """Cancers found and benign cases cleared; then each class that is rare, with fewer test cases than an even share, or was never
    found, unless one of these two says all of it. Every class, where none is known to be malignant."""
    final = report.final
    if final is None:
        return []
    told, rows = [], final.per_class
    both = final.malignancy
    if both:
        place = ("final", "malignancy")
        told = [
            Tile("cancers", "", both.found, both.cancers, (*place, "found"), (*place, "cancers")),
            Tile("benign", "", both.cleared, both.benign, (*place, "cleared"), (*place, "benign")),
        ]
    for c, (name, row) in enumerate(rows.items()):
        places = ("final", "confusion", c, c), ("final", "per_class", name, "support")
        tile = Tile("class", name, final.confusion[c][c], row.support, *places)
        rare = row.support * len(rows) < final.num_cases
        if not both or ((rare or tile.level == "none") and not _is_the_only_one(report, name)):
            told.append(tile)
    return told


def _is_the_only_one(report: Report, name: str) -> bool:
    """Whether no other class is malignant, or no other one benign, as this one is."""
    return sum((other in report.malignant) == (name in report.malignant) for other in report.classes) == 1


def losses(report: Report) -> list[Loss]:
    """The sites whose own model is above the federated one."""
    ours = report.final.macro_auroc if report.final else None
    return [
        Loss(name, place, (result.gains or {}).get("macro_auroc"))
        for name, result, place in alone(report)
        if ours is not None and result.macro_auroc is not None and result.macro_auroc > ours
    ]


def alone(report: Report) -> Sequence[tuple[str, Result, tuple[Part, ...]]]:
    """The model of each site alone: its name, results and place."""
    told = results_of(report).items()
    return [(name, result, place) for name, (result, place) in told if place[0] == "baselines" and name != "pooled"]
