"""A file that another process appends lines to, read as it grows: each look takes what was added alone."""

import os
from pathlib import Path

HEAD_BYTES = 128  # by which a file is told from another one of its name, of which inode and size may be the same


class GrowingFile:
    """The lines of a file since the last look; of all of it at the first, unless it is read `from_end`."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path, self._head, self._read_bytes = path, b"", 0
        if from_end:
            self.read()

    def read(self) -> tuple[list[bytes], bool]:
        """The whole lines that were added, and whether the file is another one by now, of which these are all. A line that is
        still being written waits for the next look."""
        try:
            with self._path.open("rb") as file:
                shorter = os.fstat(file.fileno()).st_size < self._read_bytes
                anew = shorter or file.read(len(self._head)) != self._head
                self._read_bytes = 0 if anew else self._read_bytes
                file.seek(self._read_bytes)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            whole, end, anew, self._read_bytes = b"", b"", self._read_bytes > 0, 0
        if self._read_bytes == 0:
            self._head = (whole + end)[:HEAD_BYTES]
        self._read_bytes += len(whole + end)
        return whole.splitlines(), anew
