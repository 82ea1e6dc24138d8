"""What a grid says: each variant over its seeds, and each comparison. summary.json, and what the tables are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from csasn.errors import ConfigurationError
from csasn.measures.cases import Classes, Floats, measure_names, measures
from csasn.platform.randomness import generator
from server.evidence.cells import Cell
from server.evidence.estimation import Drawing, Estimate, compare, compare_at_equal_rare_recall, estimate, require_same_cases
from server.evidence.grid import Comparison, Grid, Statistics
from server.evidence.predictions import Predictions
from server.evidence.results import Record, Results, prevalence_of

ALL = "all"
AT_EQUAL_RECALL = ("macro_f1", "balanced_accuracy", "benign_specificity", "rare_precision")


@dataclass(frozen=True)
class VariantSummary:
    """A variant scored with one kind of statistics. `support` is the fewest test cases of each class over seeds."""

    variant: str
    statistics: Statistics
    method: str
    seeds: tuple[int, ...]
    support: Mapping[str, int]
    measures: Mapping[str, Estimate]
    saliency: Mapping[str, float]


@dataclass(frozen=True)
class ComparisonSummary:
    """A comparison over the seeds that both variants have; no seed where none is done yet. `at_least` are the grid's bars."""

    of: str
    against: str
    cases: str
    seeds: tuple[int, ...]
    support: Mapping[str, int]
    differences: Mapping[str, Estimate]
    at_least: Mapping[str, float]
    at_equal_rare_recall: Mapping[str, Estimate]


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

    def facts(self) -> dict[str, object]:
        """For JSON."""
        return {
            "grid": self.grid,
            "cells": self.num_cells,
            "done": self.num_done,
            "origins": [dict(zip(("code_version", "data_hash", "device"), origin, strict=True)) for origin in self.origins],
            "prevalence": self.prevalence,
            "intervals": "95 %: over_cases by bootstrap of test cases, each class by itself; over_seeds by Student's t of seeds",
            "variants": [_variant_facts(item) for item in self.variants],
            "comparisons": [_comparison_facts(item) for item in self.comparisons],
        }


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


def summarise(grid: Grid, cells: Sequence[Cell], results: Results, classes: Classes, roster: Sequence[str]) -> Summary:
    """The summary of the cells that are done.

    Raises:
        StorageError: predictions are damaged.
        DataError: two variants were scored on different cases.
    """
    done = {(cell.variant, cell.seed): (cell, record) for cell in cells if (record := results.finished(cell)) is not None}
    held = _Held(grid, results, classes, roster, done)
    records = [record for _, record in done.values()]
    return Summary(
        grid=results.name,
        num_cells=len(cells),
        num_done=len(done),
        origins=tuple(sorted({(record.code_version, record.data_hash, record.device) for record in records})),
        prevalence=grid.prevalence,
        classes=classes,
        variants=tuple(_variants(held, records)),
        comparisons=tuple(_comparison(held, item) for item in grid.comparisons),
    )


