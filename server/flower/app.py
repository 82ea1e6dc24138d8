"""The coordinator's Flower app: it carries requests over a Grid, and hands the run to server/run/rounds.py."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from csasn import wire
from csasn.errors import ProtocolError, QuorumError
from csasn.federated.messages import Absence, Collect, Ready, Reason, Reply, Request
from csasn.model.network import build_network
from csasn.privacy.contract import Contract
from csasn.site import find_site
from csasn.study import read_study
from server.run.continuation import begin_with, find_start
from server.run.execution import carry_out
from server.run.outcome import write_outcome
from server.run.preparation import begin, check_resumable
from server.run.receipts import Receipts
from server.run.rounds import StudyRun
from server.run.run_directory import RunDirectory
from server.run.survey import tell_outcome
from server.run.waits import ANSWERED, READY

# keys of the run configuration of Flower's simulation: a run directory, or what to make one from
RUN_DIRECTORY, STUDY, SITES, OUT = "run-directory", "study", "sites", "out"
POLL_S = 0.02
NODES_WITHIN_S, PLACES_WITHIN_S = 30.0, 300.0  # a simulation registers its nodes at once; its processes may take minutes to start
Pause = Callable[[float], None]
OnReply = Callable[[Request, str, str], None]  # what was asked, the site, what it said in a word


class GridExchange:
    """An exchange over Flower's Grid. `nodes` says which node is which site: never the message itself.

    `on_reply` is told what came of each site, `on_mark` how a site's ledger does not go on from what was seen of it.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        receipts: Receipts,
        on_reply: OnReply,
        on_mark: Callable[[str, str], None],
        pause: Pause = time.sleep,
    ) -> None:
        self.grid, self.nodes, self.receipts = grid, nodes, receipts
        self.on_reply, self.on_mark, self.pause = on_reply, on_mark, pause
        self._open: dict[str, _Sent] = {}  # by the number of the message

    def send(self, requests: Mapping[str, Request], deadlines_s: Mapping[str, float]) -> int:
        """Sends each site its request, in place of an earlier one; bytes sent. Sites share most requests, serialised once."""
        self._open = {key: sent for key, sent in self._open.items() if sent.site not in requests}
        now, num_bytes = time.monotonic(), 0
        for request, sites in _by_request(requests):
            records = wire.request_to_records(request)
            kind = wire.MESSAGE_TYPES[request.kind]
            messages = [Message(records, dst_node_id=self.nodes[site], message_type=kind, ttl=deadlines_s[site]) for site in sites]
            for key, site in zip(self.grid.push_messages(messages), sites, strict=True):
                self._open[key] = _Sent(site, request, now + deadlines_s[site])
            num_bytes += len(sites) * wire.size_bytes(records)
        return num_bytes

    def receive(self) -> Iterator[tuple[str, Reply]]:
        """What has come since, one at a time, so that no two updates wait in memory; absences of sites past their deadline."""
        self.pause(POLL_S)
        for message in self.grid.pull_messages(list(self._open)):
            sent = self._open.pop(message.metadata.reply_to_message_id)
            reply = self._read(sent, message)
            self.on_reply(sent.request, sent.site, _said(reply))
            yield sent.site, reply
            del message, reply  # an update is in the sum by now
        now = time.monotonic()
        for key in [key for key, sent in self._open.items() if sent.deadline < now]:
            yield self._open.pop(key).site, Absence(Reason.DEADLINE)

    def _read(self, sent: "_Sent", message: Message) -> Reply:
        """What a site's message says, after its receipt is kept."""
        if message.has_error():
            if message.error.code == wire.NO_LEDGER:
                return Absence(Reason.DISK, text="its ledger is broken or cannot be written: see its log, and client audit")
            return Absence(Reason.FAILED, text=f"the site's app ended, code {message.error.code}")
        try:
            if marked := self.receipts.take(sent.site, sent.request, message.content):
                self.on_mark(sent.site, marked)
            return wire.answer_from_records(message.content)
        except ProtocolError as error:
            return Absence(Reason.BROKEN, text=error.message)


@dataclass(frozen=True)
class _Sent:
    """A request on its way, until the monotonic clock shows `deadline`."""

    site: str
    request: Request
    deadline: float


def _by_request(requests: Mapping[str, Request]) -> list[tuple[Request, list[str]]]:
    """Each request object once, with the sites that get it."""
    groups: list[tuple[Request, list[str]]] = []
    for site, request in requests.items():
        same = next((sites for other, sites in groups if other is request), None)
        if same is None:
            groups.append((request, [site]))
        else:
            same.append(site)
    return groups


def _said(reply: Reply) -> str:
    match reply:
        case Absence():
            return str(reply)
        case Ready():
            return READY
    return ANSWERED


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
    """Runs or resumes a run, or a survey, over a Grid, and writes its outcome. `pause` waits between two looks for replies."""
    study = directory.study
    contract = Contract.of_study(study, directory.membership)
    receipts = Receipts(directory.path, directory.membership)

    def on_reply(request: Request, site: str, said: str) -> None:
        kind = request.of if isinstance(request, Collect) else request.kind
        directory.event("reply", kind=str(kind), round=request.header.round, site=site, said=said)

    def on_mark(site: str, marked: str) -> None:
        directory.event("ledger-marked", site=site, how=marked)

    exchange = GridExchange(grid, nodes, receipts, on_reply, on_mark, pause)
    coordinator = StudyRun(contract, directory, exchange)
    if study.survey:
        tell_outcome(directory, coordinator.survey())
        return
    finished = coordinator.run(lambda: begin_with(directory, contract.state))
    write_outcome(directory, contract, build_network(study), finished)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What `flwr run` starts."""
    directory = RunDirectory(_run_directory(context.run_config))
    carry_out(directory, "flower", lambda: coordinate(grid, ask_places(grid, directory.membership.sites), directory))


def _run_directory(config: Mapping[str, object]) -> Path:
    """The run directory that the configuration names: made of the study it names, or half done already."""
    path, study = Path(str(config[OUT])), read_study(Path(str(config[STUDY])))
    if (path / "study.yaml").exists():
        check_resumable(path, study)
    else:
        folder = Path(str(config[SITES]))
        begin(
            path,
            study,
            {name: find_site(name, folder=folder) for name in study.federation.sites},
            find_start(study, Path(str(config[STUDY]))),
        )
    return path
