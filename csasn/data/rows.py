"""The rows of a manifest, one at a time: what their cells say, and what is wrong in them."""

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from csasn.data.faults import Fault, in_rows
from csasn.data.header import Columns
from csasn.data.split import SPLITS
from csasn.study import Study

_FRAME = re.compile(r"(?P<image>.*\S)#(?P<frame>[0-9]{1,9})", re.DOTALL)
_FORMULA_ERROR = re.compile(r"#(?:N/[AD]|NV|[^\W\d_][\w/]{1,15}[!?])")  # in a spreadsheet's own language: #N/A, #NV, #REF!, #BEZUG!
_SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?[eE][+-][0-9]{2,3}")
_FLOAT = re.compile(r"[0-9]+[.,]0")
_NO_LABELS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One image. `labels` holds the descriptors that are present, as indices; `frame` counts from 1, None is the middle one.

    `patient` is the case where the manifest has no column patient_id.
    """

    number: int
    case: str = field(repr=False)
    image: str = field(repr=False)
    frame: int | None
    label: int
    split: str
    labels: Mapping[str, int]
    scanner: str = ""
    patient: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """What tells this image from the others of the manifest."""
        return self.image if self.frame is None else f"{self.image}#{self.frame}"


class RowReader:
    """Reads the rows of one manifest; `faults` collects what is wrong, `notes()` tells what is worth saying in the end.

    `meant` maps words of a label map, in the form of `plain_word`, to classes.
    """

    def __init__(self, columns: Columns, study: Study, meant: Mapping[str, int]) -> None:
        self.faults: list[Fault] = []
        self._columns, self._meant, self._classes = columns, meant, study.classes
        places = columns.places
        self._case, self._image, self._label = (places[name] for name in ("case_id", "image", "label"))
        self._patient, self._split, self._scanner = (places.get(name) for name in ("patient_id", "split", "scanner"))
        self._ids = [(name, places[name]) for name in ("case_id", "patient_id") if name in places]
        self._labels = {name: index for index, name in enumerate(study.classes)}
        self._descriptors = [
            (name, places[name], {value: index for index, value in enumerate(values)})
            for name, values in study.descriptors.items()
            if name in places
        ]
        used = {"case_id", "image", "label", "patient_id", "split", "scanner", *study.descriptors}
        self._used = {place: name for name, place in places.items() if name in used}
        self._seen: dict[tuple[tuple[str, int], ...], Mapping[str, int]] = {(): _NO_LABELS}
        self._backslashes: list[int] = []
        self._floats: list[int] = []
        self._filled: list[int] = []
        self._num_mapped = 0
        self._last_case = self._last_patient = ""

    def read(self, number: int, cells: Sequence[str]) -> Row | None:
        """The row, or None after its faults were added to `faults`."""
        before = len(self.faults)
        if not self._check_shape(number, cells):
            return None
        case = self._last_case = self._same(cells[self._case], self._last_case)
        patient = case if self._patient is None else self._same(cells[self._patient], self._last_patient)
        self._last_patient = patient
        self._check_ids(number, cells)
        image, frame = self._read_image(number, cells[self._image])
        label = self._read_label(number, cells[self._label])
        split = "" if self._split is None else cells[self._split]
        if split and split not in SPLITS:
            self._unknown(number, "split", split, SPLITS)
        labels = self._read_descriptors(number, cells) if self._descriptors else _NO_LABELS
        if len(self.faults) > before:
            return None
        scanner = "" if self._scanner is None else cells[self._scanner]
        return Row(number, case, image, frame, label, sys.intern(split), labels, sys.intern(scanner), patient)

    def said(self) -> list[str]:
        """How rows were read."""
        said = []
        if self._num_mapped:
            said.append(f"labels read by the map of the site file: {self._num_mapped}")
        if self._backslashes:
            said.append(f"{in_rows(self._backslashes)}, column image: \\ is read as / between folders")
        return said

    def notes(self) -> list[str]:
        """What may be wrong in rows that were read."""
        notes = []
        if self._floats:
            notes.append(f"{in_rows(self._floats)}: ids end in .0, as numbers of a spreadsheet do: are zeros before them lost?")
        if self._filled:
            notes.append(f"{in_rows(self._filled)}: a column without a name has content, which is left out")
        return notes

    @staticmethod
    def _same(text: str, last: str) -> str:
        return last if text == last else text  # one object for the rows of a case, which stand together: less memory

    def _check_shape(self, number: int, cells: Sequence[str]) -> bool:
        expected = self._columns.num_columns
        if len(cells) != expected and (len(cells) < expected or any(cells[expected:])):
            self.faults.append(
                Fault(number, "", f"has {len(cells)} cells, expected {expected}", "quote cells that hold what separates cells")
            )
            return False
        if any(cell[:1] == "#" for cell in cells):
            for place, name in self._used.items():
                if _FORMULA_ERROR.fullmatch(cells[place]):
                    hint = "mend the formula in the spreadsheet, or leave the cell empty, and export again"
                    self.faults.append(Fault(number, name, "holds an error of a spreadsheet's formula", hint))
                    return False
        if any(cells[place] for place in self._columns.nameless):
            self._filled.append(number)
        return True

    def _check_ids(self, number: int, cells: Sequence[str]) -> None:
        for name, place in self._ids:
            text = cells[place]
            if not text:
                hints = {
                    "case_id": "every image belongs to a case",
                    "patient_id": "fill it in for every row, or leave the column out: then a case is a patient",
                }
                self.faults.append(Fault(number, name, "is empty", hints[name]))
            elif text[-1] == "0" and _FLOAT.fullmatch(text):
                self._floats.append(number)
            elif _SCIENTIFIC.fullmatch(text):
                hint = "make the column text in the spreadsheet, fill it in anew, and export again: different ids may look the same"
                self.faults.append(Fault(number, name, "is a number in scientific notation, whose digits are lost", hint))

    def _read_image(self, number: int, cell: str) -> tuple[str, int | None]:
        if "\\" in cell:
            self._backslashes.append(number)
            cell = cell.replace("\\", "/")
        image, frame = split_frame(cell)
        if problem := _path_problem(image):
            hint = "name images relative to the image root, with / between folders"
            self.faults.append(Fault(number, "image", problem, hint))
        if frame == 0:
            self.faults.append(Fault(number, "image", "names frame 0, expected 1 or more", "frames count from 1"))
        return image, frame

    def _read_label(self, number: int, cell: str) -> int:
        if not cell or cell in self._labels:
            return self._labels.get(cell, -1)
        if (label := self._meant.get(plain_word(cell), -1)) < 0:
            self._unknown(number, "label", cell, self._classes)
        self._num_mapped += 1
        return label

    def _read_descriptors(self, number: int, cells: Sequence[str]) -> Mapping[str, int]:
        found = []
        for name, place, values in self._descriptors:
            if cell := cells[place]:
                if cell in values:
                    found.append((name, values[cell]))
                else:
                    self._unknown(number, name, cell, tuple(values))
        key = tuple(found)
        return self._seen.setdefault(key, dict(key))

    def _unknown(self, number: int, column: str, cell: str, values: Sequence[str]) -> None:
        what = {"label": "a class of the study", "split": "a split"}.get(column, "a value of the study")
        expected = "one of " + ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
        hint = "correct it, or leave it empty"
        letters = _letters(cell)
        meant = [value for value in values if letters and _letters(value) == letters]
        if len(meant) == 1:
            expected = f"{meant[0]}, from which it differs by capitals, blanks or signs alone"
            hint = f"write {meant[0]} as the study does"
        if column == "label":
            hint += ", or map it by the key labels of the site file"
        self.faults.append(Fault(number, column, f"is not {what}, expected {expected}", hint))


def plain_word(text: str) -> str:
    """`text` without what does not count in a label map: capitals, blanks around it, how accents are coded."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def split_frame(cell: str) -> tuple[str, int | None]:
    """Image and frame of an image cell: `clip.dcm#12` is frame 12 of clip.dcm."""
    if "#" in cell and (match := _FRAME.fullmatch(cell)):
        return _normal(match["image"]), int(match["frame"])
    return _normal(cell), None


def _normal(name: str) -> str:
    if "//" in name or "./" in name or "/." in name or name.endswith("/"):
        return str(PurePosixPath(name))
    return name


def _path_problem(image: str) -> str:
    if not image or image == ".":
        return "is empty"
    if image.startswith("/") or (image[1:2] == ":" and image[0].isalpha()):
        return "is an absolute path"
    return "leaves the image root" if ".." in image and ".." in PurePosixPath(image).parts else ""


def _letters(text: str) -> str:
    """Letters and digits alone, all small: alike for what people take for the same."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
