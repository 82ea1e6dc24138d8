"""Which TCP connections the front keeps: a bound for each address, one for all, and who makes room when all are taken.

An address is an IPv4 address or an IPv6 network of 64 bits, in which a host may choose any. Over its own bound an address's newest
connections are closed at once. Over the bound of all, the oldest idle connection of the address that has the most makes room, if
that has more than the newcomer's. An address at which an enrolled site signed a request lately never makes room for one at which
none did, which always makes room for it.

This does not withstand a flood that fills the line or the kernel's queue: that is for the network before it.
"""

import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

Peer = tuple[str, int]  # address and port
VOUCHED_S = 600.0


@dataclass(frozen=True)
class Held:
    """A connection that is open: since when, and at whose end."""

    peer: Peer
    address: str
    since: float


@dataclass
class Connections:
    """The connections that are open. `find_busy` gives the peers whose request is open: they are not cut for others."""

    per_address: int
    total: int
    find_busy: Callable[[], set[Peer]] = set
    held: dict[socket.socket, Held] = field(default_factory=dict)
    vouched: dict[str, float] = field(default_factory=dict)

    def admit(self, connection: socket.socket, peer: Peer) -> bool:
        """Whether a connection may stay, which may end another's."""
        self.held = {each: held for each, held in self.held.items() if each.fileno() >= 0}
        address = address_of(peer[0])
        counts = Counter(held.address for held in self.held.values())
        if counts[address] >= self.per_address:
            return False
        if len(self.held) >= self.total and not self._make_room(address, counts):
            return False
        self.held[connection] = Held(peer, address, time.monotonic())
        return True

    def vouch(self, address: str) -> None:
        """An enrolled site signed a request from this address just now."""
        now = time.monotonic()
        self.vouched = {each: since for each, since in self.vouched.items() if now - since < VOUCHED_S}
        self.vouched[address_of(address)] = now

    def cut_unfinished(self, secured: set[Peer], patience_s: float) -> None:
        """Ends connections that have not finished TLS in time."""
        now = time.monotonic()
        for connection, held in list(self.held.items()):
            if connection.fileno() >= 0 and held.peer not in secured and now - held.since > patience_s:
                self._end(connection)

    def _make_room(self, newcomer: str, counts: Counter[str]) -> bool:
        busy, now = self.find_busy(), time.monotonic()
        known = {address for address, since in self.vouched.items() if now - since < VOUCHED_S}

        def yields(held: Held) -> bool:
            if (newcomer in known) != (held.address in known):
                return newcomer in known
            return counts[held.address] > counts[newcomer]

        def order(one: tuple[socket.socket, Held]) -> tuple[bool, int, float]:
            address = one[1].address
            return address not in known, counts[address], now - one[1].since

        idle = [(connection, held) for connection, held in self.held.items() if held.peer not in busy and yields(held)]
        if not idle:
            return False
        self._end(max(idle, key=order)[0])
        return True

    def _end(self, connection: socket.socket) -> None:
        """The event loop sees the end of it, and closes it; to close it here would take its descriptor from under the loop."""
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        self.held.pop(connection, None)


def address_of(host: str) -> str:
    """What a peer is counted by."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
