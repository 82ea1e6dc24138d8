"""What a grid says: each variant over its seeds, and each comparison; the tables and the picture are made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from csasn.errors import ConfigurationError
from csasn.measures.cases import Classes, Floats, measure_names, measures
from csasn.platform.randomness import generator
from server.evidence.cells import Cell
from server.evidence.estimation import Drawing, Estimate, compare, compare_at_equal_rare_recall, estimate, require_same_cases
from server.evidence.grid import Comparison, Grid, Statistics
from server.evidence.predictions import Predictions
from server.evidence.results import Record, Results

ALL = "all"
AT_EQUAL_RECALL = ("macro_f1", "balanced_accuracy", "benign_specificity", "rare_precision")


@dataclass(frozen=True)
class VariantSummary:
    """A variant over its seeds. `support` is the fewest test cases of each class over seeds."""

    variant: str
    statistics: Statistics
    seeds: tuple[int, ...]
    support: Mapping[str, int]
    measures: Mapping[str, Estimate]
    saliency: Mapping[str, float]


@dataclass(frozen=True)
class ComparisonSummary:
    """What was `asked` to be compared, over the seeds that both variants have; no seed where none is done yet."""

    asked: Comparison
    seeds: tuple[int, ...] = ()
    support: Mapping[str, int] = field(default_factory=dict)
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    at_equal_rare_recall: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """All that a grid has found so far."""

    grid: str
    num_cells: int
    num_done: int
    origins: tuple[tuple[str, str, str], ...]  # code version, hash of the data, device; more than one is worth a look
    prevalence: Mapping[str, float] | None
    classes: Classes
    variants: tuple[VariantSummary, ...]
    comparisons: tuple[ComparisonSummary, ...]


def check_comparisons(grid: Grid, cells: Sequence[Cell], classes: Classes, sites: Sequence[str]) -> None:
    """Refuses, before anything is trained, what could not be compared.

    Raises:
        ConfigurationError: an unknown measure or site, variants that are scored on different sites, or a comparison at equal rare
            recall where no class is rare.
    """
    known, scored_on = measure_names(classes), {cell.variant: set(cell.scored_on) for cell in cells}
    for item in grid.comparisons:
        if unknown := [name for name in item.measures if name not in known]:
            raise ConfigurationError(f"comparisons name the measure {unknown[0]}", f"choose among {', '.join(known)}")
        if item.cases not in (ALL, *sites):
            raise ConfigurationError(f"comparisons name the cases of {item.cases}", f"choose among all, {', '.join(sites)}")
        of, against = scored_on[item.of], scored_on[item.against]
        if of != against if item.cases == ALL else item.cases not in of & against:
            raise ConfigurationError(
                f"{item.of} and {item.against} are scored on other cases than {item.cases}", "name a site that both are scored on"
            )
        if item.at_equal_rare_recall and not classes.rare:
            raise ConfigurationError("at_equal_rare_recall without rare classes", "name them under rare")


def summarise(grid: Grid, cells: Sequence[Cell], results: Results, roster: Sequence[str]) -> Summary:
    """The summary of the cells that are done.

    Raises:
        DataError: two variants were scored on different cases.
    """
    held = _Held(cells, results, roster)
    records = list(held.records.values())
    return Summary(
        grid=results.name,
        num_cells=len(cells),
        num_done=len(records),
        origins=tuple(sorted({(record.code_version, record.data_hash, record.device) for record in records})),
        prevalence=grid.prevalence,
        classes=results.classes,
        variants=tuple(_variant(held, name) for name in grid.variants if held.seeds(name)),
        comparisons=tuple(_comparison(held, asked) for asked in grid.comparisons),
    )


class _Held:
    """Records and predictions of the finished cells, by variant and seed, and measures under one drawing of all their cases."""

    def __init__(self, cells: Sequence[Cell], results: Results, roster: Sequence[str]) -> None:
        self.classes, self._roster = results.classes, roster
        done = [(cell, record) for cell in cells if (record := results.finished(cell))]
        self.records = {(cell.variant, cell.seed): record for cell, record in done}
        self._predictions = {(cell.variant, cell.seed): results.predictions_of(cell) for cell, _ in done}
        random = generator(0, "bootstrap", results.name)
        self.drawing = Drawing(list(self._predictions.values()), results.prevalence_K, random) if done else None
        self._measured: dict[tuple[str, int, str], dict[str, Floats]] = {}

    def seeds(self, variant: str) -> tuple[int, ...]:
        return tuple(seed for name, seed in self.records if name == variant)

    def shared_seeds(self, asked: Comparison) -> tuple[int, ...]:
        """Seeds that both variants have, from the same data."""
        shared = [seed for seed in self.seeds(asked.of) if seed in self.seeds(asked.against)]
        pairs = {seed: (self.records[asked.of, seed], self.records[asked.against, seed]) for seed in shared}
        return tuple(seed for seed, (of, against) in pairs.items() if of.data_hash == against.data_hash)

    def predictions(self, variant: str, seeds: Sequence[int], cases: str = ALL) -> list[Predictions]:
        """One of each seed, for all cases or those of a site."""
        found = [self._predictions[variant, seed] for seed in seeds]
        return found if cases == ALL else [part.of_site(self._roster.index(cases)) for part in found]

    def measured(self, variant: str, seeds: Sequence[int], cases: str = ALL) -> list[dict[str, Floats]]:
        """Measures of each seed, (1 + B,) each; worked out once, though several comparisons ask."""
        assert self.drawing is not None
        for seed in seeds:
            if (variant, seed, cases) not in self._measured:
                (part,) = self.predictions(variant, [seed], cases)
                self._measured[variant, seed, cases] = measures(part.cases, self.classes, self.drawing.weights(part))
        return [self._measured[variant, seed, cases] for seed in seeds]

    def support(self, predictions: Sequence[Predictions]) -> dict[str, int]:
        num_classes = len(self.classes.names)
        fewest_K = np.min([np.bincount(part.cases.class_N, minlength=num_classes) for part in predictions], axis=0)
        return {name: int(number) for name, number in zip(self.classes.names, fewest_K, strict=True)}


def _variant(held: _Held, variant: str) -> VariantSummary:
    seeds = held.seeds(variant)
    records = [held.records[variant, seed] for seed in seeds]
    return VariantSummary(
        variant=variant,
        statistics=records[0].statistics,
        seeds=seeds,
        support=held.support(held.predictions(variant, seeds)),
        measures=estimate(held.measured(variant, seeds)),
        saliency=_saliency(records),
    )


def _saliency(records: Sequence[Record]) -> dict[str, float]:
    """Means over the seeds."""
    names = sorted({name for record in records for name in record.saliency})
    known = {name: [value for record in records if (value := record.saliency.get(name)) is not None] for name in names}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _comparison(held: _Held, asked: Comparison) -> ComparisonSummary:
    seeds = held.shared_seeds(asked)
    if not seeds or held.drawing is None:
        return ComparisonSummary(asked)
    names = asked.of, asked.against
    of, against = (held.predictions(name, seeds, asked.cases) for name in names)
    require_same_cases(of, against, names)
    differences = compare(*(held.measured(name, seeds, asked.cases) for name in names))
    equal = compare_at_equal_rare_recall(of, against, held.classes, held.drawing) if asked.at_equal_rare_recall else {}
    return ComparisonSummary(
        asked=asked,
        seeds=seeds,
        support=held.support(of),
        differences={name: differences[name] for name in asked.measures},
        at_equal_rare_recall={name: equal[name] for name in AT_EQUAL_RECALL if name in equal},
    )
