"""The data card that is written beside the phantom; its text is in card.md."""

from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from csasn.data.split import SPLITS
from csasn.phantom.benchmark import BENCHMARK_STUDY
from csasn.phantom.nodule import CLASSES, RATES
from csasn.phantom.settings import VERSION, PhantomSettings


@dataclass(frozen=True)
class SiteCounts:
    """Cases and pictures of each class at one site."""

    site: str
    cases: dict[str, int]
    images: dict[str, int]

    @property
    def num_cases(self) -> int:
        """Cases of all classes."""
        return sum(self.cases.values())

    @property
    def num_images(self) -> int:
        """Pictures of all classes."""
        return sum(self.images.values())


def data_card(settings: PhantomSettings, sites: tuple[SiteCounts, ...]) -> str:
    """CARD.md: what the phantom is, what is in it, where its rates come from, and what it must not be used for."""
    text = files("csasn.phantom").joinpath("card.md").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=True)
    return environment.from_string(text).render(
        settings=settings,
        sites=sites,
        version=VERSION,
        classes=CLASSES,
        splits=SPLITS,
        rates=_rates(),
        absent=[f"{site.site} has no {label}" for site in sites for label in CLASSES if not site.cases[label]],
        is_benchmark=settings.study == BENCHMARK_STUDY,
    )


def _rates() -> dict[str, list[str]]:
    """The rates of attributes by what they are of, in words for each class."""
    rates = [RATES[label] for label in CLASSES]
    return {
        "largest diameter cm, before cutting to 0.4-4.0": [f"{rate.size_cm[0]}±{rate.size_cm[1]}" for rate in rates],
        "solid": [f"{rate.solid:.2f}" for rate in rates],
        "very hypoechoic / hypoechoic / iso- or hyperechoic": [
            f"{rate.echogenicity[0]:.2f} / {rate.echogenicity[1]:.2f} / {sum(rate.echogenicity[2:]):.2f}" for rate in rates
        ],
        "taller than wide": [f"{rate.taller:.2f}" for rate in rates],
        "irregular, lobulated or extrathyroidal margin": [f"{sum(rate.margin[:3]):.2f}" for rate in rates],
        "punctate / coarse echogenic foci": [f"{rate.foci[0]:.2f} / {rate.foci[1]:.2f}" for rate in rates],
        "halo thin / uneven": [f"{rate.halo[0]:.2f} / {rate.halo[1]:.2f}" for rate in rates],
    }
