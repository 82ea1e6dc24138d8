"""The cells of a grid: one variant with one seed, its study, how it is trained; on what cells work, and what comes of one."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from csasn.errors import ConfigurationError
from csasn.model.settling import settle
from csasn.site import Site
from csasn.study import Study, read_study
from server.evidence.grid import POOLED, Grid, Statistics, Variant
from server.evidence.predictions import Predictions


@dataclass(frozen=True)
class Cell:
    """One training: `trained_on` names sites of a central one, none of a federation; the test cases of `scored_on` are scored.

    With `decided_from` the training is that variant's.
    """

    variant: str
    seed: int
    study: Study
    trained_on: tuple[str, ...]
    scored_on: tuple[str, ...]
    statistics: Statistics
    decided_from: str | None = None

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.variant}-{self.seed}"

    @property
    def method(self) -> str:
        """How it is trained and scored, in words."""
        if self.decided_from:
            return f"decided from {self.decided_from}"
        sites = self.study.federation.sites
        if self.trained_on:
            return POOLED if self.trained_on == sites else f"{'+'.join(self.trained_on)} alone"
        return "federated" if set(self.scored_on) == set(sites) else f"federated without {'+'.join(self.scored_on)}, scored on it"


@dataclass(frozen=True)
class Workshop:
    """Where and on what cells run: `sites` are those of the grid's study, and say the device.

    `phantom` is the folder of a phantom whose nodules saliency is compared with.
    """

    folder: Path
    sites: Mapping[str, Site]
    phantom: str | None

    @property
    def device(self) -> str:
        """Where models are trained, cpu or cuda."""
        return next(iter(self.sites.values())).device


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: predictions, the device in words, the seconds of training, and what else a record says."""

    predictions: Predictions
    device: str
    seconds: float
    clipped_share: float | None
    saliency: Mapping[str, float | None]


def cells_of(grid: Grid, only: Collection[str] = (), seeds: Collection[int] = ()) -> tuple[Cell, ...]:
    """Cells seed by seed, so that every variant has a result early; `only` some variants or seeds.

    Raises:
        ConfigurationError: an unknown variant or seed is asked for, or a variant is no possible study.
    """
    for kind, asked, known in (("variant", only, tuple(grid.variants)), ("seed", seeds, grid.seeds)):
        if unknown := [value for value in asked if value not in known]:
            choice = ", ".join(map(str, known))
            raise ConfigurationError(f"the grid has no {kind} {unknown[0]}", f"choose among {choice}")
    roster = base_study(grid).federation.sites
    return tuple(
        _cell(grid, roster, name, variant, seed)
        for seed in grid.seeds
        if not seeds or seed in seeds
        for name, variant in grid.variants.items()
        if not only or name in only
    )


def base_study(grid: Grid) -> Study:
    """The study that variants change, with the changes that all share.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return settle(read_study(Path(grid.study), _settings(grid.changes)))


def _cell(grid: Grid, roster: tuple[str, ...], name: str, variant: Variant, seed: int) -> Cell:
    trained = grid.variants[variant.decided_from] if variant.decided_from else variant
    changes: dict[str, JsonValue] = {**grid.changes, **trained.changes, **variant.changes, "seed": seed}
    try:
        sites = read_study(Path(grid.study), _settings(changes)).federation.sites
        known = {*sites, trained.central, trained.leave_out} - {None, POOLED}
        if unknown := sorted(str(site) for site in known if site not in roster):
            raise ConfigurationError(f"{unknown[0]} is no site of the study", f"choose among {', '.join(roster)}")
        if trained.leave_out:
            changes["federation.sites"] = [site for site in sites if site != trained.leave_out]
        study = settle(read_study(Path(grid.study), _settings(changes)))
        if variant.decided_from:
            _require_same_training(study, _cell(grid, roster, variant.decided_from, trained, seed).study)
    except ConfigurationError as error:
        raise ConfigurationError(f"variant {name}: {error.message}", error.hint) from error
    trained_on = () if trained.central is None else sites if trained.central == POOLED else (trained.central,)
    own_possible = not trained_on and not trained.leave_out and study.federation.measures
    return Cell(
        variant=name,
        seed=seed,
        study=study,
        trained_on=trained_on,
        scored_on=(trained.leave_out,) if trained.leave_out else sites,
        statistics=grid.statistics if own_possible else "released",
        decided_from=variant.decided_from,
    )


def _require_same_training(study: Study, trained: Study) -> None:
    """Class weights on the decision change nothing in training; only dynamic ones follow from rounds of their own."""
    weighting = study.class_weighting
    if study != trained.model_copy(update={"class_weighting": weighting}):
        raise ConfigurationError("decided_from with other changes than of class_weighting", "these would have to be trained")
    if study.calibration == "temperature":
        raise ConfigurationError(
            "decided_from where the study calibrates", "what divides the logits is not kept with predictions: set calibration none"
        )
    if not weighting.acts_on == trained.class_weighting.acts_on == "decision" or weighting.mode == "dynamic":
        raise ConfigurationError(
            f"class_weighting {weighting.mode} on the {weighting.acts_on} cannot be decided from the other variant",
            "both act on the decision, and this one's mode is static, balanced or none; others have to be trained",
        )


def _settings(changes: Mapping[str, JsonValue]) -> tuple[str, ...]:
    return tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
