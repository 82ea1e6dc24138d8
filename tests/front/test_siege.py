"""One address lays siege to the front: connections without a byte of TLS, and bodies that never end. Another's site works on."""

import resource
import socket
import statistics
import threading
import time
from contextlib import suppress

import pytest

from running_front import KEYS, running_front, signed_head

HONEST, HOSTILE = "127.0.0.2", "127.0.0.1"
TURN_S = 0.5


class Siege:
    """Keeps up so many idle connections, and so many slow bodies of a site that is enrolled and of strangers, from one address."""

    def __init__(self, front, num_idle, num_slow):
        self.front, self.num_idle, self.num_slow = front, num_idle, num_slow
        self.idle, self.slow, self.opened = [], [], 0
        self.ended = threading.Event()

    def __enter__(self):
        for number in range(self.num_slow):
            with suppress(OSError):  # no more than it may
                link = self.front.connect(source=HOSTILE)
                signer = KEYS["centerB"] if number % 2 else None
                head = signed_head("POST", "/csasn/echo", b"", 60_000_000, signer) if signer else _head(60_000_000)
                link.sendall(head)
                link.setblocking(False)
                self.slow.append(link)
        self._turn()
        self.thread = threading.Thread(target=self._keep_up)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        for link in self.idle + self.slow:
            link.close()

    def _keep_up(self):
        while not self.ended.wait(TURN_S):
            self._turn()

    def _turn(self):
        """Opens again what was closed, and sends a byte of each body."""
        self.idle = [link for link in self.idle if not _is_closed(link)]
        while len(self.idle) < self.num_idle:
            link = socket.socket()
            link.setblocking(False)
            link.bind((HOSTILE, 0))
            with suppress(BlockingIOError):
                link.connect(("127.0.0.1", self.front.port))
            self.idle.append(link)
            self.opened += 1
        for link in self.slow:
            with suppress(OSError):
                link.send(b"a")


def _head(length):
    return b"POST /csasn/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


def _is_closed(link):
    try:
        return link.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        link.close()
        return True


def measure(front, seconds):
    """Seconds that an honest site's requests take: over a new connection each, and over one that stays open."""
    taken = {"new connection": [], "open connection": []}
    end = time.monotonic() + seconds
    with front.client(source=HONEST, timeout=30, site="centerA") as open_client:
        open_client.post("/csasn/facts")
        while time.monotonic() < end:
            for kind, times in taken.items():
                begin = time.monotonic()
                if kind == "new connection":
                    with front.connect(source=HONEST) as link:
                        link.sendall(signed_head("POST", "/csasn/facts", b"", 0))
                        status = int(link.recv(100)[9:12])
                else:
                    status = open_client.post("/v1/fleet/pull-messages", content=b"").status_code
                times.append(time.monotonic() - begin)
                assert status == 200
                time.sleep(0.02)
    return taken


def describe(taken):
    rows = {kind: (len(times), statistics.median(times) * 1e3, max(times) * 1e3) for kind, times in taken.items()}
    return ", ".join(
        f"{kind}: {num} requests, median {middle:.1f} ms, most {most:.1f} ms" for kind, (num, middle, most) in rows.items()
    )


def lay_siege(folder, upstream, num_idle, num_slow, seconds, **settings):
    """Measures before and during; what was seen."""
    with running_front(folder, upstream.port, credits_per_minute=1 << 20, **settings) as front:
        before = measure(front, seconds)
        memory = front.memory_mb()
        with Siege(front, num_idle, num_slow) as siege:
            during = measure(front, seconds)
        print(f"\nbefore: {describe(before)}\nduring: {describe(during)}")
        print(f"{siege.opened} idle connections opened, {len(siege.slow)} slow bodies begun, memory {memory:.0f} -> "
              f"{front.memory_mb('VmHWM'):.0f} MB")  # fmt: skip
        assert max(during["new connection"] + during["open connection"]) < 5
        assert "Traceback" not in front.log.read_text()
        return before, during


def test_an_honest_site_works_on_while_another_address_holds_all_it_can(tmp_path, upstream):
    lay_siege(tmp_path, upstream, 100, 80, 2, max_connections=64, connections_per_address=40)


@pytest.mark.slow
def test_an_honest_site_works_on_under_1200_idle_connections_and_255_slow_bodies(tmp_path, upstream):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        lay_siege(tmp_path, upstream, 1200, 255, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
