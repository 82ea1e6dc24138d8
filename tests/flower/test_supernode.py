"""How a site's SuperNode gets what the coordinator sent, over lines that break."""

from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.flower import runtime
from client.flower.runtime import FleetClient, _retry_broken_ways

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


TRANSIENT = [
    httpx.ConnectError("[Errno 111] Connection refused"),
    httpx.ConnectTimeout("timed out"),
    httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol"),
    httpx.ReadTimeout("The read operation timed out"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
    httpx.ProxyError("503 Service Unavailable"),
    httpx.ProxyError("403 Forbidden"),
    *(httpx.HTTPStatusError("", request=None, response=httpx.Response(status)) for status in (502, 503, 504)),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=[f"{type(error).__name__}-{number}" for number, error in enumerate(TRANSIENT)])
def test_a_supernode_tries_again_for_two_hours_and_goes_on_where_it_was(error):
    """Its waits are not slept, but counted: an hour and a half of them, and the tries that each may take half a minute."""
    invoker, waited = _retry_broken_ways(), [0.0]

    def wait(seconds):
        waited[0] += seconds

    def ask():
        if waited[0] < 7200:
            raise error
        return "a message"

    invoker.wait_function = wait
    assert invoker.invoke(ask) == "a message"
    assert waited[0] < 7230  # it asks twice a minute or more, so that it is back at once


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"),
        httpx.ProxyError("407 Proxy Authentication Required"),
    ],
    ids=["certificate", "login"],
)
def test_a_supernode_ends_where_only_a_new_start_may_help(error):
    """Then it reads certificate and login anew."""
    invoker = _retry_broken_ways()
    invoker.wait_function = lambda _: pytest.fail("it tries again")

    def ask():
        raise error

    with pytest.raises(type(error)):
        invoker.invoke(ask)


@pytest.mark.parametrize("error", [ObjectPushError("", 1, ""), httpx.ConnectError(""), RuntimeError("")])
def test_a_worker_whose_supernode_ends_in_mid_answer_goes_on(monkeypatch, error):
    """The SuperNode may be started anew at any time, such as for a proxy's new password."""
    tries = []

    def do(*_):
        tries.append(1)
        raise error if len(tries) < 3 else KeyboardInterrupt

    for name, value in {"connect": lambda *_: None, "acquire_task": lambda *_: "a token", "_do": do, "end_with_parent": id}.items():
        monkeypatch.setattr(runtime, name, value)
    monkeypatch.setattr(runtime, "time", SimpleNamespace(sleep=lambda _: None))
    with pytest.raises(KeyboardInterrupt):
        runtime.work(1, None, 1)
    assert len(tries) == 3
