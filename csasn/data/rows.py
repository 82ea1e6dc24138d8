"""The rows of a manifest, one at a time: what their cells say, and what is wrong in them."""

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from csasn.data.faults import Fault, in_rows
from csasn.data.header import Columns, used_columns
from csasn.data.split import SPLITS
from csasn.study import Study

_FRAME = re.compile(r"(?P<image>.*\S)#(?P<frame>[0-9]{1,9})", re.DOTALL)
_FORMULA_ERROR = re.compile(r"#(?:N/[AD]|NV|[^\W\d_][\w/]{1,15}[!?])")  # in a spreadsheet's own language: #N/A, #NV, #REF!, #BEZUG!
_SCIENTIFIC = re.compile(r"[0-9](?:[.,][0-9]+)?[eE][+-][0-9]{2,3}")
_FLOAT = re.compile(r"[0-9]+[.,]0")
_NO_LABELS: Mapping[str, int] = {}
_IDS = {  # and what to do about an empty one
    "case_id": "every image belongs to a case",
    "patient_id": "fill it in for every row, or leave the column out: then a case is a patient",
}


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
        used = used_columns(study)
        self._used = {name: place for name, place in columns.places.items() if name in used}
        self._labels = _indices(study.classes)
        self._descriptors = {name: _indices(values) for name, values in study.descriptors.items() if name in self._used}
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
        of = {name: cells[place] for name, place in self._used.items()}
        case = self._last_case = self._same(of["case_id"], self._last_case)
        patient = self._last_patient = self._same(of.get("patient_id", case), self._last_patient)
        self._check_ids(number, of)
        image, frame = self._read_image(number, of["image"])
        label = self._read_label(number, of["label"])
        split = of.get("split", "")
        if split and split not in SPLITS:
            self._unknown(number, "split", split, SPLITS)
        labels = self._read_descriptors(number, of)
        if len(self.faults) > before:
            return None
        return Row(number, case, image, frame, label, sys.intern(split), labels, sys.intern(of.get("scanner", "")), patient)

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

    def _fault(self, number: int, column: str, problem: str, hint: str) -> None:
        self.faults.append(Fault(number, column, problem, hint))

    def _check_shape(self, number: int, cells: Sequence[str]) -> bool:
        expected = self._columns.num_columns
        if len(cells) != expected and (len(cells) < expected or any(cells[expected:])):
            self._fault(number, "", f"has {len(cells)} cells, expected {expected}", "quote cells that hold what separates cells")
            return False
        for name, place in self._used.items():
            if cells[place][:1] == "#" and _FORMULA_ERROR.fullmatch(cells[place]):
                hint = "mend the formula in the spreadsheet, or leave the cell empty, and export again"
                self._fault(number, name, "holds an error of a spreadsheet's formula", hint)
                return False
        if any(cells[place] for place in self._columns.nameless):
            self._filled.append(number)
        return True

    def _check_ids(self, number: int, of: Mapping[str, str]) -> None:
        for name, hint in _IDS.items():
            if not (text := of.get(name, "-")):
                self._fault(number, name, "is empty", hint)
            elif text[-1] == "0" and _FLOAT.fullmatch(text):
                self._floats.append(number)
            elif _SCIENTIFIC.fullmatch(text):
                mend = "make the column text in the spreadsheet, fill it in anew, and export again: different ids may look the same"
                self._fault(number, name, "is a number in scientific notation, whose digits are lost", mend)

    def _read_image(self, number: int, cell: str) -> tuple[str, int | None]:
        if "\\" in cell:
            self._backslashes.append(number)
            cell = cell.replace("\\", "/")
        image, frame = split_frame(cell)
        if problem := _path_problem(image):
            self._fault(number, "image", problem, "name images relative to the image root, with / between folders")
        if frame == 0:
            self._fault(number, "image", "names frame 0, expected 1 or more", "frames count from 1")
        return image, frame

    def _read_label(self, number: int, cell: str) -> int:
        if not cell or cell in self._labels:
            return self._labels.get(cell, -1)
        if (label := self._meant.get(plain_word(cell), -1)) < 0:
            self._unknown(number, "label", cell, self._classes)
        self._num_mapped += 1
        return label

    def _read_descriptors(self, number: int, of: Mapping[str, str]) -> Mapping[str, int]:
        for name, values in self._descriptors.items():
            if of[name] and of[name] not in values:
                self._unknown(number, name, of[name], tuple(values))
        key = tuple((name, values[of[name]]) for name, values in self._descriptors.items() if of[name] in values)
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
        self._fault(number, column, f"is not {what}, expected {expected}", hint)


def _indices(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


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
