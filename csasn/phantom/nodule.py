"""What one nodule is like: attributes drawn from published rates of each class, in the words of ACR TI-RADS.

A picture is drawn from these attributes alone and never from the class, so the classes overlap exactly as far as the rates do: a
follicular carcinoma (FTC) often looks like a benign nodule, as it does in practice.

Sources: the descriptors are those of ACR TI-RADS (Tessler 2017, doi 10.1016/j.jacr.2017.01.046). The rates of a class are rounded
from published sonographic series of papillary (PTC), follicular and medullary (MTC) carcinoma and of benign nodules; how a rate is
divided among the words within it (such as irregular against lobulated) is our choice.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

CLASSES = ("benign", "PTC", "FTC", "MTC")
DESCRIPTORS: dict[str, tuple[str, ...]] = {
    "composition": ("cystic", "spongiform", "mixed", "solid"),
    "echogenicity": ("anechoic", "hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic"),
    "shape": ("wider", "taller"),
    "margin": ("smooth", "ill-defined", "lobulated", "irregular", "extrathyroidal"),
    "foci": ("none", "comet-tail", "macrocalcification", "rim", "punctate"),
}
Halo = Literal["none", "thin", "uneven"]
SIZE_RANGE_CM = (0.4, 4.0)


@dataclass(frozen=True)
class Rates:
    """One class: mean and deviation of the largest diameter in cm, then shares of cases. What is left over is named last."""

    size_cm: tuple[float, float]
    solid: float
    not_solid: tuple[float, float, float]  # of the rest: cystic, spongiform, mixed
    echogenicity: tuple[float, float, float, float]  # very hypoechoic, hypoechoic, isoechoic, hyperechoic
    taller: float
    margin: tuple[float, float, float, float, float]  # irregular, lobulated, extrathyroidal, ill-defined, smooth
    foci: tuple[float, float, float, float, float]  # punctate, macrocalcification, rim, comet-tail, none
    halo: tuple[float, float, float]  # thin, uneven, none


RATES: dict[str, Rates] = {
    "benign": Rates(
        size_cm=(2.0, 1.2),
        solid=0.40,
        not_solid=(0.15, 0.30, 0.55),
        echogenicity=(0.02, 0.23, 0.58, 0.17),
        taller=0.08,
        margin=(0.03, 0.05, 0.0, 0.17, 0.75),
        foci=(0.05, 0.10, 0.03, 0.12, 0.70),
        halo=(0.25, 0.0, 0.75),
    ),
    "PTC": Rates(
        size_cm=(1.1, 1.1),
        solid=0.92,
        not_solid=(0.0, 0.0, 1.0),
        echogenicity=(0.20, 0.65, 0.13, 0.02),
        taller=0.47,
        margin=(0.34, 0.20, 0.08, 0.13, 0.25),
        foci=(0.45, 0.15, 0.03, 0.0, 0.37),
        halo=(0.05, 0.0, 0.95),
    ),
    "FTC": Rates(
        size_cm=(3.0, 1.5),
        solid=0.85,
        not_solid=(0.0, 0.0, 1.0),
        echogenicity=(0.10, 0.45, 0.40, 0.05),
        taller=0.05,
        margin=(0.08, 0.15, 0.02, 0.10, 0.65),
        foci=(0.08, 0.08, 0.04, 0.0, 0.80),
        halo=(0.0, 0.50, 0.50),
    ),
    "MTC": Rates(
        size_cm=(2.3, 1.5),
        solid=0.88,
        not_solid=(0.0, 0.0, 1.0),
        echogenicity=(0.25, 0.65, 0.08, 0.02),
        taller=0.15,
        margin=(0.15, 0.16, 0.04, 0.10, 0.55),
        foci=(0.25, 0.30, 0.02, 0.0, 0.43),
        halo=(0.05, 0.0, 0.95),
    ),
}


@dataclass(frozen=True)
class Nodule:
    """One nodule and the lobe it sits in, the same in every view of a case.

    `size_cm` is the largest diameter of the transverse cut, `aspect` its height over its width, `length` its length along the neck
    over `size_cm`; `level_db` is the echo of its solid part against the normal gland. `side` is +1 where the trachea lies right.
    """

    composition: str
    echogenicity: str
    shape: str
    margin: str
    foci: str
    halo: Halo
    size_cm: float
    aspect: float
    length: float
    level_db: float
    side: int

    def __post_init__(self) -> None:
        assert all(getattr(self, name) in words for name, words in DESCRIPTORS.items())

    @property
    def transverse_cm(self) -> tuple[float, float]:
        """Height and width of the transverse cut in cm."""
        return (self.size_cm, self.size_cm / self.aspect) if self.aspect > 1 else (self.size_cm * self.aspect, self.size_cm)

    @property
    def longitudinal_cm(self) -> tuple[float, float]:
        """Height and width of the longitudinal cut in cm."""
        return self.transverse_cm[0], self.size_cm * self.length


LEVEL_DB = {"anechoic": 0.0, "hyperechoic": 3.5, "isoechoic": 0.0, "hypoechoic": -9.0, "very hypoechoic": -16.0}


def draw_nodule(rng: np.random.Generator, label: str) -> Nodule:
    """A nodule of class `label` (one of `CLASSES`): every attribute from that class's rates, independently but for what excludes
    each other (a cyst is anechoic, comet tails need fluid, a halo needs a sharp margin)."""
    rates = RATES[label]
    composition = "solid" if rng.random() < rates.solid else _pick(rng, ("cystic", "spongiform", "mixed"), rates.not_solid)
    echogenicity = _pick(rng, ("very hypoechoic", "hypoechoic", "isoechoic", "hyperechoic"), rates.echogenicity)
    margin = _pick(rng, ("irregular", "lobulated", "extrathyroidal", "ill-defined", "smooth"), rates.margin)
    foci = _pick(rng, ("punctate", "macrocalcification", "rim", "comet-tail", "none"), rates.foci)
    halo: Halo = ("thin", "uneven", "none")[int(rng.choice(3, p=rates.halo))]
    if composition == "cystic":
        echogenicity, margin, halo = "anechoic", "smooth", "none"
    if composition in ("cystic", "spongiform") and foci in ("punctate", "macrocalcification"):
        foci = "comet-tail"
    if composition == "solid" and foci == "comet-tail":
        foci = "none"
    shape = "taller" if rng.random() < rates.taller else "wider"
    return Nodule(
        composition=composition,
        echogenicity=echogenicity,
        shape=shape,
        margin=margin,
        foci=foci,
        halo=halo if margin in ("smooth", "lobulated") else "none",
        size_cm=_size(rng, *rates.size_cm, 2.6 if shape == "taller" else SIZE_RANGE_CM[1]),
        aspect=rng.uniform(1.12, 1.5) if shape == "taller" else rng.uniform(0.55, 0.92),
        length=rng.uniform(0.95, 1.25),
        level_db=LEVEL_DB[echogenicity] + (1 if rng.random() < 0.5 else -1) * rng.uniform(0.7, 1.8),
        side=1 if rng.random() < 0.5 else -1,
    )


def _pick(rng: np.random.Generator, words: tuple[str, ...], shares: tuple[float, ...]) -> str:
    return words[int(rng.choice(len(words), p=shares))]


def _size(rng: np.random.Generator, mean: float, deviation: float, largest: float) -> float:
    """A log-normal diameter with this mean and deviation, drawn anew until it lies in the range that is drawn."""
    variance = math.log1p((deviation / mean) ** 2)
    while True:
        size = float(rng.lognormal(math.log(mean) - variance / 2, math.sqrt(variance)))
        if SIZE_RANGE_CM[0] <= size <= largest:
            return size
