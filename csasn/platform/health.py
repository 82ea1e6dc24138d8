"""The gRPC health service (grpc.health.v1) of `server start` and `client --site`, for the probes of Kubernetes and load balancers.

What Flower's own SuperLink and SuperNode offer says "serving" as long as their process is there. This one says whether the service
does what it is for: sites can reach a SuperLink that knows them, or the coordinator answers this site.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from csasn.errors import ConfigurationError

WHOLE = ""  # the name that a probe asks for when it names no part


class Health:
    """Answers probes at `address`, HOST:PORT, in plain text: it says one bit, and nobody is asked who he is."""

    def __init__(self, address: str) -> None:
        """Listens; what it says is "not serving" until `tell`.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        self._state = health.HealthServicer()
        self.tell(ready=False)
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        add_HealthServicer_to_server(self._state, self._server)
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigurationError(
                f"--health: nothing can listen at {address}", "expected HOST:PORT of this machine, and a port that is free"
            ) from None
        self._server.start()

    def tell(self, *, ready: bool) -> None:
        """What probes are told from now on."""
        self._state.set(WHOLE, HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Says that it ends, and listens no more."""
        self._state.enter_graceful_shutdown()
        self._server.stop(grace=None)
