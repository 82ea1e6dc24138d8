"""Flower's SuperLink on the loopback address, and a link to it: the Grid of a deployment.

The SuperLink keeps its state in memory: what must survive is in the coordinator's run directory, and whoever opens a link to a
SuperLink that was started anew registers the sites' nodes again and begins another run of Flower's. A SuperLink is never asked to
carry code: the bundle that Flower wants for a run holds names alone, and sites do not open it.

Control and runtime routes answer whoever reaches them, so the SuperLink listens on 127.0.0.1 behind server/front/front.py.
"""

import io
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Message
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE, ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, NodeStatus
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.cli.flower_superlink import _run_superlink_http_api
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.grid import HttpGrid
from flwr.superlink.routers.fleet import node_auth

from csasn.errors import CsasnError
from csasn.platform.patches import patch
from csasn.platform.supervision import end_with_parent
from csasn.wire.loopback import LOOPBACK, acquire_task, connect, heartbeat, retry
from server.front.fleet_guard import FleetGuard

LOOK_S = 1.0  # between two looks at which nodes came back
CLOCK_TOLERANCE_S = 300  # of a node's clock, either way
DEFAULT_NODE_BYTES = 1 << 30
PATIENCE_S = 20.0  # with a SuperLink that does not answer; then the link is lost
GLANCE_S = 1.0  # the same, of who only looks
# of Flower's errors, those that say that a node went away with the message, and not that its app failed
LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.CLIENT_APP_CRASHED,
}
_EPOCH = (2000, 1, 1, 0, 0, 0)
_PROJECT = """[project]
name = "csasn"
version = "1.0.0"
license = { file = "LICENSE" }

[tool.flwr.app]
publisher = "csasn"

[tool.flwr.app.components]
serverapp = "server.flower.app:app"
clientapp = "client.flower.app:app"
"""


class LinkLostError(CsasnError):
    """The SuperLink went away, or was started anew; open another link and go on from the run directory."""


def serve(port: int, parent: int | None = None, max_node_bytes: int = DEFAULT_NODE_BYTES) -> None:
    """Runs a SuperLink until it is ended; it ends with its parent.

    A node that a killed SuperNode left online may come back at once, since it proves its key with each request; Flower itself
    would refuse it for a minute. A node's clock may be as far ahead as behind; Flower itself refuses one that is 5 s ahead. A node
    touches its own messages alone, and has at most `max_node_bytes` lying here (server/front/fleet_guard.py).
    """
    if parent is not None:
        end_with_parent(parent)
    activate = InMemoryLinkState.activate_node

    def activate_again(state: InMemoryLinkState, node_id: int, heartbeat_interval: float) -> bool:
        state.deactivate_node(node_id)
        return activate(state, node_id, heartbeat_interval)

    patch(InMemoryLinkState, "activate_node", activate_again)
    patch(node_auth, "SYSTEM_TIME_TOLERANCE", CLOCK_TOLERANCE_S)
    patch(node_auth, "TIMESTAMP_TOLERANCE", 0)
    FleetGuard(max_node_bytes).install()
    _run_superlink_http_api(
        SuperLinkLifespanConfig(
            control_address="", health_server_address=None, host=LOOPBACK, port=port, insecure=True, certificates=None,
            superexec_auth_secret=None, authn_plugin=load_control_authn_plugin(), event_log_plugin=None,
            fleet_event_log_plugin=None, enable_event_log=False, artifact_provider=None, enable_supernode_auth=True,
            fleet_api_type=TRANSPORT_TYPE_GRPC_RERE, fleet_api_address=None, simulation=False, ssl_ca_certfile=None,
            ssl_certfile=None, ssl_keyfile=None, database=FLWR_IN_MEMORY_DB_NAME, isolation="process",
            runtime_dependency_install=False,
        )
    )  # fmt: skip


def register_nodes(port: int, keys: Mapping[str, str]) -> dict[str, int]:
    """Makes the SuperLink know exactly the nodes of these sites, given by OpenSSH public keys; their numbers by site.

    Raises:
        LinkLostError: it does not answer.
    """
    public = {site: public_key_to_bytes(load_ssh_public_key(key.encode())) for site, key in keys.items()}  # type: ignore[arg-type]
    with _lost(), _control(port) as control:
        known = {node.public_key: node.node_id for node in control.ListNodes(ListNodesRequest()).nodes_info if _is_live(node)}
        for key, node_id in known.items():
            if key not in public.values():
                control.UnregisterNode(UnregisterNodeRequest(node_id=node_id))
        for site, key in public.items():
            if key not in known:
                known[key] = control.RegisterNode(RegisterNodeRequest(public_key=key, name=site)).node_id
    return {site: known[key] for site, key in public.items()}


def nodes_online(port: int) -> dict[str, str]:
    """The nodes that are connected now, and since when (ISO time), by site.

    Raises:
        LinkLostError: the SuperLink does not answer.
    """
    with _lost(), _control(port, GLANCE_S) as control:
        nodes = control.ListNodes(ListNodesRequest()).nodes_info
    return {node.name: node.last_activated_at for node in nodes if node.status == "online"}


@dataclass
class _Sent:
    """A message on its way: since when its node was up, empty where the message is to be pushed again; Flower's number of its
    newest push; the objects of a reply that has begun to come."""

    message: Message
    since: str
    flower_id: str
    arriving: list[str] = field(default_factory=list)


