"""The one way out of a site: a reply becomes records, passes the gate, is a line in the ledger, and only then is a message."""

import logging

from csasn import wire
from csasn.federated.messages import Absence, Reply
from csasn.privacy.gate import RefusedError, Terms, check_outgoing, contents_of
from csasn.privacy.ledger import Ledger, Occasion
from csasn.trust.identity import Sign
from csasn.wire.payload import describe

log = logging.getLogger(__name__)


class Outbox:
    """What leaves one site. `sign` signs with the site's identity, where it has one."""

    def __init__(self, ledger: Ledger, sign: Sign | None = None) -> None:
        self.ledger = ledger
        self.sign = sign

    def post(self, reply: Reply, occasion: Occasion, terms: Terms | None) -> wire.Records:
        """The records of `reply` with the head of the ledger; of an absence, where the gate refuses them: the site's log says why.

        Raises:
            LedgerError: the ledger is broken: nothing may be sent.
            StorageError: the ledger cannot be written: nothing may be sent.
        """
        try:
            return self._pass(reply, occasion, terms)
        except RefusedError as refusal:
            log.error("%s", f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message)
            return self._pass(Absence(refusal.reason), occasion, None)

    def bytes_left(self, budget_mib: float | None, run: str, current_round: int) -> float | None:
        """What a budget for each round still holds, by the ledger: a restart of the site does not fill it again."""
        return None if budget_mib is None else budget_mib * 2**20 - self.ledger.sent_bytes(run, current_round)

    def _pass(self, reply: Reply, occasion: Occasion, terms: Terms | None) -> wire.Records:
        records = wire.answer_to_records(reply)
        outgoing = describe(records)
        try:
            check_outgoing(outgoing, terms)
        except RefusedError as refusal:
            self.ledger.append(occasion, contents_of(outgoing), "refused", refusal.message)
            raise
        said = str(reply) if isinstance(reply, Absence) else ""
        head = self.ledger.append(occasion, contents_of(outgoing), "sent", said)
        return wire.attach_head(records, head.signed(self.sign))
