"""What came of each site, and what the site's ledger said with it: `received.jsonl` of a run directory.

The coordinator sees heads alone, never the lines between. It can say that a ledger does not go on from where it was: its count does
not rise, or its next line does not follow from the last one seen. That is marked and told, and stops nothing: secrecy does not
rest on it, and a site that was brought back from a copy has such a ledger. Lines between two heads are the site's own audit to
check.

A site gets its own lines alone: a hash of small numbers, such as the class histogram, can be guessed.
"""

from pathlib import Path

from csasn import wire
from csasn.errors import CsasnError, ProtocolError
from csasn.federated.messages import Request
from csasn.federated.receipt import PURPOSE, RECEIVED_FILE, Head, Receipt, read_receipts
from csasn.platform.storage import append_line
from csasn.trust.identity import verify
from csasn.trust.membership import Membership
from csasn.wire.payload import measure_payload

ASK = "it was cut, replaced or brought back from an older copy; the site can show it by client audit"


class Receipts:
    """The receipts of a run; `membership` says which sites have an identity to sign with."""

    def __init__(self, folder: Path, membership: Membership) -> None:
        self.path = folder / RECEIVED_FILE
        self._identities = {member.site: member.identity for member in membership.members}
        self._heads = {receipt.site: receipt.head for receipt in read_receipts(self.path)[0] if not receipt.refused}

    def take(self, site: str, request: Request, records: wire.Records) -> str:
        """Keeps the receipt of an answer, on disk before it is used; how the site's ledger does not go on, if it does not.

        Raises:
            ProtocolError: the answer carries no head, one of another payload, or one that the site did not sign.
            StorageError: the receipt cannot be written.
        """
        head = wire.head_from_records(records)
        num_bytes, sha256 = measure_payload(records)
        refused = self._fault(site, head, sha256)
        marked = "" if refused else self._contradiction(site, head)
        receipt = Receipt(
            site=site, run=request.header.run, round=request.header.round, attempt=request.header.attempt,
            kind=request.kind.value, bytes=num_bytes, sha256=sha256, count=head.count, hash=head.hash, before=head.before,
            signature=head.signature, chain=head.chain, refused=refused, marked=marked,
        )  # fmt: skip
        append_line(self.path, receipt.model_dump_json(), 0o600)
        if refused:
            raise ProtocolError(refused)
        self._heads[site] = head
        return marked

    def _fault(self, site: str, head: Head, sha256: str) -> str:
        """Why a head cannot be believed; empty where it can."""
        if head.sha256 != sha256:
            return "the site's ledger speaks of another message than the one that came"
        if identity := self._identities[site]:
            try:
                verify(identity, PURPOSE, head.statement, head.signature, site)
            except CsasnError as error:
                return error.message
        return ""

    def _contradiction(self, site: str, head: Head) -> str:
        """How a head does not go on from the last one of this site."""
        last = self._heads.get(site)
        if last is None:
            return ""
        if head.chain != last.chain:
            return (
                f"the site's ledger begins a new chain at line {head.count}, after line {last.count}: it was brought back, or lost"
            )
        if head.count <= last.count:
            return f"the site's ledger went back from line {last.count} to line {head.count}: {ASK}"
        if head.count == last.count + 1 and head.before != last.hash:
            return f"line {head.count} of the site's ledger does not follow from line {last.count} that came before: {ASK}"
        return ""
