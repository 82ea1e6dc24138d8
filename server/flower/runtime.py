"""Flower's private parts, in one place: a Grid over worker processes of this machine, and Flower's own simulation on Ray.

The Grid needs neither Ray nor ports. Every site is pinned to one of its processes, which imports the client app once and stays
warm. Processes are spawned, end with their parent, and are started anew when they die: the message that one was at work on comes
back as an error.

On Ray a message goes to any idle process, so that a site's next one may meet a process that does not hold the model: it then asks
for the whole (csasn/SPEC.md), and the bits are the same.
"""

import importlib
import importlib.util
import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from csasn.errors import ConfigurationError, RunError, Stopped
from csasn.platform.heap import keep_freed_memory
from csasn.platform.supervision import QUIET

RUN_ID, SERVER_NODE = 1, 1
FIRST_NODE = 2
END_WITHIN_S = 3.0
NUM_AHEAD = 2  # messages that a process holds: one to work on, and the next
LONGEST_FOLDER = 20
PROCESS_ENDED = 8  # Flower's code for an app that stopped without an answer
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to Ray's makers
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its name aside: one machine, and ports on the loopback address alone
    "RAY_AUTH_MODE": "token",  # of those, only to who knows RAY_AUTH_TOKEN
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the site file chooses the device, as everywhere
}


@dataclass
class _Worker:
    """A process, the messages that wait for it, and those that it was sent: the one that it is at work on, and the next."""

    process: BaseProcess
    pipe: Connection
    queue: deque[Message] = field(default_factory=deque)
    sent: deque[Message] = field(default_factory=deque)
    outgoing: "SimpleQueue[Message | None]" = field(default_factory=SimpleQueue)


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
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_WITHIN_S)
            worker.process.kill()
            worker.process.join()
            worker.outgoing.put(None)
            worker.pipe.close()

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
            worker.sent.popleft()

    def _hand_out(self, slot: int) -> None:
        worker = self._workers[slot]
        while worker.queue and len(worker.sent) < NUM_AHEAD:
            worker.sent.append(worker.queue.popleft())
            worker.outgoing.put(worker.sent[-1])

    def _replace(self, slot: int) -> None:
        """Starts a dead process anew; the message that it was at work on is answered by an error."""
        dead = self._workers[slot]
        dead.outgoing.put(None)
        dead.pipe.close()
        dead.process.join()
        if dead.sent:
            current = dead.sent.popleft()
            error = Error(code=PROCESS_ENDED, reason="the worker process ended")
            self._replies[current.metadata.message_id] = Message(error, reply_to=current)
        self._workers[slot] = self._start(slot)
        self._workers[slot].queue = dead.sent + dead.queue

    def _start(self, slot: int) -> _Worker:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        configs = {node: config for node, config in self._configs.items() if (node - FIRST_NODE) % self._num_processes == slot}
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, self._app, configs), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        threading.Thread(target=_send, args=(ours, worker.outgoing), daemon=True).start()
        return worker


def _send(pipe: Connection, outgoing: "SimpleQueue[Message | None]") -> None:
    """In a thread of its own: a process that hangs reads nothing, and must not make the coordinator wait beyond its deadline."""
    with suppress(OSError):  # a process that ended is seen when its end of the pipe closes
        for message in iter(outgoing.get, None):
            pipe.send(message)


def _receive(pipe: Connection, incoming: "SimpleQueue[Message | None]") -> None:
    """In a thread of its own, so that the next message is there when one is answered; None once the pipe is closed."""
    with suppress(EOFError, OSError):
        while True:
            incoming.put(pipe.recv())
    incoming.put(None)


def _serve(pipe: Connection, app_name: str, configs: Mapping[int, UserConfig]) -> None:
    """The life of a worker process: one message after the other, until the pipe closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(QUIET)
    keep_freed_memory()
    app = _import_app(app_name)
    contexts = {node: Context(RUN_ID, node, dict(config), RecordDict(), {}) for node, config in configs.items()}
    incoming: SimpleQueue[Message | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, incoming), daemon=True).start()
    while (message := incoming.get()) is not None:
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


def require_ray() -> None:
    """Refuses to go on without Ray.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(
            "engine 'flower' needs Ray, which is not installed",
            "pip install 'csasn-federated[flower]', or leave out --engine: the local engine gives the same model",
        )


def run_on_ray(
    serve: Callable[[Grid, Callable[[float], None]], None], app: str, num_nodes: int, run_config: Mapping[str, str]
) -> None:
    """Runs `serve(grid, pause)` as the server app of Flower's simulation; `app` names the client app of its virtual nodes.

    The runtime stays in this process, so that errors, events and Ctrl-C go their usual way, and no SuperLink is left behind.
    Ray listens on the loopback address, to processes that know this run's token.

    Raises:
        Exception: what `serve` raises.
        RunError: Ray or the runtime stopped.
    """
    os.environ.update(QUIET | RAY | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # read from the environment when it was imported
    telemetry.state["source"] = "unavailable"  # so that no file with an identity is made in the home folder
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it writes foreign texts; our events say what happened
    from flwr.simulation import run_simulation

    stop, busy, server = threading.Event(), threading.Lock(), ServerApp()
    failed: list[Exception] = []

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped("the simulation ended")

    @server.main()
    def _main(grid: Grid, _: Context) -> None:
        try:
            with busy:
                serve(grid, pause)
        except Exception as error:
            failed.append(error)
            raise

    files = _short_folder()
    num_processes = min(num_nodes, os.cpu_count() or 1)
    ray = {"num_cpus": num_processes, "log_to_driver": False, "_temp_dir": files}
    resources = {"init_args": ray, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    try:
        run_simulation(server, _NamedApp(app, run_config), num_nodes, backend_config=resources)  # type: ignore[arg-type]
    except Exception as error:
        if error in failed:
            raise
        _stopped(error)
    finally:
        stop.set()
        with busy:  # the server app has let go of the run directory
            shutil.rmtree(files, ignore_errors=True)


def _short_folder() -> str:
    """A new folder for Ray's logs and sockets. The path of a socket is 107 bytes at most, of which Ray takes most."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=usual if len(usual) <= LONGEST_FOLDER else "/tmp")  # noqa: S108 - mkdtemp is safe there


def _stopped(error: Exception) -> NoReturn:
    cause = error.__cause__ or error
    root = cause.__cause__ or cause
    raise RunError(
        f"Flower's simulation runtime stopped: {type(root).__name__}",
        "--resume goes on, with --engine local where Ray does not run",
    ) from error


class _NamedApp(ClientApp):
    """A client app that Ray's processes import by name, under the run configuration that `flwr run` would give it."""

    def __init__(self, name: str, run_config: Mapping[str, str]) -> None:
        super().__init__()
        self._name, self._run_config = name, dict(run_config)

    def __call__(self, message: Message, context: Context) -> Message:
        configured = Context(context.run_id, context.node_id, context.node_config, context.state, dict(self._run_config))
        return _import_app(self._name)(message, configured)


def _import_app(name: str) -> ClientApp:
    module, _, attribute = name.partition(":")
    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return app
