"""A TCP relay that passes bytes on late, holds them in the middle of an upload, or forgets connections, as firewalls do."""

import math
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

BLOCK_BYTES = 16 << 10
Connect = Callable[[], socket.socket]


class Relay:
    """Passes every connection to `listener` on to what `connect` reaches; bytes are `delay_s` under way in either direction.

    A connection on which nothing passed for `idle_s` is forgotten: what comes later is dropped, and neither side is told.
    """

    def __init__(self, listener: socket.socket, connect: Connect, delay_s: float = 0.0) -> None:
        self.listener, self.connect, self.delay_s = listener, connect, delay_s
        self.port = int(listener.getsockname()[1])
        self.holding, self._go_on = threading.Event(), threading.Event()
        self._armed: list[int] = []  # how many bytes may go up; another list each time that it is armed
        self.idle_s, self.num_forgotten = math.inf, 0
        self._sockets: set[socket.socket] = set()
        self._moved: list[list[float]] = []  # when bytes passed last, of each connection; -inf once it is forgotten
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, num_bytes: int) -> None:
        """Holds the first connection on which so many bytes go up from now on, until `go_on`; `holding` is set then."""
        self.holding.clear()
        self._go_on.clear()
        self._armed = [num_bytes]

    def go_on(self) -> None:
        """Lets the held connection go on."""
        self._go_on.set()

    def reach(self, near: socket.socket) -> socket.socket:
        """The way on for a connection that came; an OSError where there is none."""
        return self.connect()

    def forget(self) -> int:
        """Forgets all connections that are open, as a firewall whose table is flushed; how many."""
        open_now = [moved for moved in self._moved if moved[0] > -math.inf]
        for moved in open_now:
            moved[0] = -math.inf
        self.num_forgotten += len(open_now)
        return len(open_now)

    def close(self) -> None:
        """Ends all connections."""
        self._go_on.set()
        for each in [self.listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError), self.reach(near) as far:
            self._sockets |= {near, far}
            self._moved.append(moved := [time.monotonic()])
            up = threading.Thread(target=self._pass, args=(near, far, True, moved), daemon=True)
            up.start()
            self._pass(far, near, False, moved)
            up.join()
            self._moved.remove(moved)
            self._sockets -= {near, far}

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool, moved: list[float]) -> None:
        """One direction: this thread reads and notes when each block is due, another one sends it then."""
        due: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=256)
        sender = threading.Thread(target=self._send, args=(due, target), daemon=True)
        sender.start()
        num_bytes, armed = 0, self._armed
        with suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                if time.monotonic() - moved[0] > self.idle_s:
                    self.num_forgotten += moved[0] > -math.inf
                    moved[0] = -math.inf
                if moved[0] == -math.inf:
                    continue
                moved[0] = time.monotonic()
                num_bytes, armed = len(data) + (num_bytes if armed is self._armed else 0), self._armed
                if is_up and armed and num_bytes > armed[0]:
                    self._hold()
                due.put((time.monotonic() + self.delay_s, data))
        due.put((0.0, b""))
        sender.join()

    def _hold(self) -> None:
        self._armed = []
        self.holding.set()
        self._go_on.wait(300)

    def _send(self, due: "queue.Queue[tuple[float, bytes]]", target: socket.socket) -> None:
        alive = True
        while (item := due.get())[1]:
            time.sleep(max(0.0, item[0] - time.monotonic()))
            try:
                if alive:
                    target.sendall(item[1])
            except OSError:
                alive = False  # the rest is thrown away, so that the reader never waits
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
