"""The columns of a manifest: which are known, however they are written, and which are left out."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from csasn.data.faults import Fault, data_error, listed
from csasn.data.sheet import squeeze
from csasn.errors import DataError
from csasn.study import Study

REQUIRED = ("case_id", "image", "label")
TIRADS = ("composition", "echogenicity", "shape", "margin", "foci")
OPTIONAL = ("patient_id", "split", "view", "scanner", *TIRADS)
MAX_COLUMNS = 1000
_NEAR = 0.8  # of difflib's ratio: one letter of five moved


@dataclass(frozen=True)
class Columns:
    """Where each known column is, from 0; `nameless` are columns without a name, `said` and `notes` what is worth saying."""

    places: Mapping[str, int]
    num_columns: int
    nameless: tuple[int, ...]
    said: tuple[str, ...]
    notes: tuple[str, ...]


def known_columns(study: Study) -> tuple[str, ...]:
    """Names of all columns that a manifest for `study` may have."""
    return tuple(dict.fromkeys((*REQUIRED, *OPTIONAL, *study.descriptors)))


def used_columns(study: Study) -> frozenset[str]:
    """Names of the columns whose cells are read."""
    return frozenset((*REQUIRED, "patient_id", "split", "scanner", *study.descriptors))


def read_columns(number: int, header: Sequence[str], study: Study) -> Columns:
    """The columns that `header`, which is row `number`, names. Columns are told by their numbers: a name may be a case's.

    Raises:
        DataError: a required column is missing, a known one is there twice, or one has nearly the name of one that is not there.
    """
    known = known_columns(study)
    names = _known_names(header, known)
    if repeated := sorted(name for name, count in Counter(filter(None, names)).items() if count > 1):
        raise DataError(f"manifest.csv has column {', '.join(repeated)} more than once", "keep one of them")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"manifest.csv has {len(header)} columns, expected at most {MAX_COLUMNS}", "is this the right file?")
    near = dict(_near_misses(header, names, known))
    _refuse(number, [name for name in REQUIRED if name not in names], near, study)
    extra = [place + 1 for place, (name, cell) in enumerate(zip(names, header, strict=True)) if not name and cell]
    nameless = tuple(place for place, cell in enumerate(header) if not cell)
    otherwise = [f"{place + 1} as {name}" for place, name in enumerate(names) if name and name != header[place]]
    return Columns(
        places={name: place for place, name in enumerate(names) if name},
        num_columns=len(header),
        nameless=nameless,
        said=((f"columns are read by their meaning: {', '.join(otherwise)}",) if otherwise else ())
        + ((f"columns without a name are left out: {listed([place + 1 for place in nameless])}",) if nameless else ()),
        notes=(f"columns that are not known are left out: {listed(extra)}",) if extra else (),
    )


def _known_names(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """The known name of each column, "" where it has none."""
    squeezed = Counter(squeeze(name) for name in known)
    meant = {squeeze(name): name for name in known if squeezed[squeeze(name)] == 1}
    return [cell if cell in known else meant.get(squeeze(cell), "") for cell in header]


def _near_misses(header: Sequence[str], names: Sequence[str], known: Collection[str]) -> Iterator[tuple[int, str]]:
    """Column number and the known name that is missing and nearly the column's."""
    missing = {squeeze(name): name for name in known if name not in names}
    for place, (name, cell) in enumerate(zip(names, header, strict=True)):
        if not name and (close := get_close_matches(squeeze(cell), missing, n=1, cutoff=_NEAR)):
            yield place + 1, missing[close[0]]


def _refuse(number: int, missing: Sequence[str], near: Mapping[int, str], study: Study) -> None:
    """Raises where a required column is missing, or one that would be used has another name by mistake."""
    wrong = {column: name for column, name in near.items() if name in used_columns(study)}
    hint = "; ".join(f"is column {column} the {name}? then name it so" for column, name in wrong.items())
    if missing:
        first = f"the first row names the columns: {','.join(REQUIRED)}"
        raise DataError(f"manifest.csv has no column {', '.join(missing)}", hint or first)
    if wrong:
        hint += ", else name it clearly otherwise"
        raise data_error([Fault(number, str(column), f"is nearly {name}", hint) for column, name in wrong.items()])
