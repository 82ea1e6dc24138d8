"""A site's ledger: one line for each message, sent or refused, chained by hashes (csasn/SPEC.md, "Ledger").

A line is JSON that ends in its own hash: SHA-256 of the bytes before it, which hold the hash of the line before. It is on disk
before the first byte of its message leaves.

Not protected: whoever administers the site can write a whole new ledger; only heads that the coordinator holds tell. Lines cut off
the end are found by those alone.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from csasn.errors import ProtocolError, StorageError
from csasn.federated.receipt import START, Head
from csasn.platform.configuration import Configuration
from csasn.platform.locks import open_locked
from csasn.platform.storage import append_line, reason_of

LEDGER_FILE = "ledger.jsonl"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_LINE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}')

Outcome = Literal["sent", "refused", "cut", "restored", "withdrawn"]


class LedgerError(ProtocolError):
    """A ledger that is not as it was written: nothing is sent with it."""


@dataclass(frozen=True)
class Occasion:
    """The request that a message answers; `kind` is `unreadable` where the site could not read it."""

    run: str = ""
    round: int = 0
    attempt: int = 0
    kind: str = "unreadable"


class Entry(Configuration):
    """A line. `arrays` are [record/name, dtype, shape], `values` record/name; `bytes` and `sha256` are those of the payload.

    `why` is why it was refused, or what an absence said.
    `cut` notes that `bytes` bytes of a line, which a crash cut short, were taken away: its message had not left. `restored` begins
    a new chain of heads: the ledger was missing, or older than the site's diary, as after it was brought back from a copy.
    `withdrawn` says that a patient withdrew, and, with the kind of a question, that from this one on nothing of theirs is used;
    `sha256` tells one withdrawal from another.
    """

    count: int
    time: str
    run: str
    round: int
    attempt: int
    kind: str
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]
    values: tuple[str, ...]
    bytes: int
    sha256: str
    outcome: Outcome
    why: str
    before: str
    hash: str


@dataclass(frozen=True)
class Contents:
    """What a message holds, for the ledger; nothing, where the line is of no message."""

    arrays: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    values: tuple[str, ...] = ()
    num_bytes: int = 0
    sha256: str = EMPTY_SHA256


def read_chain(lines: Iterable[bytes], count: int = 0, before: str = START) -> Iterator[Entry | bytes]:
    """The entries of `lines`, each checked against the one before, from line `count` + 1 on.

    The last item may be the bytes of a line that a crash cut short. A line that lacks nothing but its end counts as whole.

    Raises:
        LedgerError: a line was edited, moved, added or taken away; it is named.
    """
    for line in lines:
        number = count + 1
        entry = _entry(line.removesuffix(b"\n"))
        if entry is None and _is_cut(line):
            yield line
            return
        if entry is None:
            raise broken(number, "its text does not fit its hash, so it was edited")
        if entry.count != number:
            raise broken(number, f"it says that it is line {entry.count}, so lines were moved, added or taken away")
        if entry.before != before:
            raise broken(number, "it does not follow from the line before, so one of the two was replaced")
        count, before = number, entry.hash
        yield entry


def broken(number: int, what: str) -> LedgerError:
    """The error about a line."""
    return LedgerError(
        f"{LEDGER_FILE} line {number}: {what}",
        "nothing is sent with it; restore it from a copy, or set it aside under another name and tell the coordinator why",
    )


class Ledger:
    """The ledger at `path`, verified when it is opened; after that only lines that other processes of the site added are.

    Raises:
        LedgerError: its chain is broken.
        StorageError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count, self._hash, self._size, self._chain = 0, START, 0, START
        self._sent: Counter[tuple[str, int]] = Counter()  # bytes by run and round
        with self._locked() as file:
            self._catch_up(file)

    @property
    def num_lines(self) -> int:
        """How many lines it has."""
        return self._count

    def expect(self, num_lines: int) -> None:
        """Begins a new chain of heads where the ledger is shorter than it was when the site's last answer left.

        Raises:
            StorageError: the line that says so cannot be written.
        """
        if self._count < num_lines:
            with self._locked() as file:
                self._catch_up(file)
                why = f"the ledger ended at line {self._count}, and had {num_lines} when this site last answered"
                self._write(file, Occasion(kind=""), Contents(), "restored", why)

    def sent_bytes(self, run: str, current_round: int) -> int:
        """Bytes of payload recorded as sent in a round."""
        return self._sent[run, current_round]

    def append(self, occasion: Occasion, contents: Contents, outcome: Outcome = "sent", why: str = "") -> Head:
        """Writes the line of a message and waits until it is on disk; the new head.

        Raises:
            LedgerError: the ledger is not as it was left.
            StorageError: the line cannot be written.
        """
        with self._locked() as file:
            self._catch_up(file)
            before = self._hash
            self._write(file, occasion, contents, outcome, why)
            return Head(self._count, self._hash, before, contents.sha256, self._chain)

    def note_withdrawal(self, sha256: str, occasion: Occasion, why: str = "") -> None:
        """Writes that a patient withdrew, or, with the question, that this is in effect.

        Raises:
            LedgerError, StorageError: as `append`.
        """
        self.append(occasion, Contents(sha256=sha256), "withdrawn", why)

    def has_withdrawal(self, sha256: str) -> bool:
        """Whether it holds the line that says so."""
        with self.path.open("rb") as file:
            return any(
                isinstance(line, Entry) and line.outcome == "withdrawn" and line.sha256 == sha256 for line in read_chain(file)
            )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file; other processes of the site wait."""
        try:
            file = open_locked(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise StorageError(f"cannot open {self.path.name}: {reason_of(error)}", "check its folder and permissions") from None
        try:
            yield file
        finally:
            os.close(file)

    def _catch_up(self, file: int) -> None:
        """Verifies what was added since the last look, and mends an end that a crash cut short."""
        if os.fstat(file).st_size < self._size:
            raise broken(self._count, "it is gone, so the ledger was cut while the site ran")
        cut = b""
        with open(file, "rb", closefd=False) as lines:
            lines.seek(self._size)
            for item in read_chain(lines, self._count, self._hash):
                if isinstance(item, Entry):
                    self._take(item, lines.tell())
                else:
                    cut = item
        if cut:
            os.ftruncate(file, self._size)
            self._write(file, Occasion(kind=""), Contents(num_bytes=len(cut), sha256=hashlib.sha256(cut).hexdigest()), "cut")
        elif self._size and os.pread(file, 1, self._size - 1) != b"\n":
            os.write(file, b"\n")
            os.fsync(file)
            self._size += 1

    def _write(self, file: int, occasion: Occasion, contents: Contents, outcome: Outcome, why: str = "") -> None:
        facts = {
            "count": self._count + 1, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(occasion),
            "arrays": contents.arrays, "values": contents.values, "bytes": contents.num_bytes, "sha256": contents.sha256,
            "outcome": outcome, "why": why, "before": self._hash,
        }  # fmt: skip
        line = seal(facts)
        append_line(self.path, line, 0o600)
        self._take(Entry.model_validate_json(line), os.fstat(file).st_size)

    def _take(self, entry: Entry, size: int) -> None:
        self._count, self._hash, self._size = entry.count, entry.hash, size
        if entry.outcome == "restored":
            self._chain = entry.hash
        if entry.outcome == "sent":
            self._sent[entry.run, entry.round] += entry.bytes


def seal(facts: Mapping[str, object]) -> str:
    """The line of an entry: its JSON, then its hash."""
    body = json.dumps(facts, separators=(",", ":"))[:-1]
    return f'{body},"hash":"{hashlib.sha256(body.encode()).hexdigest()}"}}'


def _entry(line: bytes) -> Entry | None:
    """The entry of a line, None where its text does not fit its hash."""
    parts = _LINE.fullmatch(line)
    if parts is None or hashlib.sha256(parts[1]).hexdigest().encode() != parts[2]:
        return None
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def _is_cut(line: bytes) -> bool:
    """Whether this is a line's beginning alone: no end of line, and no whole JSON value, with or without something after it."""
    if line.endswith(b"\n"):
        return False
    try:
        json.JSONDecoder().raw_decode(line.decode("latin-1"))
    except ValueError:
        return True
    return False
