"""What phantom to draw: sites, class mixes, sizes; and which class each case number has."""

import os
from dataclasses import dataclass, field

from csasn.data.phantom.nodule import CLASSES
from csasn.data.phantom.scanner import SCANNERS, Scanner
from csasn.errors import ConfigurationError
from csasn.randomness import generator

VERSION = 1  # raise it with any change of a drawn bit


@dataclass(frozen=True)
class SiteMix:
    """A site of `SCANNERS` and its shares of cases in the order of `CLASSES`; share 0 makes a site that never sees the class."""

    site: str
    shares: tuple[float, ...]


DEFAULT_MIXES = (
    SiteMix("centerA", (0.48, 0.32, 0.10, 0.10)),
    SiteMix("centerB", (0.32, 0.48, 0.08, 0.12)),
    SiteMix("centerC", (0.56, 0.30, 0.14, 0.00)),
    SiteMix("centerD", (0.42, 0.32, 0.10, 0.16)),
)
DICOM_SITES = ("centerA", "centerB")


@dataclass(frozen=True)
class PhantomSettings:
    """`num_cases` of each site, pictures of `image_px` a side, `num_workers` processes (0: every core), and whether a phantom of
    other settings may be replaced. Only the first four decide what is drawn.

    Raises:
        ConfigurationError: a number out of range, an unknown or repeated site, or shares that do not add up to 1.
    """

    seed: int = 1
    num_cases: int = 240
    image_px: int = 192
    mixes: tuple[SiteMix, ...] = DEFAULT_MIXES
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
            if len(mix.shares) != len(CLASSES) or min(mix.shares) < 0 or abs(sum(mix.shares) - 1) > 1e-6:
                raise ConfigurationError(
                    f"phantom: shares of {mix.site} are {list(mix.shares)}, expected {len(CLASSES)} that add up to 1",
                    f"give one share for each of {', '.join(CLASSES)}",
                )

    @property
    def workers(self) -> int:
        """Number of processes that draw."""
        return self.num_workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

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
        """All that decides what is drawn, for the record in the folder."""
        mixes = [{"site": mix.site, "shares": list(mix.shares)} for mix in self.mixes]
        return {"version": VERSION, "seed": self.seed, "num_cases": self.num_cases, "image_px": self.image_px, "mixes": mixes}


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


def case_labels(settings: PhantomSettings, site: str) -> tuple[str, ...]:
    """The class of case 1, 2, ... of `site`: the counts of its mix in an order that tells nothing."""
    counts = class_counts(settings.mix(site), settings.num_cases)
    ordered = [label for label, count in counts.items() for _ in range(count)]
    order = generator(settings.seed, "phantom", site, "order").permutation(len(ordered))
    return tuple(ordered[index] for index in order)
