"""Flower's private parts, in one place: a Grid over worker processes of this machine, without Ray and without ports.

Every site is pinned to one of the processes, which imports the client app once and stays warm. Processes are spawned, end with
their parent, and are started anew when they die: the message that one was at work on comes back as an error.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID, SERVER_NODE = 1, 1
FIRST_NODE = 2
END_WITHIN_S = 3.0
PROCESS_ENDED = 8  # Flower's code for an app that stopped without an answer
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass
class _Worker:
    """A process, the messages that wait for it, and the one that it is at work on."""

    process: BaseProcess
    pipe: Connection
    queue: deque[Message] = field(default_factory=deque)
    current: Message | None = None


class LocalGrid(Grid):
    """A Grid whose nodes are sites of this machine. `app` names the client app as "module:attribute"."""

    def __init__(self, app: str, node_configs: Sequence[UserConfig], num_processes: int) -> None:
        self._app = app
        self._configs = {FIRST_NODE + index: config for index, config in enumerate(node_configs)}
        self._num_processes = max(1, min(num_processes, len(node_configs)))
        self._replies: dict[str, Message] = {}
        self._next_id = 1
        _identify(SERVER_NODE)
        self._workers = [self._start(slot) for slot in range(self._num_processes)]

    def set_run(self, run: Run) -> None:
        """Nothing: there is one run."""

    @property
    def run(self) -> Run:
        """There is no Run record behind a local grid."""
        raise AttributeError("a local grid has no run record")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes, in the order of their configurations."""
        return list(self._configs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queues messages; what still waits for the same node is dropped, since it is of an older attempt."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(self._next_id)
            self._next_id += 1
            worker = self._worker_of(message)
            stale = [old for old in worker.queue if old.metadata.dst_node_id == message.metadata.dst_node_id]
            for old in stale:
                worker.queue.remove(old)
            worker.queue.append(message)
            ids.append(message.metadata.message_id)
        self._turn()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that have come."""
        self._turn()
        return [self._replies.pop(identity) for identity in list(message_ids) if identity in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        """Not offered: the coordinator pulls in its own loop."""
        raise AttributeError("push and pull in a loop of your own")

    def close(self) -> None:
        """Ends the processes, also one that hangs."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_WITHIN_S)
            worker.process.kill()
            worker.process.join()

    def _worker_of(self, message: Message) -> _Worker:
        return self._workers[(message.metadata.dst_node_id - FIRST_NODE) % self._num_processes]

    def _turn(self) -> None:
        """Takes what came back, and hands each idle process its next message."""
        ready = wait([worker.pipe for worker in self._workers], timeout=0)
        for slot, worker in enumerate(self._workers):
            if worker.pipe in ready:
                self._take_reply(slot)
        for slot in range(self._num_processes):
            self._hand_out(slot)

    def _take_reply(self, slot: int) -> None:
        worker = self._workers[slot]
        try:
            reply = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(slot)
        else:
            self._replies[reply.metadata.reply_to_message_id] = reply
            worker.current = None

    def _hand_out(self, slot: int) -> None:
        worker = self._workers[slot]
        if worker.current is None and worker.queue:
            worker.current = worker.queue.popleft()
            try:
                worker.pipe.send(worker.current)
            except OSError:
                self._replace(slot)

    def _replace(self, slot: int) -> None:
        """Starts a dead process anew; the message that it was at work on is answered by an error."""
        dead = self._workers[slot]
        dead.pipe.close()
        dead.process.join()
        if dead.current is not None:
            error = Error(code=PROCESS_ENDED, reason="the worker process ended")
            self._replies[dead.current.metadata.message_id] = Message(error, reply_to=dead.current)
        self._workers[slot] = self._start(slot)
        self._workers[slot].queue = dead.queue

    def _start(self, slot: int) -> _Worker:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        configs = {node: config for node, config in self._configs.items() if (node - FIRST_NODE) % self._num_processes == slot}
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, self._app, configs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _serve(pipe: Connection, app_name: str, configs: Mapping[int, UserConfig]) -> None:
    """The life of a worker process: one message after the other, until the pipe closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(QUIET)
    module, _, attribute = app_name.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    contexts = {node: Context(RUN_ID, node, dict(config), RecordDict(), {}) for node, config in configs.items()}
    while True:
        try:
            message: Message = pipe.recv()
        except (EOFError, OSError):
            return
        node = message.metadata.dst_node_id
        _identify(node)
        pipe.send(app(message, contexts[node]))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _identify(node: int) -> None:
    """Flower reads who a process is from this class when it makes a message."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, node, node
