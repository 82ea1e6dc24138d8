"""Flower's private parts at a site, in one place: the SuperNode, with shorter waits, and the resident worker that takes its tasks.

The SuperNode runs in process isolation: it carries messages, and whoever asks it for a task does the work. That is `work` below, in
a process that stays warm and runs the client app installed here. The bundle that comes with a task is neither opened nor imported.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TypeVar

import flwr.supernode.fleet_http_connection as fleet
import flwr.supernode.runtime.run_clientapp as tasks_of_node
import flwr.supernode.start_client_internal as supernode_loop
import httpx
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.trust.proxy import wants_login
from csasn.platform.patches import patch
from csasn.platform.supervision import end_with_parent
from csasn.wire.loopback import acquire_task, connect, heartbeat

TASK_POLL_S = 0.15  # how often the worker asks its SuperNode; at 0.05 a round on two cores took a tenth longer
# how long a SuperNode sleeps, by how long Flower means it to
FLOWERS_POLL_S, FLOWERS_LOOK_S = 3, 0.5
SHORTER_S = {
    FLOWERS_POLL_S: 0.2,  # before it asks the coordinator again for work
    FLOWERS_LOOK_S: 0.05,  # before it looks again, in its own memory, whether the worker answered
}
PATIENCE_S = 30.0
# How often somebody looks again for a part of a message that is on its way; Flower's own waits double from 1 s to 10
LOOK_AGAIN_S, LOOK_AGAIN_AT_LEAST_S = 0.1, 0.5

T = TypeVar("T")
log = logging.getLogger(__name__)


def serve_node(arguments: Sequence[str], on_turn: Callable[[], None], parent: int) -> None:
    """Runs a SuperNode until it is ended; it ends with its parent. `on_turn` is called each time that the coordinator answered."""
    end_with_parent(parent)

    def wait(seconds: float) -> None:
        on_turn()
        time.sleep(SHORTER_S[seconds])

    patch(supernode_loop, "time", SimpleNamespace(sleep=wait))
    patch(fleet, "FleetHttpClient", FleetClient)
    patch(fleet, "make_simple_http_retry_invoker", _retry_broken_ways)
    patch(supernode_loop, "push_object_contents_from_iterable", _push_or_end)
    patch(supernode_loop, "pull_objects", _looking_again(pull_objects))
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()
    # it came out of its loop by an error, which it has logged; its HTTP server would keep a process that does nothing
    os._exit(1)


class FleetClient(FleetHttpClient):
    """Flower's own, but for what is lost on its way and taken for delivered.

    That is a request to the site; and the word that an answer comes, at whose repeat the coordinator asks for no objects, so that
    they would never be sent. A node that says anew that it is up is sent the request again, and the worker has the answer on disk.
    """

    _activation: ActivateNodeRequest | None = None
    _may_have_lost_one = False

    def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802 - Flower's name
        """Says that the node is up."""
        self._activation = request
        return super().ActivateNode(request)

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:  # noqa: N802 - Flower's name
        """Asks for a message."""
        if self._may_have_lost_one and self._activation is not None:
            self.ActivateNode(self._activation)
            self._may_have_lost_one = False
        with self._noting_what_may_be_lost():
            return super().PullMessages(request)

    def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:  # noqa: N802 - Flower's name
        """Says that an answer comes."""
        with self._noting_what_may_be_lost():
            return super().PushMessages(request)

    @contextmanager
    def _noting_what_may_be_lost(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            self._may_have_lost_one |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise


def _looking_again(pull: Callable[..., T]) -> Callable[..., T]:
    return partial(pull, initial_backoff=LOOK_AGAIN_S, backoff_cap=LOOK_AGAIN_AT_LEAST_S, max_tries_per_object=None)


def _push_or_end(contents: Iterable[tuple[str, bytes]], push_object_fn: Callable[[str, bytes], None]) -> None:
    """Flower's own, after whose failure an answer would be dropped and nobody told. A SuperNode that is started anew is sent the
    request again, and the worker has the answer on disk."""
    try:
        push_object_contents_from_iterable(contents, push_object_fn)
    except (ObjectPushError, httpx.HTTPError) as error:
        log.warning("the upload of an answer broke off (%s): starting anew, so that it is asked for again", type(error).__name__)
        os._exit(1)


def _retry_broken_ways() -> RetryInvoker:
    """Flower's way to try again, which gives up at any error of TLS, and at a proxy that does not reach the coordinator. Here only
    what a new start may mend ends it: a certificate that is refused, and a proxy that refuses the login, which may be a new one."""
    invoker = make_simple_http_retry_invoker()
    invoker.recoverable_exceptions = (httpx.TransportError, httpx.HTTPStatusError)
    gives_up = invoker.should_giveup

    def gives_up_now(error: Exception) -> bool:
        if isinstance(error, httpx.TransportError):
            return "CERTIFICATE_VERIFY_FAILED" in str(error) or wants_login(error)
        return gives_up is None or gives_up(error)

    invoker.should_giveup = gives_up_now
    return invoker


def work(port: int, app: ClientApp, parent: int) -> None:
    """Takes the tasks of the SuperNode on this port, one at a time, and answers with `app`, for ever; ends with its parent."""
    end_with_parent(parent)
    patch(tasks_of_node, "pull_and_inflate_object_from_tree", _looking_again(pull_and_inflate_object_from_tree))
    tasks = connect(port, "SuperExec", PATIENCE_S)
    while True:
        try:
            if token := acquire_task(tasks, "flwr-clientapp"):
                _do(port, token, app)
            else:
                time.sleep(TASK_POLL_S)
        except (httpx.HTTPError, ObjectPushError, RunNotRunningException, RuntimeError) as error:
            # the SuperNode went away, and a task with it: the coordinator asks again
            log.info("the SuperNode does not answer (%s)", type(error).__name__)
            time.sleep(1.0)


def _do(port: int, token: str, app: ClientApp) -> None:
    with closing(connect(port, "flwr-clientapp", PATIENCE_S, token)) as client, heartbeat(client):
        message, context, _, _ = tasks_of_node.pull_task_input(client)
        tasks_of_node.push_message(client, app(message, context), context)
        tasks_of_node.push_task_output(client=client, context=context, sub_status=SubStatus.COMPLETED, details="")
