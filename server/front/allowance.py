"""What one peer may have under way at once: requests, and bytes of bodies that nobody has finished.

SuperLink holds a body in memory until its last byte, and an answer until its last byte was read: without a bound, one enrolled node
fills the coordinator's memory with what it never ends.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

Hold = Callable[[int], None]


@dataclass
class Allowance:
    """Bounds for each peer of one kind; who goes over them is refused as `refuse` says."""

    max_requests: int
    max_bytes: int
    refuse: Callable[[], HTTPException]
    requests: Counter[str] = field(default_factory=Counter)
    bytes_under_way: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def admit(self, peer: str) -> Iterator[Hold]:
        """Counts one more request of this peer, until the block ends; then what it held is free again.

        Yields a function that says how many bytes the request has under way: the length of a body where it is known, or what came
        so far. It never holds fewer than before.

        Raises:
            HTTPException: the peer has as many requests, or in all of them as many bytes, under way as it may.
        """
        if self.requests[peer] >= self.max_requests:
            raise self.refuse()
        self.requests[peer] += 1
        held = 0

        def hold(size_bytes: int) -> None:
            nonlocal held
            more = max(0, size_bytes - held)
            if self.bytes_under_way[peer] + more > self.max_bytes:
                raise self.refuse()
            self.bytes_under_way[peer] += more
            held += more

        try:
            yield hold
        finally:
            for counter, amount in ((self.requests, 1), (self.bytes_under_way, held)):
                counter[peer] -= amount
                if not counter[peer]:
                    del counter[peer]
