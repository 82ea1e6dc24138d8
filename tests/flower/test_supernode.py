"""How a site's SuperNode gets what the coordinator sent, over lines that break."""

from contextlib import suppress

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.flower.runtime import FleetClient

UP, ASKS = "/v1/fleet/activate-node", "/v1/fleet/pull-messages"


def test_a_node_whose_word_of_an_answer_may_be_lost_says_anew_that_it_is_up(monkeypatch):
    """The coordinator may have heard the first, and asks for no objects at the second."""
    asked = []

    def answer(_, path, **__):
        asked.append(path)
        if len(asked) == 2:
            raise httpx.ReadError("")

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", answer)
    client = FleetClient.from_server_address("127.0.0.1:9", insecure=True, root_certificates=None, interceptors=[])
    client.ActivateNode(ActivateNodeRequest())
    with suppress(httpx.TransportError):
        client.PushMessages(PushMessagesRequest())
    client.PushMessages(PushMessagesRequest())
    client.PullMessages(PullMessagesRequest())
    client.close()
    says = "/v1/fleet/push-messages"
    assert asked == [UP, says, says, UP, ASKS]


@pytest.mark.parametrize(
    ("errors", "requests"),
    [
        ({}, [UP, ASKS, ASKS, ASKS]),
        ({2: httpx.ReadError("")}, [UP, ASKS, UP, ASKS, ASKS]),
        ({2: httpx.RemoteProtocolError(""), 3: httpx.ConnectError("")}, [UP, ASKS, UP, UP, ASKS]),
        ({2: httpx.ReadTimeout(""), 4: httpx.ReadTimeout("")}, [UP, ASKS, UP, ASKS, UP, ASKS]),
        ({2: httpx.ConnectError(""), 3: httpx.ConnectTimeout("")}, [UP, ASKS, ASKS, ASKS]),  # it cannot have been delivered
    ],
)
def test_a_node_that_may_have_lost_a_request_says_anew_that_it_is_up(monkeypatch, errors, requests):
    asked = []

    def answer(_, path, **__):
        asked.append(path)
        if error := errors.get(len(asked)):
            raise error

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", answer)
    client = FleetClient.from_server_address("127.0.0.1:9", insecure=True, root_certificates=None, interceptors=[])
    client.ActivateNode(ActivateNodeRequest())
    for _ in range(3):
        with suppress(httpx.TransportError):
            client.PullMessages(PullMessagesRequest())
    client.close()
    assert asked == requests
