"""What an enrolled node can do to another at Flower's SuperLink as it is, and that it cannot at ours, through the real front."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from csasn.platform.supervision import free_port
from running_front import answers, running_front, wait_for
from server.flower.superlink import open_link, register_nodes

AS_IT_IS = (
    "from server.flower import superlink; from server.front import fleet_guard; "
    "fleet_guard.FleetGuard.install = lambda self: None; superlink.serve({port})"
)
OURS = "from server.flower import superlink; superlink.serve({port}, {parent}, 4_000_000)"
SUPERLINK_NODE = 1


@dataclass
class Enrolled:
    """A node whose key SuperLink knows, and its way there."""

    node: Node
    client: FleetHttpClient

    def receive(self):
        """The next message to this node, and its object tree; None where there is none."""
        found = self.client.PullMessages(PullMessagesRequest(node=self.node))
        return (message_from_proto(found.messages_list[0]), found.message_object_trees[0]) if found.messages_list else None

    def push(self, message, tree=None, node=None):
        """Announces a message."""
        head = message_to_proto(_without_content(message))
        tree = tree or get_object_tree(message)
        return self.client.PushMessages(
            PushMessagesRequest(node=node or self.node, messages_list=[head], message_object_trees=[tree])
        )

    def send(self, run_id, session_id, object_id, content):
        """Whether an object was taken."""
        asked = PushObjectRequest(node=self.node, run_id=run_id, object_id=object_id, object_content=content, session_id=session_id)
        return self.client.PushObject(asked).stored

    def read(self, run_id, object_id):
        """An object's content; None where this node hears of none."""
        found = self.client.PullObject(PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id))
        return found.object_content if found.object_found else None


def _without_content(message):
    from flwr.app.message import remove_content_from_message

    return remove_content_from_message(message) if message.has_content() else message


def content(value, num=10):
    return RecordDict({"arrays": ArrayRecord([np.full(num, value, np.float32)])})


def named(metadata, message, **changes):
    """Changes what a message says of itself, behind Flower's back, and gives it the identifier that belongs to it."""
    for name, value in changes.items():
        metadata.__dict__[f"_{name}"] = value
    metadata.__dict__["_message_id"] = ""
    metadata.__dict__["_message_id"] = message.object_id
    return message


@contextmanager
def running_superlink(folder, script):
    port = free_port()
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(folder)}
    with (folder / "superlink.log").open("w") as log:
        words = [sys.executable, "-P", "-c", script.format(port=port, parent=os.getpid())]
        process = subprocess.Popen(words, env=os.environ | quiet, cwd=folder, stderr=log, stdout=log)
    try:
        wait_for(lambda: answers(port), 40)
        yield port
    finally:
        process.terminate()
        process.wait(20)


class Scene:
    """Two enrolled nodes, a run, and the coordinator's link to it."""

    def __init__(self, folder, port, link, nodes):
        self.log, self.port, self.link, (self.honest, self.other) = folder / "superlink.log", port, link, nodes
        self.run_id = link.run.run_id

    def ask(self, node, value=1.0):
        """The coordinator's message to a node, and the reply that this node would give."""
        (key,) = self.link.push_messages([Message(content(value), dst_node_id=node.node.node_id, message_type="train")])
        return key


@pytest.fixture(scope="module", params=["as it is", "ours"])
def scene(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("superlink")
    keys = {site: generate_key_pairs() for site in ("centerA", "centerB")}
    lines = {site: public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for site, (_, public) in keys.items()}
    ours = request.param == "ours"
    with (
        running_superlink(folder, OURS if ours else AS_IT_IS) as port,
        running_front(folder / "front", port, lines) as front,
    ):
        register_nodes(port, lines)
        authority = (front.folder / "ca.crt").read_bytes()
        nodes = []
        for private, public in keys.values():
            way = [NodeAuthHttpInterceptor(private, public)]
            client = FleetHttpClient.from_server_address(f"127.0.0.1:{front.port}", False, authority, way)
            activate = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=60)
            nodes.append(Enrolled(Node(node_id=client.ActivateNode(activate).node_id), client))
        with open_link(port) as link:
            found = Scene(folder, port, link, nodes)
            found.ours, found.keys = ours, keys
            yield found
        for node in nodes:
            node.client.close()


def delivered(scene, node, value=1.0):
    """A message that the coordinator sent to a node, with its tree, as the node took it in."""
    scene.ask(node, value)
    message, tree = node.receive()
    return message, tree


def reply_to(message, node, value=2.0, num=10):
    reply = Message(content(value, num), reply_to=message)
    return named(reply.metadata, reply, src_node_id=node.node.node_id)


