"""The site's Flower app: it carries requests to the resident worker and answers back, and does nothing else."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.trust.approval import APPROVAL, MEMBERSHIP, read_agreed
from client.worker.notes import DOING, line_of, note_doing, say_trouble, taking_turn
from client.worker.outbox import Outbox
from client.worker.worker import SiteWorker
from csasn import wire
from csasn.errors import ConfigurationError, CsasnError, DataError, KeptError, ModelError, StorageError
from csasn.federated.messages import Absence, Reason
from csasn.platform.storage import private_folder, reason_of
from csasn.privacy.gate import Terms
from csasn.privacy.ledger import LEDGER_FILE, Ledger, Occasion
from csasn.site import Site, read_site
from csasn.study import read_study
from csasn.trust.enrolment import STUDY
from csasn.trust.identity import KEYS_FOLDER, Sign, load_identity, sign
from csasn.trust.membership import read_membership

log = logging.getLogger(__name__)

# keys of a simulated node's configuration: its files, and how many threads it may have
SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER = "site-file", "study-file", "membership-file", "state-folder"
THREADS = "threads"

# keys that Flower's simulation sets in the node configuration, and those of the run configuration that it goes with
PARTITION, SITES, OUT, RUN_DIRECTORY = "partition-id", "sites", "out", "run-directory"

T = TypeVar("T")
Tell = Callable[[str], None]
OnError = Callable[[CsasnError], None]
Turn = Callable[[], AbstractContextManager[None]]


def make_app(node_of: Callable[[Message, Context], "Node"]) -> ClientApp:
    """The app of a process; `node_of` says for which node a message is."""
    app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        torch.set_num_threads(int(context.node_config.get(THREADS, 1)))
        node = node_of(message, context)
        with node.turn():
            return _reply(message, node)

    for asked_by_query in ("hello", "survey", "measure", "collect"):
        app.query(asked_by_query)(reply)
    app.train()(reply)
    for evaluated in ("validate", "finish"):
        app.evaluate(evaluated)(reply)

    @app.query("place")
    def tell_place(message: Message, context: Context) -> Message:
        """Says where in the roster a node of Flower's simulation stands; a hospital's node stands nowhere, and refuses."""
        place = context.node_config.get(PARTITION)
        if isinstance(place, int):
            return Message(wire.place_to_records(place), reply_to=message)
        return _send(message, node_of(message, context), lambda outbox: outbox.post(Absence(Reason.CONTENTS), Occasion(), None))

    return app


def _reply(message: Message, node: "Node") -> Message:
    request = reason_of_failure(lambda: wire.request_from_message(message))
    if isinstance(request, Absence):
        return _send(message, node, lambda outbox: outbox.post(request, Occasion(), None))
    header = request.header
    occasion = Occasion(header.run, header.round, header.attempt, request.kind.value)
    reply = reason_of_failure(lambda: node.worker.answer(request), node.tell_trouble)
    if not isinstance(reply, Absence):
        node.tell(f"round {header.round}: done, waiting for the other hospitals")

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
        return Message(post(Outbox(node.ledger, signer)), reply_to=message)
    except CsasnError as error:
        log.error("nothing is sent: %s", line_of(error))
        node.tell_trouble(error)
    except Exception as error:  # noqa: BLE001 - as in `reason_of_failure`
        log.error("nothing is sent: unexpected %s", type(error).__name__)
    return Message(Error(wire.NO_LEDGER, "no ledger, nothing sent"), reply_to=message)


def reason_of_failure(answer: Callable[[], T], on_error: OnError = lambda _: None) -> T | Absence:
    """What `answer` returns; whatever goes wrong in it becomes a reason, and a line of our own in this site's log. `on_error` is
    told what its people have to mend.

    The coordinator learns the reason alone: it is one of a few words, and none depends on what the cases are.
    """
    try:
        return answer()
    except CsasnError as error:
        log.error("no answer: %s", line_of(error))
        on_error(error)
        return Absence(next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.CONTENTS))
    except OSError as error:  # of the state folder: what reads images says so itself
        log.error("no answer: the state folder cannot be used: %s", reason_of(error))
        on_error(StorageError(f"it cannot be used, {reason_of(error)}"))
        return Absence(Reason.DISK)
    except MemoryError:
        log.error("no answer: out of memory")
        return Absence(Reason.MEMORY)
    except Exception as error:  # noqa: BLE001 - the one boundary of this process: a foreign text is never sent or logged
        log.error("unexpected %s while answering", type(error).__name__)
        return Absence(Reason.FAILED)


_REASONS: tuple[tuple[type[CsasnError], Reason], ...] = (
    (StorageError, Reason.DISK),
    (KeptError, Reason.KEPT),
    (DataError, Reason.IMAGES),
    (ConfigurationError, Reason.UNUSABLE),
    (ModelError, Reason.FAILED),
)


class Node:
    """One site in this process: its files, and what is made of them once. `read` reads the site file; `tell` is told what the site
    does, in words for people, `tell_trouble` what keeps it from answering; within `turn` it answers."""

    def __init__(
        self,
        read: Callable[[], Site],
        study_file: Path,
        membership_file: Path,
        state: Path,
        tell: Tell = lambda _: None,
        tell_trouble: OnError = lambda _: None,
        turn: Turn = nullcontext,
    ) -> None:
        self._read, self._study_file, self._membership_file = read, study_file, membership_file
        self._state, self.tell, self.tell_trouble, self.turn = state, tell, tell_trouble, turn

    @cached_property
    def site(self) -> Site:
        """The site file."""
        return self._read()

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, verified once, when the process starts."""
        return Ledger(private_folder(self._state) / LEDGER_FILE)

    @cached_property
    def signer(self) -> Sign | None:
        """Signs with the identity that the membership names for the site, None where it names none; simulated, it is in the run."""
        membership = read_membership(self._membership_file)
        member = membership.member(self.site.site)
        if member is None or member.identity is None:
            return None
        key = load_identity(self.site.keys_folder if membership.of_hospitals else self._state / KEYS_FOLDER)
        return partial(sign, key)

    @cached_property
    def worker(self) -> SiteWorker:
        """The resident worker. A membership with keys, a hospital's, has to be approved by this site and by every other one."""
        membership = read_membership(self._membership_file)
        study, membership = read_agreed(self.site) if membership.of_hospitals else (read_study(self._study_file), membership)
        if membership.study_hash != study.study_hash or self.site.site not in membership.sites:
            raise ConfigurationError(
                f"{self.site.site} is no member of study {study.name}", "ask the coordinator for the membership"
            )
        worker = SiteWorker(study, membership, self.site, self._state, self.signer, self.tell, self.ledger)
        self.ledger.expect(worker.diary.ledger_lines)
        return worker