class LinkGrid(HttpGrid):
    """The Grid of one link. A message that a node lost, since it was started anew before its reply came, is pushed again."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(f"{LOOPBACK}:{port}", insecure=True, token=token)
        self._retry_invoker = retry(PATIENCE_S)
        self._sent: dict[str, _Sent] = {}  # by our own number of the message
        self._looked = 0.0
        self._next_id = 1

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected."""
        return self._up()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; those that an older attempt left unanswered are forgotten."""
        messages = list(messages)
        nodes = {message.metadata.dst_node_id for message in messages}
        self._sent = {key: old for key, old in self._sent.items() if old.message.metadata.dst_node_id not in nodes}
        up = self._up()
        keys = []
        for message in messages:
            key, self._next_id = f"{self._next_id}", self._next_id + 1
            self._sent[key] = _Sent(message, up.get(message.metadata.dst_node_id, ""), self._push(message))
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come whole, one at a time, so that no two updates wait in memory; one request asks for all."""
        self._push_again()
        wanted = {key: self._sent[key] for key in message_ids if key in self._sent}
        if asked := {sent.flower_id: sent for sent in wanted.values() if not sent.arriving}:
            for flower_id, objects in self._find_replies(asked).items():
                asked[flower_id].arriving = objects
        for key, sent in wanted.items():
            if not sent.arriving:
                continue
            try:
                with _lost():
                    reply = self._pull(sent.arriving)
            except ObjectUnavailableError:
                continue  # its upload goes on
            except ObjectPullError:
                reply = None
            sent.arriving = []
            if reply is None or (reply.has_error() and reply.error.code in LOST):
                sent.since = ""  # pushed again as soon as its node is up
                continue
            reply.metadata.__dict__["_reply_to_message_id"] = key
            del self._sent[key]
            yield reply
            del reply  # before the next one is pulled

    def _find_replies(self, flower_ids: Iterable[str]) -> dict[str, list[str]]:
        """The objects of each reply that has begun to come, by Flower's number of the message."""
        with _lost():  # who asks for a reply again is told that it is lost
            found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=flower_ids))
        replies = {}
        for described, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            # the message itself, which is sent last, is asked for first
            objects = sorted((part.object_id for part in iterate_object_tree(tree)), key=described.metadata.message_id.__ne__)
            replies[described.metadata.reply_to_message_id] = objects
        return replies

    def _pull(self, objects: list[str]) -> Message:
        """A reply of these objects, itself the first. Flower's own grid would wait for one whose upload is slow or broke off, and
        ask for no other meanwhile."""
        client, run_id, node = self._runtime_client, self.run.run_id, self.node
        pull = make_pull_object_fn_protobuf(pull_object_protobuf=client.PullObject, node=node, run_id=run_id)
        contents = {object_id: pull(object_id) for object_id in objects}
        client.ConfirmMessageReceived(ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=objects[0]))
        return cast(Message, inflate_object_from_contents(objects[0], contents))

    def _push(self, message: Message) -> str:
        with _lost():
            (flower_id,) = super().push_messages([message])
        return flower_id

    def _push_again(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        up = self._up()
        for sent in self._sent.values():
            now = up.get(sent.message.metadata.dst_node_id, "")
            if now and now != sent.since:
                head = sent.message.metadata
                again = Message(sent.message.content, dst_node_id=head.dst_node_id, message_type=head.message_type, ttl=head.ttl)
                sent.message, sent.since, sent.flower_id = again, now, self._push(again)
                sent.arriving = []  # what had begun to come before the node went away

    def _up(self) -> dict[int, str]:
        with _lost():
            return {node.node_id: node.last_activated_at for node in self.get_nodes()}


@contextmanager
def open_link(port: int) -> Iterator[LinkGrid]:
    """Begins a run of Flower's at the SuperLink and takes the server's part in it, until the block ends.

    Raises:
        LinkLostError: the SuperLink does not answer, now or later.
    """
    with _lost(), _control(port) as control:
        bundle = _bundle()
        started = control.StartRun(StartRunRequest(fab=Fab(content=bundle), federation=NOOP_FEDERATION_ID))
    with _lost():
        grid = LinkGrid(port, _acquire(port))
        client = grid._runtime_client
        task = client.PullTaskInput(PullTaskInputRequest())
        context = context_from_proto(task.context)
    assert task.run.run_id == started.run_id
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, task.run.run_id, context.node_id
    grid.set_run(run_from_proto(task.run))
    try:
        with heartbeat(client):
            yield grid
    finally:
        with suppress(httpx.HTTPError, RuntimeError):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
        grid.close()


def _acquire(port: int) -> str:
    """The token of the server's task of the run that was just begun."""
    with closing(connect(port, "SuperExec", PATIENCE_S)) as client:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if token := acquire_task(client, "flwr-serverapp"):
                return token
            time.sleep(0.05)
    raise LinkLostError("the SuperLink has no task for the server")


def _control(port: int, patience_s: float = PATIENCE_S) -> ControlHttpClient:
    return ControlHttpClient.from_server_address(
        server_address=f"{LOOPBACK}:{port}", insecure=True, root_certificates=None, interceptors=[], retry_invoker=retry(patience_s)
    )


@contextmanager
def _lost() -> Iterator[None]:
    """Whatever keeps the SuperLink from answering as it should means that the link is lost."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise LinkLostError(f"the SuperLink answers with status {error.response.status_code}", "was it started anew?") from None
    except (httpx.HTTPError, RunNotRunningException):
        raise LinkLostError("the SuperLink went away", "is `server start` running?") from None


def _is_live(node: NodeInfo) -> bool:
    return bool(node.status != NodeStatus.UNREGISTERED)


def _bundle() -> bytes:
    """The smallest bundle that Flower takes: names, and no code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (("pyproject.toml", _PROJECT), ("LICENSE", "Apache-2.0\n")):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return buffer.getvalue()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
