"""The grid file: which variants of a study are trained, over which seeds, and what is compared with what."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from csasn.platform.configuration import Configuration, read_yaml, validate
from csasn.recipe import Positive
from csasn.study import Label, Name

POOLED = "pooled"
OWN_KEYS = ("central", "leave_out", "decided_from")
Statistics = Literal["own", "released"]


class Variant(Configuration):
    """One line of the grid. Keys of the study, such as `federation.proximal_mu`, are changes to it.

    `central` trains without a federation, on the cases of one site or of all (`pooled`), for as many optimiser steps as the whole
    federation takes; `leave_out` federates without a site, and is scored on that site's cases. `decided_from` trains nothing: it
    takes another variant's predictions, and decides by class weights that need no rounds.
    """

    central: Name | None = None
    leave_out: Name | None = None
    decided_from: Name | None = None
    changes: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_changes(cls, data: object) -> object:
        """Keys that are not this line's own are the study's."""
        if not isinstance(data, dict):
            return data
        changes = {key: value for key, value in data.items() if key not in OWN_KEYS}
        return {key: value for key, value in data.items() if key in OWN_KEYS} | ({"changes": changes} if changes else {})

    @model_validator(mode="after")
    def _one_way_to_train(self) -> Self:
        if self.central and self.leave_out:
            raise ValueError("central and leave_out together: training without a federation leaves no site out of one")
        if self.decided_from and (self.central or self.leave_out):
            raise ValueError("decided_from with central or leave_out: how it is trained, the other variant says")
        return self


class Comparison(Configuration):
    """The difference of two variants on the same test cases; `metrics` are names of measures (csasn/measures/cases.py).

    `at_least` are bars set beforehand: what the mean difference in a measure has to reach. `cases` are those of all sites or of
    one. `at_equal_rare_recall` also compares `of` with `against` after a shift of the rare
    classes' logits that gives it the same rare recall.
    """

    of: Name
    against: Name
    metrics: tuple[str, ...] = ("macro_auroc", "balanced_accuracy", "macro_f1")
    at_least: dict[str, float] = Field(default_factory=dict)
    cases: Name = "all"
    at_equal_rare_recall: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """Those to compare, each once."""
        return tuple(dict.fromkeys((*self.metrics, *self.at_least)))


class Grid(Configuration):
    """GRID.yaml. Paths are relative to it.

    Args:
        study: the study that variants change.
        sites: folder of site files; sites/ beside the study unless named.
        phantom: folder of the phantom, where saliency inside nodules is measured.
        seeds: each variant is trained with each.
        prevalence: share of each class to which test cases are weighted; as they are found unless given.
        rare: classes of "rare recall", the mean of theirs, and "rare precision", the share of decisions for them that are right.
        statistics: of normalisation with which models are scored: those released with the model, as in the report; or each site's
            own where it took part in a federation that measures statistics.
        changes: to the study, for all variants.
        variants: by name, one line each.
        comparisons: of variants.
    """

    study: str
    sites: str | None = None
    phantom: str | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(min_length=1, max_length=100)
    prevalence: dict[Label, Positive] | None = None
    rare: tuple[Label, ...] = ()
    statistics: Statistics = "released"
    changes: dict[str, JsonValue] = Field(default_factory=dict)
    variants: dict[Name, Variant] = Field(min_length=1, max_length=200)
    comparisons: tuple[Comparison, ...] = ()

    @property
    def sites_folder(self) -> Path:
        """Where the site files are."""
        return Path(self.sites) if self.sites else Path(self.study).parent / "sites"

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} names a seed twice")
        named = {name for comparison in self.comparisons for name in (comparison.of, comparison.against)}
        if unknown := sorted(named - set(self.variants)):
            raise ValueError(f"comparisons name {', '.join(unknown)}, expected names of variants")
        trained = {name for name, variant in self.variants.items() if not variant.decided_from}
        if unknown := sorted({variant.decided_from for variant in self.variants.values() if variant.decided_from} - trained):
            raise ValueError(f"decided_from names {', '.join(unknown)}, expected variants that are trained")
        return self


def read_grid(path: Path) -> Grid:
    """The grid in `path`, its paths made absolute.

    Raises:
        ConfigurationError: see `csasn.platform.configuration`.
    """
    grid = validate(Grid, read_yaml(path), path.name)
    folder = path.resolve().parent
    named = {key: getattr(grid, key) for key in ("study", "sites", "phantom")}
    return grid.model_copy(update={key: str(folder / value) for key, value in named.items() if value})
