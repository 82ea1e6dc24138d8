"""Flower's runtime API on the loopback address, where a program meets its SuperLink or SuperNode: tasks, and signs of life."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient

LOOPBACK = "127.0.0.1"


def connect(port: int, component: str, patience_s: float, token: str = "") -> RuntimeHttpClient:
    """Opens a link as Flower's `component`; `token` is that of a task."""
    named = RuntimeVersionHttpInterceptor(component_name=component)
    return RuntimeHttpClient.from_server_address(
        server_address=f"{LOOPBACK}:{port}",
        insecure=True,  # loopback
        root_certificates=None,
        interceptors=[named, RuntimeTokenHttpInterceptor(token)] if token else [named],
        retry_invoker=retry(patience_s),
    )


def retry(patience_s: float) -> RetryInvoker:
    """Tries again while nobody answers at all. Flower's own would wait for ever, and end this process on a 401."""
    return RetryInvoker(lambda: exponential(base_delay=0.1, max_delay=2), httpx.TransportError, max_tries=None, max_time=patience_s)


def acquire_task(client: RuntimeHttpClient, kind: str) -> str:
    """Takes a task that waits; its token, empty where none does."""
    found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return str(found.token) if found.HasField("task") else ""


@contextmanager
def heartbeat(client: RuntimeHttpClient) -> Iterator[None]:
    """Says that this program is alive, until the block ends; that nobody knows it any more is noticed by its next message."""

    def beat() -> bool:
        with suppress(httpx.HTTPError):
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield
    finally:
        sender.stop()
