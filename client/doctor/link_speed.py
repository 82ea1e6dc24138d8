"""The bandwidth between this site and the coordinator, measured through the coordinator's echo route.

A transfer grows from 16 KiB until one takes long enough to tell, so that a slow link is busy for some ten seconds at most, both
ways together, and a fast one moves a few MiB.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from client.trust.coordinator_link import check_known, open_client
from csasn.errors import NetworkError
from csasn.platform.configuration import Configuration
from csasn.site import Site
from csasn.trust.enrolment import Kit
from csasn.trust.facts import ECHO_ROUTE
from csasn.trust.identity import load_identity

FIRST_BYTES, MOST_BYTES, GROWTH = 16 << 10, 8 << 20, 8
ENOUGH_S, WANTED_S = 1.0, 2.0


class Echoed(Configuration):
    """What the echo route says of what it was sent."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class LinkSpeed:
    """Bytes a second from this site to the coordinator, and back."""

    up: float
    down: float


def measure_link(site: Site, kit: Kit) -> LinkSpeed:
    """Measures both ways over one connection, which is open already when the clock starts.

    Raises:
        NetworkError, TrustError: the coordinator does not answer, or not with what was asked, or does not know this site's key.
    """
    with open_client(site, kit, load_identity(site.keys_folder)) as client:
        check_known(client.post(ECHO_ROUTE, content=b"?"), site, client)
        return LinkSpeed(measure_rate(lambda size: _upload(client, size)), measure_rate(lambda size: _download(client, size)))


def measure_rate(transfer: Callable[[int], None], clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes a second of the largest transfer that was worth its time."""
    size = FIRST_BYTES
    while True:
        begin = clock()
        transfer(size)
        took = max(clock() - begin, 1e-6)
        if took >= ENOUGH_S or size >= MOST_BYTES:
            return size / took
        size = min(MOST_BYTES, GROWTH * size, int(size / took * WANTED_S))


def _upload(client: httpx.Client, size: int) -> None:
    answer = client.post(ECHO_ROUTE, content=os.urandom(size))  # nothing on the way can compress it
    answer.raise_for_status()
    _check_size(Echoed.model_validate_json(answer.content).bytes, size)


def _download(client: httpx.Client, size: int) -> None:
    answer = client.get(ECHO_ROUTE, params={"bytes": size})
    answer.raise_for_status()
    _check_size(len(answer.content), size)


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise NetworkError(f"of {expected} bytes {found} arrived", "does a proxy or firewall on the way change what passes?")
