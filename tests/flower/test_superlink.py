"""The link to SuperLink: which replies an exchange is given."""

from types import SimpleNamespace

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

from server.flower.superlink import LinkGrid

NODES = {1: "since the morning", 2: "since the morning"}


class Link(LinkGrid):
    """A link without a SuperLink: each message has a reply that has begun to come, and those in `whole` are there."""

    def __init__(self):
        super().__init__(9, "token")
        self.whole = set()

    def _up(self):
        return NODES

    def _push(self, _):
        return f"{self._next_id - 1}"

    def _find_replies(self, flower_ids):
        return {flower_id: [flower_id] for flower_id in flower_ids}

    def _pull(self, objects):
        if objects[0] not in self.whole:
            raise ObjectUnavailableError(objects[0])
        return SimpleNamespace(metadata=SimpleNamespace(), has_error=lambda: False)

    def send(self, node):
        (key,) = self.push_messages([SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node))])
        return key

    def replies_to(self, *keys):
        return [reply.metadata._reply_to_message_id for reply in self.pull_messages(list(keys))]


@pytest.fixture
def link():
    return Link()


def test_a_late_reply_to_an_older_exchange_is_not_given_to_one_that_did_not_ask_for_it(link):
    late = link.send(1)
    assert link.replies_to(late) == []  # its upload has begun
    asked = link.send(2)
    link.whole |= {late, asked}
    assert link.replies_to(asked) == [asked]


def test_a_reply_is_given_once_to_who_asks_for_it(link):
    key = link.send(1)
    assert link.replies_to(key) == []
    link.whole.add(key)
    assert link.replies_to(key) == [key]
    assert link.replies_to(key) == []
