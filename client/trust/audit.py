"""`client audit`: what has left this site, by its ledger, and whether that is what the coordinator received.

It trusts neither side: the ledger's chain is verified line by line, and each receipt must name a line that is there. What it cannot
find without receipts: lines cut off the end, and a ledger that was written anew from the start.

A ledger that was brought back from a copy, or lost, lacks lines that the coordinator has receipts of. Where the ledger says so
itself (a line `restored`), or the coordinator marked it when it came, these receipts are counted and told, and are no fault; what
they were of can then be read at the coordinator alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.trust.prose import render_lines
from csasn.errors import ConfigurationError, ProtocolError
from csasn.federated.messages import Kind
from csasn.federated.receipt import PURPOSE, START, Receipt, read_receipts
from csasn.privacy.ledger import LEDGER_FILE, Entry, read_chain
from csasn.site import Site
from csasn.trust.identity import IDENTITY_KEY, read_public_keys, verify

SENT, REFUSED, CUT, RESTORED, WITHDRAWN = "sent", "refused", "cut", "restored", "withdrawn"
OF_NO_MESSAGE = (CUT, RESTORED, WITHDRAWN)


@dataclass(frozen=True)
class RunAudit:
    """One run. `arrays` are all that were sent, with type and shape. By line, `absences` is what was said in place of an answer,
    `refused` why nothing was sent; `not_received` are lines without a receipt, None where no receipt is of this run.
    """

    run: str
    messages: Mapping[str, int]
    num_bytes: int
    arrays: Sequence[str]
    absences: Mapping[int, str]
    refused: Mapping[int, str]
    not_received: Sequence[int] | None


@dataclass(frozen=True)
class Lost:
    """Messages that the coordinator received under one chain of heads, from line `first` to `last`, whose lines this ledger no
    longer holds."""

    chain: str
    messages: int
    first: int
    last: int

    @classmethod
    def of(cls, receipts: Sequence[Receipt]) -> "Lost":
        """Of receipts of one chain."""
        counts = [receipt.count for receipt in receipts]
        return cls(receipts[0].chain, len(receipts), min(counts), max(counts))


@dataclass(frozen=True)
class Trained:
    """What a withdrawal means for one run: rounds that were answered with the patient's cases, if they were in manifest.csv then,
    and the round from which on they are in nothing, None while no question came since; 0 is the count of cases before round 1."""

    run: str
    rounds: Sequence[int]
    free_from: int | None


@dataclass(frozen=True)
class Withdrawal:
    """A patient who withdrew, by the line that says so."""

    line: int
    time: str
    why: str
    runs: Sequence[Trained]


@dataclass(frozen=True)
class AuditReport:
    """What a ledger says of a site, after its chain was found whole and no receipt contradicted it.

    `restored` is, by line, why a new chain of heads begins there; `receipts` are those whose lines are in the ledger, None where
    none were given, and `lost` those whose lines no longer are.
    """

    site: str
    num_lines: int
    head: str
    cut_lines: int
    restored: Mapping[int, str]
    receipts: int | None
    lost: Sequence[Lost]
    signatures_checked: bool
    unreadable_receipts: int
    runs: Sequence[RunAudit]
    withdrawals: Sequence[Withdrawal]

    def lines(self) -> list[str]:
        """The report in plain words."""
        return render_lines("audit.txt", report=self, start=START, survey=Kind.SURVEY)


def audit(ledger: Path, received: Path | None = None, site: str = "", identity: str | None = None) -> AuditReport:
    """Verifies a ledger, and reconciles it with what the coordinator received.

    Args:
        ledger: the site's ledger.jsonl; it is not changed.
        received: the coordinator's received.jsonl.
        site: whose receipts to take from it.
        identity: the site's public identity (hex), to check that the heads in the receipts are signed by it.

    Raises:
        ProtocolError: the ledger was edited, cut or rewritten, or the receipts are not of it; the first bad line is named.
        TrustError: a receipt holds a head that this site did not sign.
        ConfigurationError: a file is missing.
    """
    for path in (ledger, received):
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{path} is not there", "name it with --ledger or --received")
    with ledger.open("rb") as file:
        entries = [item for item in read_chain(file) if isinstance(item, Entry)]
    receipts, unreadable = read_receipts(received) if received else ([], 0)
    receipts = [receipt for receipt in receipts if receipt.site == site]
    held, lost = _reconcile(receipts, entries, identity)
    compared = {receipt.run for receipt in receipts}
    arrived = {receipt.count for receipt in held}
    runs = dict.fromkeys(entry.run for entry in entries if entry.outcome not in OF_NO_MESSAGE)
    return AuditReport(
        site=site,
        num_lines=len(entries),
        head=entries[-1].hash if entries else "",
        cut_lines=sum(entry.outcome == CUT for entry in entries),
        restored={entry.count: entry.why for entry in entries if entry.outcome == RESTORED},
        receipts=len(held) if received else None,
        lost=lost,
        signatures_checked=bool(identity and receipts),
        unreadable_receipts=unreadable,
        runs=[_audit_run(run, entries, arrived if run in compared else None) for run in runs],
        withdrawals=[_follow(entry, entries) for entry in entries if entry.outcome == WITHDRAWN and not entry.kind],
    )


def _reconcile(receipts: Sequence[Receipt], entries: Sequence[Entry], identity: str | None) -> tuple[list[Receipt], list[Lost]]:
    """The receipts whose lines are in the ledger, and what is known of the others, chain by chain.

    Raises:
        ProtocolError: a receipt contradicts the ledger, and no break explains it.
        TrustError: the site did not sign a receipt.
    """
    held: list[Receipt] = []
    lost: dict[str, list[Receipt]] = {}
    breaks = [index for index, receipt in enumerate(receipts) if receipt.marked]
    for index, receipt in enumerate(receipts):
        if identity and not receipt.refused:
            verify(identity, PURPOSE, receipt.head.statement, receipt.signature, receipt.site)
        if (fault := _fault(receipt, entries)) is None:
            _check_contents(receipt, entries[receipt.count - 1])
            held.append(receipt)
        elif (breaks and index < breaks[-1]) or _was_replaced(receipt, entries):
            lost.setdefault(receipt.chain, []).append(receipt)
        else:
            raise fault
    return held, [Lost.of(of_chain) for of_chain in lost.values()]


def _fault(receipt: Receipt, entries: Sequence[Entry]) -> ProtocolError | None:
    """How the line of a message is not in the ledger."""
    if not 1 <= receipt.count <= len(entries):
        return _differs(receipt.count, f"the coordinator received it, and this ledger ends at line {len(entries)}: it was cut")
    entry = entries[receipt.count - 1]
    if (entry.hash, entry.before) != (receipt.hash, receipt.before):
        return _differs(receipt.count, "the coordinator received another line with this number: the ledger was rewritten from here")
    return None


def _was_replaced(receipt: Receipt, entries: Sequence[Entry]) -> bool:
    """Whether the ledger says itself that it was taken up anew before this line, or under a chain that it no longer holds."""
    starts = {entry.hash: entry.count for entry in entries if entry.outcome == RESTORED}
    since = {START: 0, **starts}.get(receipt.chain)
    return bool(starts) if since is None else any(since < start <= receipt.count for start in starts.values())


def _check_contents(receipt: Receipt, entry: Entry) -> None:
    """One message, as it came to the coordinator, against its line."""
    if (entry.outcome, entry.sha256, entry.bytes) != (SENT, receipt.sha256, receipt.bytes):
        raise _differs(
            receipt.count,
            f"recorded as {entry.outcome} with {entry.bytes} bytes, hash {entry.sha256[:12]}; "
            f"the coordinator received {receipt.bytes} bytes, hash {receipt.sha256[:12]}",
        )


def _differs(number: int, what: str) -> ProtocolError:
    return ProtocolError(
        f"{LEDGER_FILE} line {number}: {what}", "keep both files as they are, and show them to the data-protection officer"
    )


def _audit_run(run: str, entries: Sequence[Entry], arrived: set[int] | None) -> RunAudit:
    here = [entry for entry in entries if entry.run == run and entry.outcome not in OF_NO_MESSAGE]
    sent = [entry for entry in here if entry.outcome == SENT]
    return RunAudit(
        run=run,
        messages=dict(Counter(entry.kind for entry in sent)),
        num_bytes=sum(entry.bytes for entry in sent),
        arrays=sorted({f"{name} {dtype} {list(shape)}" for entry in sent for name, dtype, shape in entry.arrays}),
        absences={entry.count: entry.why for entry in sent if entry.why},
        refused={entry.count: entry.why for entry in here if entry.outcome == REFUSED},
        not_received=None if arrived is None else [entry.count for entry in sent if entry.count not in arrived],
    )


def _follow(said: Entry, entries: Sequence[Entry]) -> Withdrawal:
    """What came of a withdrawal in each run that answered anything about a model or counted cases."""
    trained: dict[str, set[int]] = {}
    free_from: dict[str, int] = {}
    for entry in entries:
        if entry.outcome == WITHDRAWN and entry.kind and entry.sha256 == said.sha256:
            free_from.setdefault(entry.run, entry.round + (entry.kind == Kind.MEASURE))  # a model is measured after its round
            trained.setdefault(entry.run, set())
        elif entry.outcome == SENT and entry.kind == Kind.TRAIN and not entry.why and entry.run not in free_from:
            trained.setdefault(entry.run, set()).add(entry.round)
    runs = [Trained(run, sorted(rounds), free_from.get(run)) for run, rounds in trained.items()]
    return Withdrawal(said.count, said.time, said.why, runs)


def audit_site(site: Site, received: Path | None = None) -> AuditReport:
    """`audit` of a hospital's own ledger.

    Raises:
        ProtocolError: see `audit`.
    """
    known = (site.keys_folder / IDENTITY_KEY).exists()
    identity = read_public_keys(site.keys_folder).identity if known else None
    return audit(site.run_folder / LEDGER_FILE, received, site.site, identity)
