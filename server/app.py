"""The coordinator's Flower app: it carries requests over a Grid, and hands the run to server/rounds.py."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from csasn import wire
from csasn.contract import Contract
from csasn.errors import ProtocolError
from csasn.federated.messages import Absence, Answer, Reason, Replies, Request
from csasn.model.initial_weights import initial_network
from server.outcome import write_outcome
from server.rounds import Coordinator
from server.run_directory import RunDirectory

RUN_DIRECTORY, NODES = "run-directory", "nodes"  # keys of the run configuration
POLL_S = 0.02


class GridExchange:
    """An exchange over Flower's Grid. `nodes` says which node is which site: never the message itself."""

    def __init__(self, grid: Grid, nodes: Mapping[str, int], on_reply: Callable[[str, str], None]) -> None:
        self.grid = grid
        self.nodes = nodes
        self.on_reply = on_reply

    def __call__(self, requests: Mapping[str, Request], patient_for: Collection[str], deadline_s: float) -> Replies:
        """Requests by site -> what came back within the deadline."""
        records = {site: wire.request_to_records(request) for site, request in requests.items()}
        messages = [
            Message(records[site], dst_node_id=self.nodes[site], message_type=wire.MESSAGE_TYPES[request.kind], ttl=deadline_s)
            for site, request in requests.items()
        ]
        waiting = dict(zip(self.grid.push_messages(messages), requests, strict=True))
        answers: dict[str, Answer] = {}
        absent: dict[str, Absence] = {}
        deadline = time.monotonic() + deadline_s
        while set(waiting.values()) & set(patient_for) and time.monotonic() < deadline:
            for message in self.grid.pull_messages(list(waiting)):
                site = waiting.pop(message.metadata.reply_to_message_id)
                reply = _read(message)
                if isinstance(reply, Answer):
                    answers[site] = reply
                else:
                    absent[site] = reply
                self.on_reply(site, str(reply) if isinstance(reply, Absence) else "answered")
            time.sleep(POLL_S)
        absent |= {site: Absence(Reason.DEADLINE) for site in waiting.values()}
        return Replies(
            answers, absent, sum(a.num_bytes for a in answers.values()), sum(wire.size_bytes(r) for r in records.values())
        )


def _read(message: Message) -> Answer | Absence:
    if message.has_error():
        return Absence(Reason.FAILED, f"the site's app ended, code {message.error.code}")
    try:
        return wire.answer_from_records(message.content)
    except ProtocolError as error:
        return Absence(Reason.BROKEN, error.message)


def coordinate(grid: Grid, context: Context, directory: RunDirectory) -> None:
    """Runs or resumes a run over a Grid, and writes its outcome."""
    network = initial_network(directory.study)
    contract = Contract.of(directory.study, directory.membership, network)
    nodes: dict[str, int] = json.loads(str(context.run_config[NODES]))
    exchange = GridExchange(grid, nodes, lambda site, said: directory.event("reply", site=site, said=said))
    finished = Coordinator(contract, directory, exchange).run(contract.state.read(network))
    write_outcome(directory, contract, network, finished)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What Flower starts."""
    directory = RunDirectory(Path(str(context.run_config[RUN_DIRECTORY])))
    try:
        coordinate(grid, context, directory)
    finally:
        directory.close()
