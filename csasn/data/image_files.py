"""Where the images of a manifest are on the disk: names may be coded or written otherwise there than in the sheet."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from csasn.data.faults import Fault, in_rows
from csasn.data.rows import Row

_HINT = "name it as the file is named, in the sheet or on the disk"


def find_images(root: Path, rows: Sequence[Row]) -> tuple[list[Path], list[Fault], tuple[str, ...]]:
    """The path of each row's image; faults of those that are there by nearly their name; and notes.

    A name that differs from a file's only by how Unicode codes accents (composed in the sheet, decomposed on the disk, or the
    reverse) is that file's. Where nothing is near, the path is as the sheet says, and who reads it tells that it is not there.
    """
    tree = _Tree(root)
    paths, faults, recoded = [], [], []
    for row in rows:
        found, problem = tree.find(row.image)
        if problem:
            faults.append(Fault(row.number, "image", problem, _HINT))
        elif found != row.image:
            recoded.append(row.number)
        paths.append(root / found)
    said = f"{in_rows(sorted(recoded))}, column image: accents are coded otherwise than on the disk; read" if recoded else ""
    return paths, faults, (said,) if said else ()


class _Tree:
    """The names in the folders below `root`, each folder listed once: on a network share that is less than a question an image."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, tuple[str, str]] = {"": ("", "")}
        self._folders: dict[str, _Folder] = {}

    def find(self, path: str) -> tuple[str, str]:
        """The path on the disk, or the same and what is wrong."""
        parent, _, name = path.rpartition("/")
        if parent not in self._found:
            self._found[parent] = self.find(parent)
        place, problem = self._found[parent]
        if problem:
            return path, problem
        folder = self._list(place)
        if name not in folder.names:
            same = folder.by_accents.get(_nfc(name), [])
            if len(same) != 1:
                return path, folder.near(name)
            name = same[0]
        return (f"{place}/{name}" if place else name), ""

    def _list(self, place: str) -> "_Folder":
        """The names in a folder; none where it cannot be listed, which reading the image will tell better."""
        if place not in self._folders:
            try:
                self._folders[place] = _Folder(frozenset(os.listdir(self._root / place)))
            except (OSError, ValueError):  # not there, or a name that no file can have
                self._folders[place] = _Folder(frozenset())
        return self._folders[place]


@dataclass(frozen=True)
class _Folder:
    """The names in one folder, and the same by what may differ in a sheet."""

    names: frozenset[str]

    @cached_property
    def by_accents(self) -> dict[str, list[str]]:
        return _grouped(self.names, _nfc)

    @cached_property
    def _by_capitals(self) -> dict[str, list[str]]:
        return _grouped(self.names, _small)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.names, lambda name: _small(_stem(name)))

    def near(self, name: str) -> str:
        """In what a file that is there differs from `name`, which is not there; or nothing."""
        if _small(name) in self._by_capitals:
            return "is not there, but one of this name in other capitals is"
        like = self._by_stem.get(_small(name)) or self._by_stem.get(_small(_stem(name)), [])
        endings = {os.path.splitext(other)[1] for other in like}
        if not endings:
            return ""
        ending = min(endings)
        shown = f"the ending {ending}" if len(endings) == 1 and ending[1:].isalpha() and len(ending) <= 6 else "another ending"
        return f"is not there, but one of this name with {shown} is"


def _grouped(names: Iterable[str], of: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(of(name), []).append(name)
    return groups


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _small(text: str) -> str:
    return _nfc(text).casefold()