class _Held:
    """The predictions of the finished cells, by variant and seed, and their measures under one drawing of all cases of the grid."""

    def __init__(
        self,
        grid: Grid,
        results: Results,
        classes: Classes,
        roster: Sequence[str],
        done: Mapping[tuple[str, int], tuple[Cell, Record]],
    ) -> None:
        self.grid, self.classes, self._roster, self._done = grid, classes, roster, done
        self._predictions = {
            (cell.variant, cell.seed, name): results.predictions_of(cell, name)
            for cell, _ in done.values()
            for name in cell.statistics
        }
        prevalence_K = prevalence_of(classes, grid.prevalence)
        random = generator(0, "bootstrap", results.name)
        self.drawing = Drawing(list(self._predictions.values()), prevalence_K, random) if done else None
        self._measured: dict[tuple[str, int, Statistics, str], dict[str, Floats]] = {}

    def seeds(self, variant: str) -> tuple[int, ...]:
        return tuple(seed for seed in self.grid.seeds if (variant, seed) in self._done)

    def shared_seeds(self, of: str, against: str) -> tuple[int, ...]:
        """Seeds that both have, from the same data."""
        shared = [seed for seed in self.seeds(of) if (against, seed) in self._done]
        return tuple(seed for seed in shared if self._done[of, seed][1].data_hash == self._done[against, seed][1].data_hash)

    def statistics(self, variant: str) -> tuple[Statistics, ...]:
        seeds = self.seeds(variant)
        return self._done[variant, seeds[0]][0].statistics if seeds else ()

    def predictions(self, variant: str, seeds: Sequence[int], statistics: Statistics, cases: str = ALL) -> list[Predictions]:
        found = [self._predictions[variant, seed, statistics] for seed in seeds]
        return found if cases == ALL else [part.of_site(self._roster.index(cases)) for part in found]

    def measured(self, variant: str, seeds: Sequence[int], statistics: Statistics, cases: str = ALL) -> list[dict[str, Floats]]:
        for seed in seeds:
            if (variant, seed, statistics, cases) not in self._measured and self.drawing is not None:
                (part,) = self.predictions(variant, [seed], statistics, cases)
                found = measures(part.cases, self.classes, self.drawing.weights(part))
                self._measured[variant, seed, statistics, cases] = found
        return [self._measured[variant, seed, statistics, cases] for seed in seeds]

    def support(self, predictions: Sequence[Predictions]) -> dict[str, int]:
        num_classes = len(self.classes.names)
        fewest_K = np.min([np.bincount(part.cases.class_N, minlength=num_classes) for part in predictions], axis=0)
        return {name: int(number) for name, number in zip(self.classes.names, fewest_K, strict=True)}


def _variants(held: _Held, records: Sequence[Record]) -> list[VariantSummary]:
    found = []
    for variant in held.grid.variants:
        seeds = held.seeds(variant)
        own = [record for record in records if record.variant == variant]
        for statistics in held.statistics(variant):
            support = held.support(held.predictions(variant, seeds, statistics))
            estimates = estimate(held.measured(variant, seeds, statistics))
            found.append(VariantSummary(variant, statistics, own[0].method, seeds, support, estimates, _saliency(own)))
    return found


def _saliency(records: Sequence[Record]) -> dict[str, float]:
    """Means over the seeds."""
    names = sorted({name for record in records for name in record.saliency})
    known = {name: [value for record in records if (value := record.saliency.get(name)) is not None] for name in names}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _comparison(held: _Held, item: Comparison) -> ComparisonSummary:
    seeds = held.shared_seeds(item.of, item.against)
    if not seeds:
        return ComparisonSummary(item.of, item.against, item.cases, (), {}, {}, item.at_least, {})
    ways = [(name, seeds, _statistics(held, item, name), item.cases) for name in (item.of, item.against)]
    of, against = (held.predictions(*way) for way in ways)
    require_same_cases(of, against, (item.of, item.against))
    differences = compare(*(held.measured(*way) for way in ways))
    equal = {}
    if item.at_equal_rare_recall and held.drawing is not None:
        equal = compare_at_equal_rare_recall(of, against, held.classes, held.drawing)
    return ComparisonSummary(
        of=item.of,
        against=item.against,
        cases=item.cases,
        seeds=seeds,
        support=held.support(of),
        differences={name: differences[name] for name in item.measures},
        at_least=item.at_least,
        at_equal_rare_recall={name: equal[name] for name in AT_EQUAL_RECALL if name in equal},
    )


def _statistics(held: _Held, item: Comparison, variant: str) -> Statistics:
    """Those asked for where the variant was scored with them, else its first."""
    known = held.statistics(variant)
    return item.statistics if item.statistics in known else known[0]


def _variant_facts(item: VariantSummary) -> dict[str, object]:
    return {
        "variant": item.variant, "statistics": item.statistics, "method": item.method, "seeds": list(item.seeds),
        "support": dict(item.support), "saliency": dict(item.saliency),
        "measures": {name: value.facts() for name, value in item.measures.items()},
    }  # fmt: skip


def _comparison_facts(item: ComparisonSummary) -> dict[str, object]:
    return {
        "of": item.of, "against": item.against, "cases": item.cases, "seeds": list(item.seeds), "support": dict(item.support),
        "differences": {name: value.facts() for name, value in item.differences.items()},
        "at_least": dict(item.at_least),
        "at_equal_rare_recall": {name: value.facts() for name, value in item.at_equal_rare_recall.items()},
    }  # fmt: skip
