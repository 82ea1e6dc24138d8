"""The way to the coordinator: through proxies, and how fast it is."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from client.doctor.link_speed import FIRST_BYTES, MOST_BYTES, measure_link, measure_rate
from client.trust import coordinator_link
from client.trust.coordinator_link import ask_facts
from csasn.errors import TrustError
from doctoring import assert_found


def pass_on(source, target):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def tunnel(link, asked, status):
    """Answers one CONNECT with `status`, and where that is 200 passes bytes both ways until both sides have ended."""
    with link:
        asked.append(link.recv(4096).split(b"\r\n")[0].decode())
        link.sendall(b"HTTP/1.1 %d x\r\n\r\n" % status)
        if status == 200:
            host, port = asked[-1].split()[1].split(":")
            with socket.create_connection((host, int(port))) as target:
                back = threading.Thread(target=pass_on, args=(target, link))
                back.start()
                pass_on(link, target)
                back.join()


@contextmanager
def running_proxy(status):
    """A proxy that answers every CONNECT with `status`; its address, and what it was asked."""
    asked, threads = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=tunnel, args=(listener.accept()[0], asked, status)))
                    threads[-1].start()

        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join()


def test_a_proxy_that_refuses_is_found(hospital, quick):
    with running_proxy(403) as (proxy, asked):
        hospital.set(proxy=proxy)
        assert_found(hospital.examine(), "connection", 12, f"the proxy {proxy} refuses the way", "allow CONNECT")
    assert asked
    assert all(line.startswith(f"CONNECT 127.0.0.1:{hospital.federation.port} ") for line in asked)


def test_all_is_measured_through_a_proxy_that_lets_through(hospital, quick):
    with running_proxy(200) as (proxy, asked):
        hospital.set(proxy=proxy)
        found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert f"answers through the proxy {proxy} over TLS" in found["connection"].finding.message
    assert len(asked) == 3  # handshake, facts, bandwidth


@pytest.mark.parametrize("rate", [3e3, 2e4, 1e6, 1e9])
def test_the_bandwidth_is_measured_within_five_seconds_each_way(rate):
    now, moved = [0.0], [0]

    def transfer(size):
        now[0] += 0.05 + size / rate
        moved[0] += size

    found = measure_rate(transfer, lambda: now[0])
    assert found == pytest.approx(rate, rel=0.3) or rate > 1e8
    assert now[0] < max(5.0, 1.1 * FIRST_BYTES / rate)
    assert moved[0] < 2 * MOST_BYTES


def test_a_refused_signature_is_the_clocks_fault_where_the_clocks_differ(hospital, monkeypatch):
    context = hospital.context()
    assert ask_facts(context.site, context.kit).study_name == "small"
    late = SimpleNamespace(time=lambda: time.time() - 600)
    monkeypatch.setattr(coordinator_link, "time", late)
    with pytest.raises(TrustError, match="does not know the key of centerA: is it enrolled"):
        ask_facts(context.site, context.kit)
    with pytest.raises(TrustError, match="does not know the key of centerA: is it enrolled"):
        measure_link(context.site, context.kit)
    hospital.federation.say({"ahead_s": 600})
    with pytest.raises(TrustError, match=r"clock is (599|600) s behind the coordinator's") as caught:
        ask_facts(context.site, context.kit)
    assert "NTP" in caught.value.hint
