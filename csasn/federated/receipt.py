"""The head of a site's ledger, as it goes with an answer, and the receipt that the coordinator keeps of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from csasn.platform.canonical import canonical
from csasn.platform.configuration import Configuration
from csasn.trust.identity import Sign

PURPOSE = "ledger-head"  # of the site's signature
RECEIVED_FILE = "received.jsonl"
START = "0" * 64  # what the first line of a ledger follows, and the chain of one that was never lost


@dataclass(frozen=True)
class Head:
    """The last line of a ledger, `before` the hash of the one before it; `sha256` is that of the payload that it goes with.

    `chain` is the hash of the line with which the ledger was last taken up after it was lost or older than the site's diary;
    where it never was, what the first line follows.
    """

    count: int
    hash: str
    before: str
    sha256: str
    chain: str = START
    signature: str = ""  # hex; empty in simulation, where sites have no identity

    @property
    def statement(self) -> bytes:
        """What the site signs."""
        return canonical(["csasn ledger head v2", self.chain, self.count, self.hash, self.before, self.sha256])

    def signed(self, sign: Sign | None) -> Self:
        """This head with the site's signature, where it has an identity."""
        return self if sign is None else replace(self, signature=sign(PURPOSE, self.statement))


class Receipt(Configuration):
    """A line of the coordinator's `received.jsonl`: what came of a site, and what the site's ledger said with it.

    `refused` says what is wrong with the head; the answer was not used. `marked` says that the site's ledger does not go on from
    the heads that came before, as after it was brought back from a copy; the answer was used.
    """

    site: str
    run: str
    round: int
    attempt: int
    kind: str
    bytes: int
    sha256: str
    count: int
    hash: str
    before: str
    signature: str
    chain: str = START
    refused: str = ""
    marked: str = ""

    @property
    def head(self) -> Head:
        """The head that came with it."""
        return Head(self.count, self.hash, self.before, self.sha256, self.chain, self.signature)


def read_receipts(path: Path) -> tuple[list[Receipt], int]:
    """The receipts in a file, none where there is no file, and the number of lines that cannot be read, as a crash leaves them."""
    receipts, unreadable = [], 0
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            receipts.append(Receipt.model_validate_json(line))
        except ValidationError:
            unreadable += 1
    return receipts, unreadable
