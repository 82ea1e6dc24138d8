"""Which connections the front keeps, and who makes room."""

import socket
import subprocess
import sys

import pytest

from server.front.connections import Connections, address_of


@pytest.fixture
def arrive():
    """Lets a connection of an address arrive; whether it may stay."""
    kept, port = [], iter(range(1, 1 << 16))

    def one(connections, host):
        ours, theirs = socket.socketpair()
        kept.extend((ours, theirs))
        theirs.setblocking(False)
        peer = (host, next(port))
        return connections.admit(ours, peer), peer, theirs

    yield one
    for each in kept:
        each.close()


def is_cut(theirs):
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


def test_over_its_bound_an_addresss_newest_are_refused_and_room_comes_back(arrive):
    connections = Connections(3, 100)
    first = [arrive(connections, "10.0.0.1") for _ in range(5)]
    assert [stays for stays, *_ in first] == [True, True, True, False, False]
    assert arrive(connections, "10.0.0.2")[0]
    next(iter(connections.held)).close()
    assert arrive(connections, "10.0.0.1")[0]


def test_when_all_are_taken_the_oldest_idle_one_of_who_has_most_makes_room(arrive):
    connections = Connections(10, 6)
    many = [arrive(connections, "10.0.0.1") for _ in range(4)]
    few = [arrive(connections, "10.0.0.2") for _ in range(2)]
    connections.find_busy = lambda: {many[0][1]}
    assert arrive(connections, "10.0.0.3")[0]
    assert [is_cut(theirs) for *_, theirs in many + few] == [False, True, False, False, False, False]
    assert not arrive(connections, "10.0.0.1")[0]  # nobody has more


def test_when_all_are_busy_a_newcomer_is_refused(arrive):
    connections = Connections(10, 2)
    peers = {arrive(connections, "10.0.0.1")[1] for _ in range(2)}
    connections.find_busy = lambda: peers
    assert not arrive(connections, "10.0.0.2")[0]


def test_an_address_of_an_enrolled_site_makes_no_room_for_strangers_who_make_room_for_it(arrive):
    connections = Connections(10, 4)
    connections.vouch("10.0.0.1")
    known = [arrive(connections, "10.0.0.1") for _ in range(3)]
    stranger, busy = arrive(connections, "10.0.0.2"), set()
    connections.find_busy = lambda: busy
    busy.add(stranger[1])
    assert not arrive(connections, "10.0.0.3")[0]
    busy.clear()
    assert arrive(connections, "10.0.0.1")[0]
    assert is_cut(stranger[2])
    assert not any(is_cut(theirs) for *_, theirs in known)


def test_who_does_not_finish_tls_is_cut(arrive):
    connections = Connections(10, 10)
    secured, silent = arrive(connections, "10.0.0.1"), arrive(connections, "10.0.0.1")
    connections.cut_unfinished({secured[1]}, 5.0)
    assert not is_cut(silent[2])
    connections.cut_unfinished({secured[1]}, -1.0)
    assert (is_cut(secured[2]), is_cut(silent[2])) == (False, True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_an_ipv6_host_cannot_be_many_addresses(one, other, same):
    assert (address_of(one) == address_of(other)) is same


OUT_OF_DESCRIPTORS = """
import os, resource, socket
from server.front.connections import Connections
from server.front.listener import open_listener
listener = open_listener("127.0.0.1", 0, Connections(100, 100))
clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
listener.setblocking(False)
try:
    listener.accept()
except BlockingIOError:
    print("empty")
[client.settimeout(60) for client in clients]
print([client.recv(1) for client in clients])
os.close(taken.pop()), os.close(taken.pop())
listener.keep_spare()
clients[0].close()
again = socket.socket()
again.connect(listener.getsockname())
print(listener.accept()[0].getpeername() == again.getsockname())
"""


def test_out_of_descriptors_connections_are_closed_and_the_next_one_is_taken():
    done = subprocess.run([sys.executable, "-c", OUT_OF_DESCRIPTORS], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == ["empty", "[b'', b'', b'']", "True"]


LIMITS = """
import resource, sys
from server.front.listener import most_connections
hard = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
print(most_connections(256), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "expected"), [(4096, "256 4096"), (128, "32 128")])
def test_the_limit_of_descriptors_is_raised_and_connections_keep_to_it(hard, expected):
    done = subprocess.run([sys.executable, "-c", LIMITS, str(hard)], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == expected
