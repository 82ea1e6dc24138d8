"""What phantom to draw: sites, class mixes, sizes; and which class each case number has."""

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from csasn.data.split import SPLITS
from csasn.errors import ConfigurationError
from csasn.phantom.nodule import CLASSES
from csasn.phantom.scanner import SCANNERS, Scanner
from csasn.platform.randomness import generator

VERSION = 1  # raise it with any change of a drawn bit


@dataclass(frozen=True)
class SiteMix:
    """A site of `SCANNERS`, and its cases: shares of the classes in the order of `CLASSES`, where the study splits the cases, or
    numbers of cases by split and class, where the manifest shall name the splits. 0 makes a site that never sees the class.
    """

    site: str
    shares: tuple[float, ...] = ()
    splits: tuple[tuple[int, ...], ...] = ()  # train, validation, test

    @property
    def num_cases(self) -> int:
        """Number of cases that `splits` names, 0 where there are shares."""
        return sum(map(sum, self.splits))


DEFAULT_MIXES = (
    SiteMix("centerA", (0.48, 0.32, 0.10, 0.10)),
    SiteMix("centerB", (0.32, 0.48, 0.08, 0.12)),
    SiteMix("centerC", (0.56, 0.30, 0.14, 0.00)),
    SiteMix("centerD", (0.42, 0.32, 0.10, 0.16)),
)
DICOM_SITES = ("centerA", "centerB")
STUDY = "study.yaml"


@dataclass(frozen=True)
class PhantomSettings:
    """`num_cases` of each site whose mix is of shares, pictures of `image_px` a side, DICOM files at `dicom_sites`, the packaged
    study file to lay beside them, `num_workers` processes (0: every core), and whether a phantom of other settings may be replaced.
    The last two do not decide what is drawn.

    Raises:
        ConfigurationError: a number out of range, an unknown or repeated site, or shares that do not add up to 1.
    """

    seed: int = 1
    num_cases: int = 240
    image_px: int = 192
    mixes: tuple[SiteMix, ...] = DEFAULT_MIXES
    dicom_sites: tuple[str, ...] = DICOM_SITES
    study: str = STUDY
    num_workers: int = field(default=0, compare=False)
    replace: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for key, value, low, high in (
            ("seed", self.seed, 0, 2**31 - 1),
            ("num_cases", self.num_cases, 1, 9999),
            ("image_px", self.image_px, 48, 512),
            ("num_workers", self.num_workers, 0, 256),
        ):
            if not low <= value <= high:
                raise ConfigurationError(f"phantom: {key} is {value}, expected {low} to {high}", f"choose another {key}")
        sites = [mix.site for mix in self.mixes]
        if not sites or len(set(sites)) < len(sites) or not set(sites) <= set(SCANNERS):
            raise ConfigurationError(
                f"phantom: sites are {sites}, expected different ones of {list(SCANNERS)}", "name each site once"
            )
        for mix in self.mixes:
            _check_mix(mix)

    @property
    def workers(self) -> int:
        """Number of processes that draw."""
        return self.num_workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    @property
    def total_cases(self) -> int:
        """Cases of all sites."""
        return sum(mix.num_cases or self.num_cases for mix in self.mixes)

    @property
    def names_splits(self) -> bool:
        """Whether the manifests name the split of each case."""
        return any(mix.splits for mix in self.mixes)

    def mix(self, site: str) -> SiteMix:
        """The mix of `site`, or ConfigurationError."""
        for mix in self.mixes:
            if mix.site == site:
                return mix
        raise ConfigurationError(
            f"the phantom has no site {site!r}", f"expected one of {', '.join(mix.site for mix in self.mixes)}"
        )

    def scanner(self, site: str) -> Scanner:
        """The scanner of `site`."""
        return SCANNERS[self.mix(site).site]

    def bits(self) -> dict[str, object]:
        """All that decides what is drawn, for the record in the folder; what a phantom of shares has no need to say is left out."""
        mixes = [
            {"site": mix.site, "shares": list(mix.shares)} | ({"splits": [list(part) for part in mix.splits]} if mix.splits else {})
            for mix in self.mixes
        ]
        bits = {"version": VERSION, "seed": self.seed, "num_cases": self.num_cases, "image_px": self.image_px, "mixes": mixes}
        more = {"dicom_sites": list(self.dicom_sites), "study": self.study}
        return bits if (self.dicom_sites, self.study) == (DICOM_SITES, STUDY) else bits | more


def _check_mix(mix: SiteMix) -> None:
    num_classes = len(CLASSES)
    if not mix.splits and (len(mix.shares) != num_classes or min(mix.shares) < 0 or abs(sum(mix.shares) - 1) > 1e-6):
        raise ConfigurationError(
            f"phantom: shares of {mix.site} are {list(mix.shares)}, expected {num_classes} that add up to 1",
            f"give one share for each of {', '.join(CLASSES)}",
        )
    if mix.splits and (mix.shares or len(mix.splits) != len(SPLITS) or not mix.num_cases
                       or any(len(part) != num_classes or min(part) < 0 for part in mix.splits)):  # fmt: skip
        raise ConfigurationError(
            f"phantom: splits of {mix.site} are {[list(part) for part in mix.splits]}, expected {len(SPLITS)} of {num_classes}",
            f"give for {', '.join(SPLITS)} the cases of each of {', '.join(CLASSES)}, and no shares",
        )


def class_counts(mix: SiteMix, num_cases: int) -> dict[str, int]:
    """Cases of each class by largest remainder; a class with a share gets at least one case where there are cases enough."""
    exact = [share * num_cases for share in mix.shares]
    counts = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: num_cases - sum(counts)]:
        counts[index] += 1
    for index, share in enumerate(mix.shares):
        if share > 0 and counts[index] == 0 and max(counts) > 1:
            counts[counts.index(max(counts))] -= 1
            counts[index] = 1
    return dict(zip(CLASSES, counts, strict=True))


class CasePlan(NamedTuple):
    """What a case is of, and the split that the manifest names, "" where it names none."""

    label: str
    split: str


def case_plans(settings: PhantomSettings, site: str) -> tuple[CasePlan, ...]:
    """Case 1, 2, ... of `site`: the counts of its mix in an order that tells nothing."""
    mix = settings.mix(site)
    parts = [(split, dict(zip(CLASSES, part, strict=True))) for split, part in zip(SPLITS, mix.splits, strict=False)]
    parts = parts or [("", class_counts(mix, settings.num_cases))]
    ordered = [CasePlan(label, split) for split, counts in parts for label, count in counts.items() for _ in range(count)]
    order = generator(settings.seed, "phantom", site, "order").permutation(len(ordered))
    return tuple(ordered[index] for index in order)