def nodes_of_hospital(site_file: Path) -> Callable[[Message, Context], Node]:
    """Which node of a hospital a message is for: that of the study that it names, if people here approved it, else the first one,
    which refuses it. Studies take turns, since one message is answered at a time.

    Raises:
        ConfigurationError: the site file cannot be used.
    """
    first, *further = read_site(site_file).all_studies()
    approved = [first, *(site for site in further if (site.kit_folder / APPROVAL).exists())]
    nodes = {site.called: node_of_hospital(site) for site in approved}

    def node_of(message: Message, context: Context) -> Node:  # noqa: ARG001 - a hospital's node goes by its own files
        wanted = wire.study_of_message(message)
        return nodes[next((site.called for site in approved if _approved_study(site) == wanted), first.called)]

    return node_of


def _approved_study(site: Site) -> str:
    """The hash of the study of which people at a site approved the membership; empty where that cannot be read."""
    with suppress(CsasnError):
        return read_membership(site.kit_folder / MEMBERSHIP).study_hash
    return ""


def node_of_hospital(site: Site) -> Node:
    """The node of a hospital in one study: its files follow from the site file alone, and from nothing that a message says."""
    kit, state = site.kit_folder, Path(site.state)

    def tell_trouble(error: CsasnError) -> None:
        note_doing(state / DOING, say_trouble(error, state), trouble=True)

    tell, turn = partial(note_doing, state / DOING), partial(taking_turn, site)
    return Node(lambda: site, kit / STUDY, kit / MEMBERSHIP, site.run_folder, tell, tell_trouble, turn)


def _simulated_node(message: Message, context: Context) -> Node:  # noqa: ARG001 - it is told what to serve by its configuration
    """The node of a site that is simulated: of its own configuration, or, on Flower's runtime, of the run's and its partition.

    Raises:
        KeyError: it is none of both.
    """
    node, run = context.node_config, context.run_config
    if SITE_FILE in node or PARTITION not in node:
        return _node(*(str(node[key]) for key in (SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER)))
    folder = Path(str(run[RUN_DIRECTORY] if RUN_DIRECTORY in run else run[OUT]))
    site = read_membership(folder / "membership.json").sites[int(node[PARTITION])]
    site_file = str(Path(str(run[SITES])) / f"{site}.yaml")
    return _node(site_file, str(folder / "study.yaml"), str(folder / "membership.json"), str(folder / "sites" / site))


@lru_cache(maxsize=64)
def _node(site_file: str, study_file: str, membership_file: str, state_folder: str) -> Node:
    """A process that serves several sites in simulation keeps one of each."""
    return Node(partial(read_site, Path(site_file)), Path(study_file), Path(membership_file), Path(state_folder))


app = make_app(_simulated_node)
