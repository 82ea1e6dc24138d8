"""The site's Flower app: it carries requests to the resident worker and answers back, and does nothing else."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.trust.approval import read_agreed
from client.worker.outbox import Outbox
from client.worker.worker import SiteWorker
from csasn import wire
from csasn.errors import ConfigurationError, CsasnError, DataError, ModelError, StorageError
from csasn.federated.messages import Absence, Reason
from csasn.federated.receipt import PURPOSE
from csasn.federated.secagg.keys import Sign
from csasn.platform.storage import private_folder, write_json
from csasn.privacy.gate import Terms
from csasn.privacy.ledger import LEDGER_FILE, Ledger, Occasion
from csasn.site import Site, read_site
from csasn.study import read_study
from csasn.trust.identity import KEYS_FOLDER, load_identity, sign
from csasn.trust.membership import read_membership

log = logging.getLogger(__name__)

# keys of the node configuration: files at the site, never anything that a message names
SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER = "site-file", "study-file", "membership-file", "state-folder"
THREADS, DOING_FILE = "threads", "doing-file"

# keys that Flower's simulation sets in the node configuration, and those of the run configuration that it goes with
PARTITION, SITES, OUT, RUN_DIRECTORY = "partition-id", "sites", "out", "run-directory"

T = TypeVar("T")

app = ClientApp()


def _reply(message: Message, context: Context) -> Message:
    torch.set_num_threads(int(context.node_config.get(THREADS, 1)))
    node = _node_of(context)
    request = reason_of_failure(lambda: wire.request_from_message(message))
    if isinstance(request, Absence):
        return _send(message, node, lambda outbox: outbox.post(request, Occasion(), None))
    header = request.header
    occasion = Occasion(header.run, header.round, header.attempt, request.kind.value)
    reply = reason_of_failure(lambda: node.worker.answer(request))

    def post(outbox: Outbox) -> wire.Records:
        if isinstance(reply, Absence):
            return outbox.post(reply, occasion, None)
        left = outbox.bytes_left(node.site.policy.upload_budget_mib, header.run, header.round)
        return outbox.post(reply, occasion, Terms.of(node.worker.contract, node.site.site, request, left))

    return _send(message, node, post)


def _send(message: Message, node: "Node", post: Callable[[Outbox], wire.Records]) -> Message:
    """The message of what `post` hands over; where the ledger cannot be written, a number and a fixed text are all that leaves."""
    try:
        signer = reason_of_failure(lambda: node.signer)
        if isinstance(signer, Absence):
            log.error("the head of the ledger goes unsigned")
            signer = None
        return Message(post(Outbox(node.ledger, partial(signer, PURPOSE) if signer else None)), reply_to=message)
    except CsasnError as error:
        log.error("nothing is sent: %s", line_of(error))
    except Exception as error:  # noqa: BLE001 - as in `reason_of_failure`
        log.error("nothing is sent: unexpected %s", type(error).__name__)
    return Message(Error(wire.NO_LEDGER, "no ledger, nothing sent"), reply_to=message)


for asked_by_query in ("hello", "survey", "collect"):
    app.query(asked_by_query)(_reply)
app.train()(_reply)
for evaluated in ("validate", "finish"):
    app.evaluate(evaluated)(_reply)


@app.query("place")
def _place(message: Message, context: Context) -> Message:
    """Says where in the roster a node of Flower's simulation stands; a hospital's node stands nowhere, and refuses."""
    place = context.node_config.get(PARTITION)
    if isinstance(place, int):
        return Message(wire.place_to_records(place), reply_to=message)
    node = _node_of(context)
    return _send(message, node, lambda outbox: outbox.post(Absence(Reason.CONTENTS), Occasion(), None))


def _node_of(context: Context) -> "Node":
    """The site whose node this is.

    The coordinator writes the run configuration, so that files follow from it only where the node itself says that it is of a
    simulation: a hospital's node names its files and has no partition.
    """
    node, run = context.node_config, context.run_config
    doing_file = Path(str(node[DOING_FILE])) if node.get(DOING_FILE) else None
    if SITE_FILE in node or PARTITION not in node:
        return _node(*(Path(str(node[key])) for key in (SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER)), doing_file)
    folder = Path(str(run[RUN_DIRECTORY] if RUN_DIRECTORY in run else run[OUT]))
    site = read_membership(folder / "membership.json").sites[int(node[PARTITION])]
    site_file = Path(str(run[SITES])) / f"{site}.yaml"
    return _node(site_file, folder / "study.yaml", folder / "membership.json", folder / "sites" / site, doing_file)


def reason_of_failure(answer: Callable[[], T]) -> T | Absence:
    """What `answer` returns; whatever goes wrong in it becomes a reason, and a line of our own in this site's log.

    The coordinator learns the reason alone: it is one of a few words, and none depends on what the cases are.
    """
    try:
        return answer()
    except CsasnError as error:
        log.error("no answer: %s", line_of(error))
        return Absence(next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.CONTENTS))
    except MemoryError:
        log.error("no answer: out of memory")
        return Absence(Reason.MEMORY)
    except Exception as error:  # noqa: BLE001 - the one boundary of this process: a foreign text is never sent or logged
        log.error("unexpected %s while answering", type(error).__name__)
        return Absence(Reason.FAILED)


_REASONS: tuple[tuple[type[CsasnError], Reason], ...] = (
    (StorageError, Reason.DISK),
    (DataError, Reason.IMAGES),
    (ConfigurationError, Reason.UNUSABLE),
    (ModelError, Reason.FAILED),
)


def line_of(error: CsasnError) -> str:
    """What was wrong and what to do, on one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


@dataclass(frozen=True)
class Node:
    """One site in this process: its files, and what is made of them once. `doing_file` is where its worker says what it does."""

    site_file: Path
    study_file: Path
    membership_file: Path
    state: Path
    doing_file: Path | None = None

    @cached_property
    def site(self) -> Site:
        """The site file."""
        return read_site(self.site_file)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, verified once, when the process starts."""
        return Ledger(private_folder(self.state) / LEDGER_FILE)

    @cached_property
    def signer(self) -> Sign | None:
        """Signs with the identity that the membership names for the site, None where it names none; simulated, it is in the run."""
        membership = read_membership(self.membership_file)
        member = next((member for member in membership.members if member.site == self.site.site), None)
        if member is None or member.identity is None:
            return None
        key = load_identity(self.site.keys_folder if membership.of_hospitals else self.state / KEYS_FOLDER)
        return partial(sign, key)

    @cached_property
    def worker(self) -> SiteWorker:
        """The resident worker. A membership with keys, a hospital's, has to be approved by this site and by every other one."""
        study, membership = read_study(self.study_file), read_membership(self.membership_file)
        if membership.of_hospitals:
            study, membership = read_agreed(self.site)
        if membership.study_hash != study.study_hash or self.site.site not in membership.sites:
            raise ConfigurationError(
                f"{self.site.site} is no member of study {study.name}", "ask the coordinator for the membership"
            )
        doing = partial(_note, self.doing_file) if self.doing_file else lambda _: None
        worker = SiteWorker(study, membership, self.site, self.state, self.signer, doing, self.ledger)
        self.ledger.expect(worker.diary.ledger_lines)
        return worker


_node = lru_cache(maxsize=64)(Node)  # a process that serves several sites in simulation keeps one of each


def _note(file: Path, doing: str) -> None:
    with suppress(StorageError):  # on a full disk the answer says so, where it matters
        write_json(file, {"doing": doing, "time": time.time()}, 0o600)
