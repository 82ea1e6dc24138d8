"""What left a site, line by line of its ledger, in plain words: read as the ledger grows, and checked as it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csasn.errors import ProtocolError
from csasn.federated.receipt import START
from csasn.platform.growing_file import GrowingFile
from csasn.privacy.ledger import LEDGER_FILE, Entry, read_chain

COLLECT, READY, SEALED = "collect", "ready/", "sealing/"
ASKED = {
    "hello": "how many cases of each class", "survey": "what cases there are", "measure": "statistics of the model's layers",
    "train": "training in round {}", "validate": "how good the model is", "finish": "how good the finished model is",
    COLLECT: "the masked answer", "": "", "unreadable": "a question that could not be read",
}  # fmt: skip
OUTCOMES = {"cut": "a line that a crash cut short: nothing of it left", "restored": "the ledger was brought back, or lost",
            "withdrawn": "a patient withdrew"}  # fmt: skip


def asked_in_words(entry: Entry) -> str:
    """What the coordinator had asked for."""
    return ASKED.get(entry.kind, entry.kind).format(entry.round)


def left_in_words(entry: Entry) -> str:
    """What left with a line; nothing where it is of no message."""
    if entry.outcome == "refused":
        return f"nothing: {entry.why}"
    if entry.outcome != "sent":
        return OUTCOMES[entry.outcome] + (f": {entry.why}" if entry.why else "")
    if entry.why:
        return f"why it does not answer: {entry.why}"
    arrays = {name.rpartition("/")[2] for name, *_ in entry.arrays}
    if not arrays and any(name.startswith(READY) for name in entry.values):
        return "that it is ready, with a key for this question alone"
    parts = [words for name, words in (("update", "a change of the model"), ("counts", "counts over its cases")) if name in arrays]
    masked = ", masked" if any(name.startswith(SEALED) for name in entry.values) else ""
    return (" and ".join(parts) or ", ".join(sorted(arrays)) or "a word") + masked


@dataclass
class Leaving:
    """A ledger so far. `fault` is how its chain is broken, if it is: after that line nothing is read."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    fault: str = ""

    def __post_init__(self) -> None:
        self._file = GrowingFile(self.path / LEDGER_FILE)

    def read(self) -> Sequence[Entry]:
        """All lines so far, the newest last."""
        lines, anew = self._file.read()
        if anew:
            self.entries, self.fault = [], ""
        before = self.entries[-1].hash if self.entries else START
        try:
            for item in read_chain((line + b"\n" for line in lines), len(self.entries), before) if not self.fault else ():
                assert isinstance(item, Entry)
                self.entries.append(item)
        except ProtocolError as error:
            self.fault = error.message
        return self.entries

    @property
    def sent(self) -> list[Entry]:
        """The lines of messages that left."""
        return [entry for entry in self.entries if entry.outcome == "sent"]
