"""What Flower's SuperLink leaves open between nodes, closed in front of its handlers.

Flower 1.41 compares the node that a request names with the key that signed it (`node_auth`), and refuses a reply to a message that
was sent to another node. Beyond that, seen in its code and tried in tests/front/test_impersonation.py, an enrolled node may

- push a message that bears SuperLink's own name to another node, which takes it for the coordinator's;
- read any object of the run whose hash it knows, whoever it is for;
- push any object that another node announced, and has yet to send;
- delete any message by its hash, by confirming it;
- announce another's message as a part of its own, and delete it so;
- have any number of bytes lying at SuperLink.

A message has to bear the name of the node that sends it, be a reply, and hang together; an object is read, sent and deleted by its
owners (server/front/holdings.py). Nothing here judges what is in a message: sites and coordinator do.
"""

import logging
from collections.abc import Callable

from fastapi import HTTPException
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.superlink.servicer.fleet import fleet_handlers

from csasn.platform.patches import patch
from server.front.holdings import Holdings

SUPERLINK_NODE = 1
MAX_OBJECTS = 10_000  # of a message; each is an array or a record of it
log = logging.getLogger(__name__)


class FleetGuard:
    """Takes the place of Flower's handlers; `max_bytes` bounds what a node may have lying at SuperLink."""

    def __init__(self, max_bytes: int) -> None:
        self._holdings = Holdings(max_bytes)
        self._flower = dict(vars(fleet_handlers))

    def install(self) -> None:
        """From here on, SuperLink's routes come here first."""
        guarded: dict[str, Callable[..., object]] = {
            "pull_messages": self.pull_messages,
            "push_messages": self.push_messages,
            "push_object": self.push_object,
            "pull_object": self.pull_object,
            "confirm_message_received": self.confirm_message_received,
        }
        for name, handler in guarded.items():
            patch(fleet_handlers, name, handler)

    def pull_messages(self, request: PullMessagesRequest, state: InMemoryLinkState, store: ObjectStore) -> PullMessagesResponse:
        """Notes what the node may read."""
        response: PullMessagesResponse = self._flower["pull_messages"](request=request, state=state, store=store)
        for tree in response.message_object_trees:
            self._holdings.deliver(request.node.node_id, tree.object_id, [part.object_id for part in iterate_object_tree(tree)])
        return response

    def push_messages(self, request: PushMessagesRequest, state: InMemoryLinkState) -> PushMessagesResponse:
        """Refuses a message that is not the node's own reply, and notes what it is about to send."""
        node = request.node.node_id
        if fault := self._fault(request):
            self._refuse(state, node, "push-messages", fault)
            raise HTTPException(403, fault)
        tree = request.message_object_trees[0]
        response: PushMessagesResponse = self._flower["push_messages"](request=request, state=state)
        if response.objects_to_push:
            self._holdings.announce(node, tree.object_id, [part.object_id for part in iterate_object_tree(tree)])
        return response

    def push_object(self, request: PushObjectRequest, state: InMemoryLinkState) -> PushObjectResponse:
        """Refuses an object that the node did not announce, and one too many bytes."""
        node, object_id = request.node.node_id, request.object_id
        if not self._holdings.may_push(node, object_id):
            self._refuse(state, node, "push-object", "it did not announce the object")
            return PushObjectResponse(stored=False)
        if not self._holdings.store(node, object_id, len(request.object_content), state.object_store.__contains__):
            self._refuse(state, node, "push-object", "it has too many bytes here that nobody fetched")
            return PushObjectResponse(stored=False)
        response: PushObjectResponse = self._flower["push_object"](request=request, state=state)
        if not response.stored:
            self._holdings.release(node, object_id)
        return response

    def pull_object(self, request: PullObjectRequest, state: InMemoryLinkState) -> PullObjectResponse:
        """Knows of no object that was not sent to the node."""
        if not self._holdings.may_pull(request.node.node_id, request.object_id):
            self._refuse(state, request.node.node_id, "pull-object", "the object is of no message to it")
            return PullObjectResponse(object_found=False, object_available=False)
        response: PullObjectResponse = self._flower["pull_object"](request=request, state=state)
        return response

    def confirm_message_received(
        self, request: ConfirmMessageReceivedRequest, state: InMemoryLinkState, store: ObjectStore
    ) -> ConfirmMessageReceivedResponse:
        """Deletes no message that was not sent to the node."""
        if not self._holdings.may_confirm(request.node.node_id, request.message_object_id):
            self._refuse(state, request.node.node_id, "confirm-message-received", "the message is not to it")
            return ConfirmMessageReceivedResponse()
        response: ConfirmMessageReceivedResponse = self._flower["confirm_message_received"](
            request=request, state=state, store=store
        )
        return response

    def _fault(self, request: PushMessagesRequest) -> str:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            return "not one message"
        head, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        if head.src_node_id != request.node.node_id:
            return "a message in another's name"
        if head.dst_node_id != SUPERLINK_NODE or not head.reply_to_message_id:
            return "not a reply to the coordinator"
        parts = [part.object_id for part in iterate_object_tree(tree)]
        if len(parts) > MAX_OBJECTS:
            return "too many objects"
        if tree.object_id != head.message_id or any(self._holdings.is_root(part) for part in set(parts) - {tree.object_id}):
            return "objects that are not of this message"
        return ""

    def _refuse(self, state: InMemoryLinkState, node: int, route: str, why: str) -> None:
        site = state.nodes[node].name if node in state.nodes else "unknown"
        log.warning("%s of %s refused: %s", route, site, why)
