"""An import: lists a source, joins it with the pathology list, takes the pictures that a row speaks of, and writes the tables."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from client.importing.frames import choose_frames, describe, find_pointed_frames
from client.importing.joining import Claim, Joined, LeftOut, join
from client.importing.objects import Advance, Listed, Listing, Source, reason_to_leave
from client.importing.pathology import Diagnosis
from client.importing.pictures import encode_png, take_picture
from client.importing.sheet import Cell, draw_sheets
from client.importing.staging import PRIVATE, SHEET, Done, Staging, Taken
from csasn.data.withdrawals import Withdrawn
from csasn.errors import DataError
from csasn.pictures.images import PREPROCESSING_VERSION, Picture
from csasn.platform.storage import write_atomically
from csasn.trust.pseudonyms import Pseudonyms

LEFT_OUT_COLUMNS = ("reason", "number", "rows_of_list", "patient_id", "accession", "image")
WITHDREW = "its patient withdrew"
Bar = Callable[[str], Advance]


@dataclass(frozen=True)
class Options:
    """Of a clip `frames` evenly spaced ones are taken where nothing says which was measured; `blank` blanks suspected text."""

    frames: int = 3
    blank: bool = False


@dataclass(frozen=True)
class ManifestRow:
    """A row of the manifest: its columns."""

    case_id: str
    patient_id: str
    image: str
    label: str
    split: str
    scanner: str


@dataclass(frozen=True)
class Imported:
    """What an import of `num_objects` came to: rows of the manifest, what was left out, number of contact sheets."""

    num_objects: int
    rows: tuple[ManifestRow, ...]
    pictures: tuple[LeftOut, ...]
    diagnoses: tuple[LeftOut, ...]
    sheets: int

    @property
    def labels(self) -> dict[str, int]:
        """Cases of each label."""
        return dict(sorted(Counter({row.case_id: row.label for row in self.rows}.values()).items()))

    @property
    def num_patients(self) -> int:
        """Patients."""
        return len({row.patient_id for row in self.rows})


class Import:
    """One import of a site into a staging folder, which is locked meanwhile."""

    def __init__(
        self, site: str, source: Source, staging: Staging, pseudonyms: Pseudonyms, options: Options, withdrawn: Withdrawn
    ) -> None:
        self._site, self._source, self._staging, self._options = site, source, staging, options
        self._hashes, self._withdrawn = pseudonyms, withdrawn

    def run(self, diagnoses: Sequence[Diagnosis], bar: Bar) -> Imported:
        """Imports what `diagnoses` speak of, and leaves it for approval; `bar(name)` makes a bar of progress.

        Raises:
            DataError: no picture is left.
            CsasnError: the source is gone or the disk is full; what was done stays for the next try.
        """
        listing = self._source.list(diagnoses, bar("looking at what there is"))
        joined = join(diagnoses, listing.objects)
        wanted = [listed for listed in listing.objects if listed.uid in joined.claims]
        pointed = find_pointed_frames(self._source, listing.objects, {listed.study for listed in wanted})
        known = self._staging.begin()
        advance = bar("reading pictures")
        done: dict[str, Done] = {}
        for number, listed in enumerate(wanted, 1):
            done[listed.uid] = self._take(listed, joined.claims[listed.uid], pointed.get(listed.uid, ()), known)
            advance(number, len(wanted))
        return self._write(listing, joined, wanted, done)

    def _take(self, listed: Listed, claims: tuple[Claim, ...], pointed: tuple[int, ...], known: Mapping[str, Done]) -> Done:
        """Takes the wanted frames of an object, to whose frames `pointed` others point, unless the journal knows what came of it;
        nothing where its patient withdrew."""
        if any(self._withdrawn.find(self._hashes.patient(claim.patient)) for claim in claims):
            return Done(work="", left_out=(WITHDREW,))
        named = tuple(sorted({frame for claim in claims for frame in claim.frames}))
        work = self._hashes.work(listed.uid, named, pointed, self._options, PREPROCESSING_VERSION)
        if work in known:
            return known[work]
        taken, left_out = [], []
        try:
            with self._source.fetch(listed) as path:
                shown = describe(path)
                for frame in choose_frames(shown, named, pointed, self._options.frames):
                    try:
                        taken.append(self._keep(listed, take_picture(path, shown, frame, blank=self._options.blank), frame))
                    except DataError as error:
                        left_out.append(error.message)
        except DataError as error:  # the source may hand it out another time, so the journal does not know it
            return Done(work=work, left_out=(error.message,))
        entry = Done(work=work, taken=tuple(taken), left_out=tuple(left_out))
        self._staging.note(entry)
        return entry

    def _keep(self, listed: Listed, picture: Picture, frame: int | None) -> Taken:
        """Writes a picture that was taken."""
        name = self._hashes.image(listed.uid) + (".png" if frame is None else f"-{frame}.png")
        png = encode_png(picture)
        self._staging.keep_picture(name, png)
        return Taken(name=name, sha256=hashlib.sha256(png).hexdigest(), frame=frame, scanner=picture.device)

    def _write(self, listing: Listing, joined: Joined, wanted: Sequence[Listed], done: Mapping[str, Done]) -> Imported:
        others = listing.others + Counter(reason for listed in listing.objects if (reason := reason_to_leave(listed)))
        rows, left = [], [*joined.pictures, *(LeftOut(reason, number) for reason, number in others.items())]
        for listed in wanted:
            claims, entry = joined.claims[listed.uid], done[listed.uid]
            rows += [
                self._row(claim, taken)
                for taken in entry.taken
                for claim in claims
                if not claim.frames or taken.frame in (None, *claim.frames)
            ]
            at = LeftOut("", rows=claims[0].rows, patient=claims[0].patient, accession=listed.accession, image=listed.uid)
            left += [replace(at, reason=reason, number=number) for reason, number in Counter(entry.left_out).items()]
        if not rows:
            raise DataError("no picture is left to import", _why(left, joined.rows))
        rows.sort(key=lambda row: (row.case_id, row.image))
        left.sort()
        sheets = self._draw(rows)
        self._staging.finish(_manifest(rows), self._left_out([*left, *joined.rows]), (row.image for row in rows))
        return Imported(len(listing.objects), tuple(rows), tuple(left), joined.rows, sheets)

    def _row(self, claim: Claim, taken: Taken) -> ManifestRow:
        patient = self._hashes.patient(claim.patient)
        return ManifestRow(self._hashes.case(*claim.case), patient, taken.name, claim.label, claim.split, taken.scanner)

    def _draw(self, rows: Sequence[ManifestRow]) -> int:
        """Writes the contact sheets; their number."""
        cells = [Cell(self._staging.images / row.image, f"row {number}  {row.label}") for number, row in enumerate(rows, 2)]
        title = f"{self._site}: {len(rows)} pictures by row of manifest.csv. Patients' images: not to leave this site"
        number = 0
        for number, png in enumerate(draw_sheets(cells, title), 1):
            write_atomically(self._staging.folder / f"{SHEET}-{number:03}.png", png, PRIVATE)
        return number

    def _left_out(self, entries: Iterable[LeftOut]) -> bytes:
        hashes = self._hashes
        return _csv(
            LEFT_OUT_COLUMNS,
            (
                (
                    entry.reason,
                    entry.number,
                    " ".join(map(str, entry.rows)),
                    entry.patient and hashes.patient(entry.patient),
                    entry.accession and hashes.accession(entry.accession),
                    entry.image and hashes.image(entry.image),
                )
                for entry in entries
            ),
        )


def _manifest(rows: Sequence[ManifestRow]) -> bytes:
    """manifest.csv; without the column split where no row names one."""
    columns = [field.name for field in fields(ManifestRow) if field.name != "split" or any(row.split for row in rows)]
    return _csv(columns, ([getattr(row, name) for name in columns] for row in rows))


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()


def count_reasons(entries: Iterable[LeftOut]) -> dict[str, int]:
    """How often each reason was met, the most frequent first."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.reason] += entry.number
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _why(pictures: Iterable[LeftOut], diagnoses: Iterable[LeftOut]) -> str:
    reasons = [f"{number} x {reason}" for reason, number in count_reasons([*pictures, *diagnoses]).items()]
    return "; ".join(reasons[:5]) or "the source is empty"
