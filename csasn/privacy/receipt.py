"""The head of a site's ledger, as it goes with an answer, and the receipt that the coordinator keeps of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from csasn.configuration import Configuration

PURPOSE = "ledger-head"  # of the site's signature
RECEIVED_FILE = "received.jsonl"

Sign = Callable[[bytes], str]


@dataclass(frozen=True)
class Head:
    """The last line of a ledger, `before` the hash of the one before it; `sha256` is that of the payload that it goes with."""

    count: int
    hash: str
    before: str
    sha256: str
    signature: str = ""  # hex; empty in simulation, where sites have no identity

    @property
    def statement(self) -> bytes:
        """What the site signs."""
        return json.dumps([self.count, self.hash, self.before, self.sha256]).encode()

    def signed(self, sign: Sign | None) -> Self:
        """This head with the site's signature, where it has an identity."""
        return self if sign is None else replace(self, signature=sign(self.statement))


class Receipt(Configuration):
    """A line of the coordinator's `received.jsonl`: what came of a site, and what the site's ledger said with it.

    `refused` says how the head contradicts an earlier one; the answer was not used.
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
    refused: str = ""

    @property
    def head(self) -> Head:
        """The head that came with it."""
        return Head(self.count, self.hash, self.before, self.sha256, self.signature)


def read_receipts(path: Path) -> tuple[list[Receipt], int]:
    """The receipts in a file, none where there is no file, and the number of lines that cannot be read, as a crash leaves them."""
    receipts, unreadable = [], 0
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            receipts.append(Receipt.model_validate_json(line))
        except ValidationError:
            unreadable += 1
    return receipts, unreadable
