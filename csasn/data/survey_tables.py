"""What a survey counts, and which of it may be shown (csasn/SPEC.md, "Survey").

Every table parts the same cases, so that all that two of them have in common is the number of cases. C cells of a table, S splits.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csasn.data.split import SPLITS
from csasn.measures.counts import Integers, Layout
from csasn.study import Study

Mask = NDArray[np.bool_]
Tables = Mapping[str, Integers]

CASES, PATIENTS, CLASSES, LABELS = "cases", "patients", "classes", "labels"
SCANNERS, SIZES, IMAGES = "makers", "longer-side", "images-per-case"
HIDDEN = "-hidden"  # a block beside each table: the sites that hide their own count of a cell
SMALLEST_SUM = 10  # over all sites; what is below is not shown
SIZE_EDGES_PX = (256, 384, 512, 768, 1024)
IMAGE_EDGES = (2, 3, 4, 6, 11)
WITHOUT_CLASS = "without a class"

# the makers of scanners are a fixed list, so that no text of a site or a device goes any further;
# words that stand alone, or begin a word; brands that changed hands are of who sells them today
_BRANDS = {
    "GE": r"ge|gems|gehc|general electric|logiq\w*|voluson\w*|vivid\w*|vscan\w*",
    "Philips": r"philips\w*|atl|epiq\w*|affiniti\w*|iu22|hdi|clearvue\w*|lumify\w*",
    "Siemens": r"siemens\w*|acuson\w*",
    "Samsung Medison": r"samsung\w*|medison\w*|sonoace\w*|accuvix\w*",
    "Canon Toshiba": r"canon\w*|toshiba\w*|aplio\w*|xario\w*",
    "Mindray": r"mindray\w*|resona\w*|zonare\w*",
    "Fujifilm Hitachi Aloka": r"fujifilm\w*|hitachi\w*|aloka\w*|arietta\w*|prosound\w*|sonosite\w*",
    "Esaote": r"esaote\w*|mylab\w*",
    "SuperSonic Hologic": r"supersonic\w*|hologic\w*|aixplorer\w*",
}
_PATTERNS = {maker: re.compile(rf"\b(?:{words})\b") for maker, words in _BRANDS.items()}
OTHER, SEVERAL, UNKNOWN = "another maker", "several makers", "unknown maker"
MAKERS = (*_BRANDS, OTHER, SEVERAL, UNKNOWN)


@dataclass(frozen=True)
class Table:
    """One table for people: of which block, at which place in it, what it tells, and the names of its cells."""

    block: str
    place: int
    title: str
    rows: tuple[str, ...]


def tables_of(study: Study) -> tuple[Table, ...]:
    """All tables of a study's survey, in the order in which they are shown."""
    of_split = (f"{name} cases by class" for name in ("Training", "Validation", "Test"))
    return (
        Table(CASES, 0, "Cases", ("cases",)),
        Table(PATIENTS, 0, "Patients", ("patients", "further cases of the same patients")),
        *(Table(CLASSES, number, title, (*study.classes, WITHOUT_CLASS)) for number, title in enumerate(of_split)),
        *(
            Table(LABELS, number, f"Labels of {task}", ("with a label", "without a label"))
            for number, task in enumerate(study.descriptors)
        ),
        Table(SCANNERS, 0, "Makers of scanners", MAKERS),
        Table(SIZES, 0, "Longer side of a case's smallest image, in pixels", _bins(SIZE_EDGES_PX, 0)),
        Table(IMAGES, 0, "Images of a case", _bins(IMAGE_EDGES, 1)),
    )


def survey_layout(study: Study) -> Layout:
    """The count vector of a survey: each table, and beside it as many marks."""
    shapes: dict[str, tuple[int, ...]] = {
        CASES: (1,),
        PATIENTS: (2,),
        CLASSES: (len(SPLITS), len(study.classes) + 1),
        SCANNERS: (len(MAKERS),),
        SIZES: (len(SIZE_EDGES_PX) + 1,),
        IMAGES: (len(IMAGE_EDGES) + 1,),
    }
    if study.descriptors:
        shapes[LABELS] = (len(study.descriptors), 2)
    return Layout(tuple((f"{name}{end}", shape) for name, shape in shapes.items() for end in ("", HIDDEN)))


