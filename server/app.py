"""The coordinator's Flower app: it carries requests over a Grid, and hands the run to server/rounds.py."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from csasn import wire
from csasn.contract import Contract
from csasn.errors import CsasnError, ProtocolError, QuorumError
from csasn.federated.messages import Absence, Reason, Reply, Request
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.site import find_site
from csasn.study import read_study
from server.exchange import Enough, Take, never
from server.outcome import write_outcome, write_report
from server.plain_text import plain
from server.preparation import begin, check_resumable
from server.receipts import Receipts
from server.rounds import Coordinator
from server.run_directory import RunDirectory, has_outcome

# keys of the run configuration: a run directory and its nodes; or, in Flower's simulation, what to make one from
RUN_DIRECTORY, NODES, STUDY, SITES, OUT = "run-directory", "nodes", "study", "sites", "out"
POLL_S = 0.02
NODES_WITHIN_S, PLACES_WITHIN_S = 30.0, 300.0  # a simulation registers its nodes at once; its processes may take minutes to start
Pause = Callable[[float], None]
OnReply = Callable[[Request, str, str], None]  # what was asked, the site, what it said in a word


class GridExchange:
    """An exchange over Flower's Grid. `nodes` says which node is which site: never the message itself."""

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        receipts: Receipts,
        on_reply: OnReply,
        pause: Pause = time.sleep,
    ) -> None:
        self.grid = grid
        self.nodes = nodes
        self.receipts = receipts
        self.on_reply = on_reply
        self.pause = pause

    def __call__(
        self, requests: Mapping[str, Request], patient_for: Collection[str], deadline_s: float, take: Take, enough: Enough = never
    ) -> int:
        """Requests by site; `take` gets what comes back within the deadline, one at a time."""
        made = {id(request): wire.request_to_records(request) for request in requests.values()}  # sites share most requests
        records = {site: made[id(request)] for site, request in requests.items()}
        messages = [
            Message(records[site], dst_node_id=self.nodes[site], message_type=wire.MESSAGE_TYPES[request.kind], ttl=deadline_s)
            for site, request in requests.items()
        ]
        waiting = dict(zip(self.grid.push_messages(messages), requests, strict=True))
        deadline = time.monotonic() + deadline_s
        while set(waiting.values()) & set(patient_for) and not enough() and time.monotonic() < deadline:
            for message in self.grid.pull_messages(list(waiting)):
                site = waiting.pop(message.metadata.reply_to_message_id)
                reply = self._read(site, requests[site], message)
                take(site, reply)
                self.on_reply(requests[site], site, str(reply) if isinstance(reply, Absence) else "answered")
                del message, reply  # an update is in the sum by now
            self.pause(POLL_S)
        for site in waiting.values():
            take(site, Absence(Reason.DEADLINE))
        return sum(wire.size_bytes(part) for part in records.values())

    def _read(self, site: str, request: Request, message: Message) -> Reply:
        """What a site's message says, after its receipt is kept."""
        if message.has_error():
            said = "its ledger is broken or cannot be written, so it sends nothing: see its log, and client audit"
            lost = f"the site's app ended, code {message.error.code}"
            return Absence(Reason.REFUSED, said) if message.error.code == wire.NO_LEDGER else Absence(Reason.FAILED, lost)
        try:
            self.receipts.take(site, request, message.content)
            reply = wire.answer_from_records(message.content)
            return replace(reply, text=plain(reply.text)) if isinstance(reply, Absence) else reply
        except ProtocolError as error:
            return Absence(Reason.BROKEN, error.message)


def ask_places(grid: Grid, sites: Sequence[str], pause: Pause = time.sleep) -> dict[str, int]:
    """The node of each site in Flower's simulation, where the site is the one at the node's partition of the roster.

    Here a node's own word is good enough: all nodes of a simulation are processes of one operator. In a deployment the
    coordinator's record of the enrolled nodes says which is which site, and this is not asked.

    Raises:
        QuorumError: there are fewer or more nodes than sites, or a node did not say its place.
    """
    nodes = _await_nodes(grid, len(sites), pause)
    messages = [Message(RecordDict(), dst_node_id=n, message_type=wire.PLACE_MESSAGE, ttl=PLACES_WITHIN_S) for n in nodes]
    waiting = set(grid.push_messages(messages))
    node_of: dict[int, int] = {}
    deadline = time.monotonic() + PLACES_WITHIN_S
    while waiting and time.monotonic() < deadline:
        for message in grid.pull_messages(list(waiting)):
            waiting.remove(message.metadata.reply_to_message_id)
            if (place := _read_place(message)) is not None:
                node_of[place] = message.metadata.src_node_id
        pause(POLL_S)
    if missing := [site for place, site in enumerate(sites) if place not in node_of]:
        raise QuorumError(
            f"no node of Flower's simulation is at the place of {', '.join(missing)}",
            "one is at each place where `flwr run` or `server simulate --engine flower` started them; see Flower's log",
        )
    return {site: node_of[place] for place, site in enumerate(sites)}


def _read_place(message: Message) -> int | None:
    try:
        return None if message.has_error() else wire.place_from_records(message.content)
    except ProtocolError:
        return None


def _await_nodes(grid: Grid, number: int, pause: Pause) -> list[int]:
    deadline = time.monotonic() + NODES_WITHIN_S
    while len(nodes := list(grid.get_node_ids())) < number and time.monotonic() < deadline:
        pause(POLL_S)
    if len(nodes) != number:
        raise QuorumError(
            f"Flower's simulation has {len(nodes)} nodes, expected {number}, one for each site of the study",
            f"flwr run . --federation-config 'num-supernodes={number}'",
        )
    return nodes


def coordinate(grid: Grid, nodes: Mapping[str, int], directory: RunDirectory, pause: Pause = time.sleep) -> None:
    """Runs or resumes a run over a Grid, and writes its outcome. `pause` waits between two looks for replies."""
    contract = Contract.of(directory.study, directory.membership, build_network(directory.study))
    receipts = Receipts(directory.path, directory.membership)

    def on_reply(request: Request, site: str, said: str) -> None:
        directory.event("reply", kind=str(request.kind), round=request.header.round, site=site, said=said)

    exchange = GridExchange(grid, nodes, receipts, on_reply, pause)
    finished = Coordinator(contract, directory, exchange).run(contract.state.read(initial_network(directory.study)))
    write_outcome(directory, contract, build_network(directory.study), finished)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What Flower starts."""
    config = context.run_config
    directory = RunDirectory(_run_directory(config))
    directory.drop_report()
    try:
        if not has_outcome(directory.path):
            nodes = json.loads(str(config[NODES])) if NODES in config else ask_places(grid, directory.membership.sites)
            coordinate(grid, nodes, directory)
        directory.event("run-finished")
    except CsasnError as error:
        directory.event("failed", error=error.message)
        raise
    finally:
        write_report(directory, "deployment" if NODES in config else "flower")
        directory.close()


def _run_directory(config: Mapping[str, object]) -> Path:
    """The run directory that the configuration names; else one that is made of the study it names, or is half done already."""
    if RUN_DIRECTORY in config:
        return Path(str(config[RUN_DIRECTORY]))
    path, study = Path(str(config[OUT])), read_study(Path(str(config[STUDY])))
    if (path / "study.yaml").exists():
        check_resumable(path, study)
    else:
        folder = Path(str(config[SITES]))
        begin(path, study, {name: find_site(name, folder=folder) for name in study.federation.sites})
    return path
