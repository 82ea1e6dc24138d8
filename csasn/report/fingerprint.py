"""A site's fingerprint as a page of pictures, for the site's own eyes: it shows images of patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from csasn.data.cases import Records
from csasn.data.fingerprint import Fingerprint, scanner_of
from csasn.pictures.overlay import Mark
from csasn.pictures.picture_facts import ImageFacts
from csasn.report.picture import COLOURS, plain, plot_style, write_figure

COLUMNS, MAX_SAMPLES = 4, 12
MAX_SCANNERS = 8  # with a histogram of their own
MARK_COLOURS = {"text": "#ff5a36", "caliper": "#31c4f3"}
Colours = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """A picture (uint8 H, W) to show, the row of manifest.csv that names it, the marks to outline, and what is suspected of it."""

    row: int
    pixels_HW: np.ndarray
    marks: tuple[Mark, ...]
    suspicions: tuple[str, ...] = ()


def draw_fingerprint(fingerprint: Fingerprint, records: Records, samples: Sequence[Sample], path: Path) -> None:
    """Writes the page as PNG that only its owner may read: three diagrams, and up to twelve pictures below them."""
    samples = samples[:MAX_SAMPLES]
    num_rows = -(-len(samples) // COLUMNS)
    with plot_style():
        figure = Figure(figsize=(15, 4.9 + 3.4 * num_rows), layout="constrained")
        parts: Sequence[SubFigure] = figure.subfigures(2, 1, height_ratios=(4.3, 3.4 * num_rows))  # type: ignore[assignment]
        upper, lower = parts
        left, middle, right = upper.subplots(1, 3)
        _draw_classes(left, fingerprint)
        _draw_sizes(middle, records.images.facts)
        _draw_intensity(right, fingerprint, records)
        for axes, sample in zip(
            lower.subplots(num_rows, COLUMNS, squeeze=False).flat if num_rows else (), _padded(samples), strict=True
        ):
            _draw_sample(axes, sample)
        lower.suptitle(_legend(fingerprint, samples), fontsize=11)
        figure.suptitle(
            f"{fingerprint.site}: {fingerprint.num_cases} cases, {fingerprint.num_images} images, "
            f"for study {plain(fingerprint.study)}. Shows patients' images: not to leave this site.",
            fontsize=12,
        )
        write_figure(figure, path, dpi=100)


def _padded(samples: Sequence[Sample]) -> list[Sample | None]:
    return [*samples, *[None] * (-len(samples) % COLUMNS)]


def _legend(fingerprint: Fingerprint, samples: Sequence[Sample]) -> str:
    num_text, num_calipers = len(fingerprint.rows_with_text), len(fingerprint.rows_with_calipers)
    odd = [f"{kind} in {len(rows)}" for kind, rows in fingerprint.suspects.items()]
    if not num_text + num_calipers + len(odd):
        return "nothing suspected; some of the images, by row of manifest.csv"
    suspected = [f"burned-in text (orange) in {num_text} images", f"calipers (blue) in {num_calipers}", *odd]
    return f"suspected: {', '.join(suspected)}; {len(samples)} shown, by row of manifest.csv; all rows are in fingerprint.json"


def _draw_classes(axes: Axes, fingerprint: Fingerprint) -> None:
    splits = list(fingerprint.splits)
    names = list(fingerprint.splits[splits[0]])
    height = 0.8 / len(splits)
    for number, split in enumerate(splits):
        counts = [fingerprint.splits[split][name].num_cases for name in names]
        places = np.arange(len(names)) + (number - (len(splits) - 1) / 2) * height
        bars = axes.barh(places, counts, height * 0.9, color=COLOURS[number], label=split)
        axes.bar_label(bars, fontsize=8, padding=2)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(title="cases", xlabel="number of cases")
    axes.legend(frameon=False, fontsize=9)


def _draw_sizes(axes: Axes, facts: Sequence[ImageFacts]) -> None:
    sizes, counts = np.unique([(image.width, image.height) for image in facts], axis=0, return_counts=True)
    axes.scatter(sizes[:, 0], sizes[:, 1], 20 + 380 * counts / counts.max(), color=COLOURS[0], alpha=0.6, linewidth=0)
    for number in np.argsort(-counts)[:3]:
        width, height = sizes[number]
        axes.annotate(f"{counts[number]} images of {width} x {height}", (width, height), (0, 14), textcoords="offset points",
                      fontsize=8, ha="center")  # fmt: skip
    most = 1.25 * sizes.max()
    axes.set(title="sizes", xlabel="width in pixels", ylabel="height in pixels", xlim=(0, most), ylim=(0, most))


def _draw_intensity(axes: Axes, fingerprint: Fingerprint, records: Records) -> None:
    means: dict[str, list[float]] = {}
    own = list(fingerprint.scanners)[:MAX_SCANNERS]
    for row, image in zip(records.manifest.rows, records.images.facts, strict=True):
        scanner = scanner_of(row, image)
        means.setdefault(scanner if scanner in own else "others", []).append(image.mean)
    for number, (scanner, values) in enumerate(means.items()):
        shown = plain(scanner if len(scanner) <= 28 else scanner[:27] + "…")
        colour = COLOURS[number % len(COLOURS)]
        axes.hist(values, list(range(0, 257, 4)), histtype="stepfilled", alpha=0.55, color=colour,
                  label=f"{shown} ({len(values)})")  # fmt: skip
    low, high = min(map(min, means.values())), max(map(max, means.values()))
    axes.set(title="brightness of images by scanner", xlabel="mean grey level, 0 to 255", ylabel="number of images")
    axes.set_xlim(max(0, low - 16), min(256, high + 16))
    axes.legend(frameon=False, fontsize=8)


def _draw_sample(axes: Axes, sample: Sample | None) -> None:
    axes.set_axis_off()
    if sample is None:
        return
    axes.imshow(sample.pixels_HW, cmap="gray", vmin=0, vmax=255)
    room = max(2, max(sample.pixels_HW.shape) // 100)
    for mark in sample.marks:
        corner = mark.left - room, mark.top - room
        width, height = mark.right - mark.left + 2 * room, mark.bottom - mark.top + 2 * room
        axes.add_patch(Rectangle(corner, width, height, fill=False, linewidth=1.5, edgecolor=MARK_COLOURS[mark.kind]))
    axes.set_title("\n".join((f"row {sample.row}", *sample.suspicions)), fontsize=10)