def hidden_cells(counts_C: Integers, smallest: int) -> Mask:
    """Which cells of a table hide, so that none below `smallest` can be told, even where the table's total is known.

    The small ones (1 to smallest - 1) and with them the smallest of the others, all that are equally small. Where a small and a
    large one change places, the same cells hide under the same total: so nobody can tell which is which. Where that hides all but
    empty cells, the empty ones hide too.
    """
    hidden_C = (counts_C > 0) & (counts_C < smallest)
    if not hidden_C.any():
        return hidden_C
    if (large := counts_C[counts_C >= smallest]).size:
        hidden_C = hidden_C | (counts_C == large.min())
    return np.ones_like(hidden_C) if (hidden_C | (counts_C == 0)).all() else hidden_C


def hidden_of(tables: Tables, smallest: int) -> dict[str, Mask]:
    """Which cells of each table hide; where there are fewer cases than `smallest`, all that hold any.

    The cases of each split are a table themselves, beside those of its classes.
    """
    hidden = {}
    for name, counts in tables.items():
        rows = np.atleast_2d(counts)
        cells = np.stack([hidden_cells(row, smallest) for row in rows])
        if name == CLASSES:
            cells |= hidden_cells(rows.sum(axis=1), smallest)[:, None]
        hidden[name] = cells.reshape(counts.shape)
    return hidden


def veil(tables: Tables, smallest: int) -> dict[str, Integers]:
    """What a site gives of its tables: 0 in place of what it hides, and marks (0 or 1) of that."""
    hidden = hidden_of(tables, smallest)
    given = {name: np.where(hidden[name], 0, counts).astype(np.int64) for name, counts in tables.items()}
    return given | {name + HIDDEN: mask.astype(np.int64) for name, mask in hidden.items()}


def parts_of(blocks: Tables) -> tuple[dict[str, Integers], dict[str, Integers]]:
    """The tables among the blocks of a count vector, and the marks beside each, by the names of tables."""
    marks = {name.removesuffix(HIDDEN): block for name, block in blocks.items() if name.endswith(HIDDEN)}
    return {name: blocks[name] for name in marks}, marks


def totals(tables: Tables) -> list[int]:
    """The number of cases in each table."""
    return [int(n) for name, counts in tables.items() for n in (counts.sum(axis=1) if name == LABELS else [counts.sum()])]


def shown(study: Study, sums: Tables) -> list[dict[str, object]]:
    """What is told of the sums over all sites: tables whose rows hold a count, None where it hides, and how many sites hid theirs.

    Empty cells hide as small ones do.
    """
    tables, marks = parts_of(sums)
    hidden = {name: mask | (tables[name] < SMALLEST_SUM) for name, mask in hidden_of(tables, SMALLEST_SUM).items()}
    told: list[dict[str, object]] = []
    for table in tables_of(study):
        cells = (np.atleast_2d(of_all[table.block])[table.place] for of_all in (tables, hidden, marks))
        rows = [
            {"name": name, "count": None if hides else int(count), "hiding_sites": int(sites)}
            for name, count, hides, sites in zip(table.rows, *cells, strict=True)
        ]
        told.append({"of": table.block, "title": table.title, "rows": rows})
    return told


def _bins(edges: tuple[int, ...], least: int) -> tuple[str, ...]:
    """Names of the bins that begin at each edge, and of the one below the first."""
    starts = (least, *edges)
    names = [f"{start}" if end == start + 1 else f"{start} to {end - 1}" for start, end in zip(starts, edges, strict=False)]
    return (*names, f"{edges[-1]} or more")


def maker_of(text: str) -> str:
    """The maker that a text names, one of `MAKERS`; the first of them where it names two."""
    words = re.sub(r"[\W_]+", " ", text.casefold()).strip()
    if not words:
        return UNKNOWN
    return next((maker for maker, pattern in _PATTERNS.items() if pattern.search(words)), OTHER)