def test_an_honest_reply_arrives(scene):
    key = scene.ask(scene.honest, 7.0)
    message, tree = scene.honest.receive()
    for part in iterate_object_tree(tree):
        assert scene.honest.read(scene.run_id, part.object_id)
    scene.honest.client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=scene.honest.node, run_id=scene.run_id, message_object_id=tree.object_id)
    )
    reply = reply_to(message, scene.honest, 8.0)
    accepted = scene.honest.push(reply)
    objects = get_all_nested_objects(reply)
    assert set(accepted.objects_to_push) == set(objects)
    for object_id, part in objects.items():
        assert scene.honest.send(scene.run_id, accepted.session_id, object_id, part.deflate())
    wait_for(lambda: (replies := list(scene.link.pull_messages([key]))) and replies[0].content["arrays"], 10)


def test_no_node_asks_beats_or_leaves_in_anothers_name(scene):
    """Flower itself sees to this one."""
    victim = scene.honest.node
    client = scene.other.client
    public = public_key_to_bytes(scene.keys["centerA"][1])
    for ask, request in (
        (client.PullMessages, PullMessagesRequest(node=victim)),
        (client.SendNodeHeartbeat, SendNodeHeartbeatRequest(node=victim, heartbeat_interval=30)),
        (client.DeactivateNode, DeactivateNodeRequest(node_id=victim.node_id)),
        (client.ActivateNode, ActivateNodeRequest(public_key=public, heartbeat_interval=30)),
        (client.PullObject, PullObjectRequest(node=victim, run_id=scene.run_id, object_id="0" * 64)),
    ):
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            ask(request)


def test_no_node_replies_in_anothers_name(scene):
    message, _ = delivered(scene, scene.honest)
    forged = reply_to(message, scene.honest, 666.0)
    if scene.ours:
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            scene.other.push(forged)
        assert "push-messages of centerB refused: a message in another's name" in scene.log.read_text()
    else:
        assert scene.other.push(forged).objects_to_push


def test_no_node_gives_orders_in_the_coordinators_name(scene):
    forged = Message(content(666.0), dst_node_id=scene.honest.node.node_id, message_type="train")
    named(forged.metadata, forged, src_node_id=SUPERLINK_NODE, run_id=scene.run_id)
    if scene.ours:
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            scene.other.push(forged)
        assert scene.honest.receive() is None
    else:
        assert scene.other.push(forged).objects_to_push
        assert scene.honest.receive()[0].metadata.message_id == forged.metadata.message_id


def test_no_node_reads_what_was_sent_to_another(scene):
    _, tree = delivered(scene, scene.honest, 11.0)
    assert scene.honest.read(scene.run_id, tree.object_id)
    assert bool(scene.other.read(scene.run_id, tree.object_id)) is not scene.ours


def test_no_node_deletes_what_was_sent_to_another(scene):
    _, tree = delivered(scene, scene.honest, 12.0)
    scene.other.client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=scene.other.node, run_id=scene.run_id, message_object_id=tree.object_id)
    )
    assert bool(scene.honest.read(scene.run_id, tree.object_id)) is scene.ours


def test_no_node_deletes_anothers_message_as_a_part_of_its_own(scene):
    _, tree = delivered(scene, scene.honest, 13.0)
    message, _ = delivered(scene, scene.other, 14.0)
    reply = reply_to(message, scene.other, 15.0)
    own = get_object_tree(reply)
    knotted = ObjectTree(object_id=own.object_id, children=[*own.children, tree])
    if scene.ours:
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            scene.other.push(reply, knotted)
    else:
        assert scene.other.push(reply, knotted).objects_to_push


def test_no_node_sends_an_object_that_another_announced(scene):
    message, _ = delivered(scene, scene.honest, 16.0)
    reply = reply_to(message, scene.honest, 17.0)
    accepted = scene.honest.push(reply)
    object_id, part = next(iter(get_all_nested_objects(reply).items()))
    assert scene.other.send(scene.run_id, "", object_id, part.deflate()) is not scene.ours
    if scene.ours:
        assert scene.honest.send(scene.run_id, accepted.session_id, object_id, part.deflate())


def test_what_a_node_never_finishes_has_a_bound(scene):
    taken = []
    for number in range(8):  # 1 MB each, of which 4 MB may lie at ours
        message, _ = delivered(scene, scene.other, 20.0 + number)
        reply = reply_to(message, scene.other, 40.0 + number, 250_000)
        accepted = scene.other.push(reply)
        large = next((key, part) for key, part in get_all_nested_objects(reply).items() if len(part.deflate()) > 900_000)
        taken.append(scene.other.send(scene.run_id, accepted.session_id, large[0], large[1].deflate()))
    assert sum(taken) == (3 if scene.ours else 8)
    if scene.ours:
        assert "push-object of centerB refused: it has too many bytes here that nobody fetched" in scene.log.read_text()
