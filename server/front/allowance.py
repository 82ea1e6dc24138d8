"""What one peer may have under way at once: requests, and bytes of bodies that nobody has finished.

SuperLink holds a body in memory until its last byte, and an answer until its last byte was read: without a bound, one enrolled node
fills the coordinator's memory with what it never ends.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException


@dataclass
class Allowance:
    """Bounds for each peer of one kind; who goes over them is refused as `refuse` says."""

    max_requests: int
    max_bytes: int
    refuse: Callable[[], HTTPException]
    requests: Counter[str] = field(default_factory=Counter)
    bytes_under_way: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def admit(self, peer: str) -> Iterator["Share"]:
        """One more request of this peer, until the block ends; then what it held is free again.

        Raises:
            HTTPException: the peer has as many under way as it may.
        """
        if self.requests[peer] >= self.max_requests:
            raise self.refuse()
        self.requests[peer] += 1
        share = Share(self, peer)
        try:
            yield share
        finally:
            self._give_back(share)

    def _give_back(self, share: "Share") -> None:
        for counter, amount in ((self.requests, 1), (self.bytes_under_way, share.held)):
            counter[share.peer] -= amount
            if counter[share.peer] <= 0:
                del counter[share.peer]


@dataclass
class Share:
    """What one request holds of its peer's allowance."""

    allowance: Allowance
    peer: str
    held: int = 0

    def hold(self, size_bytes: int) -> None:
        """This request has so many bytes under way, of a body whose length is known, or so far; never fewer than before.

        Raises:
            HTTPException: the peer's requests have more than they may, all together.
        """
        more = max(0, size_bytes - self.held)
        if self.allowance.bytes_under_way[self.peer] + more > self.allowance.max_bytes:
            raise self.allowance.refuse()
        self.allowance.bytes_under_way[self.peer] += more
        self.held += more
