"""Where an import lies until a person approves it: `.import` in the folder that it is for.

Pictures are written one by one, each with a line of the journal once it is on disk, so that a killed import goes on where it
stopped and fetches nothing twice but the object that it was at. The journal knows objects by keyed hashes. The manifest comes last:
with it the import is ready. Approval moves the pictures and then the manifest; killed in between, it goes on when asked again.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from csasn.errors import ConfigurationError, StorageError
from csasn.platform.configuration import Configuration
from csasn.platform.locks import take_lock
from csasn.platform.storage import (
    TEMPORARY,
    append_line,
    atomic_writer,
    file_sha256,
    private_folder,
    writable_folder,
    write_atomically,
)

FOLDER, JOURNAL, LOCK = ".import", "journal.jsonl", "lock"
MANIFEST, IMAGES, LEFT_OUT, SHEET = "manifest.csv", "images", "left-out.csv", "contact-sheet"
PRIVATE = 0o600
GO_ON = "the same command goes on where this one stopped"


class Taken(Configuration):
    """A picture that was taken: its file's name and SHA-256, its frame (None: the only one), and the scanner's maker and model."""

    name: str = Field(pattern=r"^i[0-9a-f]{24}(-[0-9]+)?\.png$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    frame: int | None
    scanner: str


class Done(Configuration):
    """An object that was dealt with: what was taken of it, and why not the rest. `work` is the hash of object and options."""

    work: str
    taken: tuple[Taken, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Staging:
    """The folder of an import that is not approved yet, for the folder `out`."""

    out: Path

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.out / FOLDER

    @property
    def images(self) -> Path:
        """Where its pictures are."""
        return self.folder / IMAGES

    @property
    def is_ready(self) -> bool:
        """Whether it waits for approval."""
        return (self.folder / MANIFEST).exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other imports out while the block lasts.

        Raises:
            ConfigurationError: another one is at work in this folder.
            StorageError: the folder cannot be written.
        """
        writable_folder(self.out, 0o700)
        lock = take_lock(private_folder(self.folder) / LOCK)
        if lock is None:
            raise ConfigurationError(f"another import is at work in {self.out}", "wait for it, or name another folder with --out")
        try:
            yield
        finally:
            os.close(lock)

    def require_free(self) -> None:
        """Refuses a folder that holds a data set already.

        Raises:
            ConfigurationError: it does.
        """
        if self.is_ready and not self.images.exists():
            raise ConfigurationError(f"an approval in {self.out} was interrupted", "finish it with --approve")
        if taken := [name for name in (MANIFEST, IMAGES, LEFT_OUT) if (self.out / name).exists()]:
            hint = "name another folder with --out; patients get the same identifiers in it"
            raise ConfigurationError(f"{self.out} holds {' and '.join(taken)} already, which an import does not replace", hint)

    def begin(self) -> dict[str, Done]:
        """Makes it not ready, removes what a killed import left half-written, and says what is done already."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for path in [*self.folder.glob(f"{SHEET}-*.png"), self.folder / LEFT_OUT, *self.folder.rglob(f".*{TEMPORARY}")]:
            path.unlink(missing_ok=True)
        private_folder(self.images)
        return {entry.work: entry for entry in self._read_journal() if all(map(self._is_there, entry.taken))}

    def keep_picture(self, name: str, png: bytes) -> None:
        """Writes a picture; an error of it names no picture. One that a power cut takes has not the journal's hash."""
        with _unnamed(), atomic_writer(self.images / name, PRIVATE, sync=False) as file:
            file.write(png)

    def note(self, entry: Done) -> None:
        """Writes into the journal that an object is dealt with, after its pictures were written."""
        with _unnamed():
            append_line(self.folder / JOURNAL, entry.model_dump_json(), PRIVATE)

    def finish(self, manifest: bytes, left_out: bytes, names: Iterable[str]) -> None:
        """Removes pictures that are none of `names`, and writes the two tables: the manifest when all else is on disk."""
        wanted = set(names)
        for path in self.images.iterdir():
            if path.name not in wanted:
                path.unlink()
        write_atomically(self.folder / LEFT_OUT, left_out, PRIVATE)
        os.sync()
        write_atomically(self.folder / MANIFEST, manifest, PRIVATE)

    def approve(self) -> None:
        """Moves the data set into place, the manifest last, and removes the rest.

        Raises:
            ConfigurationError: nothing waits for approval, or something is in its place.
            StorageError: it cannot be moved.
        """
        if not self.is_ready:
            raise ConfigurationError(f"nothing in {self.out} waits for approval", "import first: client import --help")
        if self.images.exists():
            self.require_free()
        try:
            for name in (IMAGES, LEFT_OUT, MANIFEST):
                if (self.folder / name).exists():
                    os.rename(self.folder / name, self.out / name)
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise StorageError(f"cannot move the import into {self.out}: {reason}", "see its owner, and approve again") from None
        self.discard()

    def discard(self) -> None:
        """Removes all that is not approved."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_journal(self) -> Iterator[Done]:
        """Its whole lines; one that a kill or a full disk cut short is none."""
        with suppress(FileNotFoundError):
            for line in (self.folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValidationError):
                    yield Done.model_validate_json(line)

    def _is_there(self, taken: Taken) -> bool:
        try:
            return file_sha256(self.images / taken.name) == taken.sha256
        except OSError:
            return False


@contextmanager
def _unnamed() -> Iterator[None]:
    """Leaves a file's name out of what is said when it cannot be written."""
    try:
        yield
    except StorageError as error:
        reason = error.message.rpartition(": ")[2]
        raise StorageError(f"cannot write the pictures: {reason}", f"{error.hint}; {GO_ON}") from None
