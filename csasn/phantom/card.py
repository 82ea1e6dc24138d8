"""The data card that is written beside the phantom."""

from dataclasses import dataclass

from csasn.data.split import SPLITS
from csasn.phantom.benchmark import BENCHMARK_STUDY, WORTH
from csasn.phantom.nodule import CLASSES, RATES
from csasn.phantom.settings import VERSION, PhantomSettings


@dataclass(frozen=True)
class SiteCounts:
    """Cases and pictures of each class at one site."""

    site: str
    cases: dict[str, int]
    images: dict[str, int]


def data_card(settings: PhantomSettings, sites: tuple[SiteCounts, ...]) -> str:
    """CARD.md: what the phantom is, what is in it, where its rates come from, and what it must not be used for."""
    parts = [_purpose(settings), _counts(sites), _scanners(settings), _rates()]
    if settings.study == BENCHMARK_STUDY:
        parts.insert(1, WORTH)
    if settings.names_splits:
        parts.insert(-2, _splits(settings))
    return "\n\n".join(parts) + "\n"


def _purpose(settings: PhantomSettings) -> str:
    rarity = (
        "FTC and MTC are as rare in training as in practice (5-10 % and 1.7-4 % of carcinomas), and enriched among the test cases."
        if settings.study == BENCHMARK_STUDY
        else "FTC and MTC are enriched, so that they can be measured: in practice they are 5-10 % and 1.7-4 % of carcinomas."
    )
    return f"""# Data card: synthetic thyroid ultrasound (phantom, version {VERSION}, seed {settings.seed})

Every picture here was drawn by a program. There is no patient behind any of them; patient tags in the DICOM files are made up.
The phantom is for testing software: that sites with different scanners and class mixes can train together, that rare classes
are counted, that missing labels are masked. **A result on it is never evidence about patients**, nor about a model's worth in a
hospital.

- A picture is drawn from a nodule's attributes (ACR TI-RADS words, size, halo) and never from its class, so the classes overlap
  as far as the rates below do. Follicular carcinoma and benign nodules overlap most, as they do in practice.
- `manifest.csv` lists pictures; the unit is the case (`case_id`). Shape is labelled on transverse views only; about one
  descriptor in ten is left out on purpose, so that missing labels are met.
- {rarity}
- Calipers are burned into some pictures, more often at some sites than at others: a shortcut that a model must not take."""


def _counts(sites: tuple[SiteCounts, ...]) -> str:
    """Cases (pictures) per site and class, with the share of each class over all sites."""
    lines = ["## Cases (pictures)", "", f"| site | {' | '.join(CLASSES)} | all |", "|---" * (len(CLASSES) + 2) + "|"]
    for site in sites:
        cells = [f"{site.cases[label]} ({site.images[label]})" for label in CLASSES]
        lines.append(f"| {site.site} | {' | '.join(cells)} | {sum(site.cases.values())} ({sum(site.images.values())}) |")
    total = sum(sum(site.cases.values()) for site in sites)
    shares = [f"{sum(site.cases[label] for site in sites) / total:.1%}" for label in CLASSES]
    lines.append(f"| share of cases | {' | '.join(shares)} | {total} ({sum(sum(site.images.values()) for site in sites)}) |")
    absent = [f"{site.site} has no {label}" for site in sites for label in CLASSES if not site.cases[label]]
    return "\n".join([*lines, "", *(f"{text}." for text in absent)]).rstrip()


def _splits(settings: PhantomSettings) -> str:
    """Cases by split, as the manifests name it."""
    lines = ["## Cases by split", "", f"| site | split | {' | '.join(CLASSES)} | all |", "|---" * (len(CLASSES) + 3) + "|"]
    for mix in settings.mixes:
        for split, counts in zip(SPLITS, mix.splits, strict=False):
            lines.append(f"| {mix.site} | {split} | {' | '.join(map(str, counts))} | {sum(counts)} |")
    return "\n".join(lines)


def _scanners(settings: PhantomSettings) -> str:
    lines = [
        "## Scanners",
        "",
        "| site | scanner | files | looks | point spread mm | dynamic range dB | noise dB | depth cm | shape | calipers |",
        "|---" * 10 + "|",
    ]
    for mix in settings.mixes:
        scanner = settings.scanner(mix.site)
        files = "DICOM, some stacks of frames" if mix.site in settings.dicom_sites else "PNG"
        spread = f"{10 * scanner.axial_cm:.2f} x {10 * scanner.lateral_cm:.2f}"
        shape = "trapezoid" if scanner.trapezoid else "rectangle"
        cells = (mix.site, scanner.name, files, scanner.looks, spread, scanner.dynamic_range_db, scanner.noise_db, scanner.depth_cm)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + f" | {shape} | {scanner.caliper_rate:.0%} |")
    return "\n".join(
        [*lines, "", f"Pictures are {settings.image_px} pixels a side; DICOM files have a black frame around that region."]
    )


def _rates() -> str:
    lines = ["## Rates of attributes", "", f"| attribute | {' | '.join(CLASSES)} |", "|---" * (len(CLASSES) + 1) + "|"]
    rates = [RATES[label] for label in CLASSES]
    rows = {
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
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    source = """Words: ACR TI-RADS (Tessler 2017, doi 10.1016/j.jacr.2017.01.046). Rates: rounded from published sonographic
series of each class; how a rate is divided among the words within it is our choice. Attributes are independent within a class,
which they are not in patients."""
    return "\n".join([*lines, "", source])
