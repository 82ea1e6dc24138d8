"""A site's diary: for each kind of question the last one that it answered, by number, transcript and answer.

It is on disk before an answer leaves, for as long as the study and its membership are, and bounds how often and in how many forms a
coordinator can ask. A coordinator that forgot where it was is told the number, and goes on above it. One number has one sum: where
a site came to something else when it worked again, since it failed before or its cases changed, two would differ by its part.

Not protected: a site that is brought back from a backup has an older diary; that of any other site still keeps to one sum a number.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from csasn.errors import KeptError, ProtocolError, TrustError
from csasn.federated.messages import Kind
from csasn.platform.configuration import Configuration, Sha256
from csasn.platform.storage import write_json

DIARY_FILE, PRIVATE = "diary.json", 0o600
OF_ROUNDS = (Kind.MEASURE, Kind.TRAIN)
FEW = 3  # questions of a kind that is asked once, where the coordinator had to begin anew


class NumberError(ProtocolError):
    """A question that comes again with other contents, too late, or once too often; `at` is the number of the last one answered."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message, "a coordinator that was restored asks a later one by itself")
        self.at = at


class Entry(Configuration):
    """A question that was answered, and how: by the view under which it was masked, in which are the keys that sites made for
    what they came to; in plain mode by the answer's SHA-256."""

    number: int = Field(ge=1)
    transcript: Sha256
    answer: Sha256


class Hospitals(Configuration):
    """For what a diary is kept: the sites that answered hello, or a survey, with this one, and the SHA-256 of the manifest that it
    counted."""

    study_hash: Sha256
    membership_hash: Sha256
    sites: tuple[str, ...]
    manifest_sha256: str = ""


class Contents(Configuration):
    """diary.json. `ledger_lines` is the length of the ledger when the last answer left; `withdrawn` how many withdrawals were in
    effect when it was worked on, and `withdrawn_before` when cases were counted first."""

    hospitals: Hospitals
    answered: dict[Kind, Entry] = Field(default_factory=dict)
    ledger_lines: int = 0
    withdrawn: int = 0
    withdrawn_before: int = 0


def highest_number(kind: Kind, num_rounds: int) -> int:
    """How often a kind of question may be asked: those of each round twice for each and ten times more, all else three times."""
    return 2 * num_rounds + 10 if kind in OF_ROUNDS else FEW


class Diary:
    """The diary in `folder`; a new one where there is none. It is read anew each time: another process may have had the last turn.

    Raises:
        TrustError: it is damaged, or of another study or membership: the site no longer knows what it answered.
    """

    def __init__(self, folder: Path, hospitals: Hospitals) -> None:
        self._path, self._hospitals = folder / DIARY_FILE, hospitals
        kept = self._contents.hospitals
        if (kept.study_hash, kept.membership_hash) != (hospitals.study_hash, hospitals.membership_hash):
            raise TrustError(f"{DIARY_FILE} is of another study or membership", "tell the coordinator")

    @property
    def _contents(self) -> Contents:
        return read_diary(self._path) or Contents(hospitals=self._hospitals)

    @property
    def ledger_lines(self) -> int:
        """The length of the ledger when the last answer left."""
        return self._contents.ledger_lines

    def check(self, kind: Kind, number: int, transcript: bytes, num_rounds: int) -> None:
        """Refuses a question that may not be answered.

        Raises:
            NumberError: it comes before the last one, is another one of its number, or is above the bound.
        """
        last = self._contents.answered.get(kind)
        at, bound = last.number if last else 0, highest_number(kind, num_rounds)
        if number > bound:
            raise NumberError(f"{kind} {number} is asked for, expected {bound} at most", at)
        if number < at:
            raise NumberError(f"{kind} {number} is asked for, after {kind} {at} was answered", at)
        if last and number == at and transcript.hex() != last.transcript:
            raise NumberError(f"{kind} {number} is asked for with other contents than it was answered with", at)

    def note(self, kind: Kind, entry: Entry, ledger_lines: int, manifest_sha256: str | None = None) -> None:
        """Writes that a question is answered, before its answer leaves.

        Raises:
            NumberError: it was answered otherwise before.
            StorageError: it cannot be written: nothing may leave.
        """
        before = self._contents
        last = before.answered.get(kind)
        if last and last.number == entry.number and last != entry:
            raise NumberError(f"{kind} {entry.number} was answered before, and would be answered otherwise now", last.number)
        hospitals = before.hospitals
        if manifest_sha256 is not None:
            hospitals = hospitals.model_copy(update={"manifest_sha256": manifest_sha256})
        answered, lines = {**before.answered, kind: entry}, max(ledger_lines, before.ledger_lines)
        self._write(before, {"hospitals": hospitals, "answered": answered, "ledger_lines": lines})

    @property
    def withdrawn(self) -> int:
        """How many withdrawals were in effect in the last work."""
        return self._contents.withdrawn

    @property
    def withdrawn_since(self) -> int:
        """How many of them came after cases were counted first."""
        return max(0, self._contents.withdrawn - self._contents.withdrawn_before)

    def note_withdrawn(self, number: int, *, before: bool) -> None:
        """Writes how many withdrawals are in effect; `before` any training.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(self._contents, {"withdrawn": number} | ({"withdrawn_before": number} if before else {}))

    def _write(self, before: Contents, changes: Mapping[str, object]) -> None:
        after = before.model_copy(update=changes)
        if after != before:
            write_json(self._path, after.model_dump(mode="json"), PRIVATE)


def read_diary(path: Path) -> Contents | None:
    """What a diary says, None where there is none.

    Raises:
        TrustError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        return Contents.model_validate_json(path.read_bytes())
    except (ValidationError, OSError):
        raise KeptError(
            f"{DIARY_FILE} is damaged, so that this site no longer knows what it answered",
            "bring it back from a backup; or, if the coordinator is told, go on with another study seed",
        ) from None
