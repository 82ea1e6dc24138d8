"""Who is no enrolled site learns version and clock, and can say and hold up nothing; a site speaks for itself alone."""

import hashlib
import os
import time
from contextlib import suppress
from datetime import UTC, datetime

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn import __version__
from running_front import KEYS, SignedAs, running_front, signed_head, wait_for
from server.front.front import FrontSettings

MB = 1 << 20


def test_a_stranger_hears_version_and_clock_and_nothing_else(front):
    with front.client() as client:
        answer = client.get("/csasn/facts").json()
        assert set(answer) == {"software_version", "time"}
        assert answer["software_version"] == __version__
        assert abs((datetime.now(UTC) - datetime.fromisoformat(answer["time"])).total_seconds()) < 5
        for method, path in (("POST", "/csasn/facts"), ("POST", "/csasn/echo"), ("GET", "/csasn/echo?bytes=1")):
            found = client.request(method, path, content=b"{}" if method == "POST" else None)
            assert (found.status_code, found.content) == (401, b"")
        assert set(client.get("/csasn/facts", auth=SignedAs(KEYS["centerA"])).json()) == {"software_version", "time"}


@pytest.mark.parametrize(
    "auth",
    [
        SignedAs(Ed25519PrivateKey.generate()),
        SignedAs(KEYS["centerA"], late_s=301),
        SignedAs(KEYS["centerA"], late_s=-301),
        SignedAs(KEYS["centerA"], **{"csasn-content": hashlib.sha256(b"other").hexdigest()}),
        SignedAs(KEYS["centerA"], **{"csasn-signature": "0" * 128}),
    ],
    ids=["another key", "too old", "too new", "another body", "no signature"],
)
def test_who_does_not_sign_as_an_enrolled_site_is_a_stranger(front, auth):
    with front.client() as client:
        assert client.post("/csasn/facts", content=b"word", auth=auth).status_code == 401


def test_a_body_other_than_the_signed_one_counts_for_nothing(front):
    with front.connect() as link:
        link.sendall(signed_head("POST", "/csasn/facts", b"true", 4) + b"fals")
        assert link.recv(100)[9:12] == b"401"
    assert "has another content than was signed" in front.log.read_text()


def test_a_strangers_body_is_refused_before_it_is_read(front):
    with front.connect() as link:
        link.sendall(b"POST /csasn/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
        begin = time.monotonic()
        assert link.recv(100)[9:12] == b"401"
        assert time.monotonic() - begin < FrontSettings.idle_timeout_s  # the body never comes


def test_a_site_has_few_requests_to_own_routes_under_way_at_once(front):
    links = [front.connect() for _ in range(6)]
    for link in links[:4]:
        link.sendall(signed_head("POST", "/csasn/echo", os.urandom(8), 1000) + b"a")
    with front.client(site="centerA") as client:
        wait_for(lambda: client.post("/csasn/facts").status_code == 429)  # once the four are under way
    links[4].sendall(signed_head("POST", "/csasn/facts", b"", 0))
    links[5].sendall(signed_head("POST", "/csasn/facts", b"", 0, KEYS["centerB"]))
    assert [link.recv(100)[9:12] for link in links[4:]] == [b"429", b"200"]
    for link in links:
        link.close()


def test_a_node_has_no_more_bytes_under_way_than_one_message(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, max_node_bytes=2 * MB) as front:
        links = [front.connect() for _ in range(3)]
        for under_way, link in zip((1, 2, 2), links, strict=True):
            link.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MB + bytes(1000))
            wait_for(lambda under_way=under_way: len(upstream.targets) == under_way)
        assert links[2].recv(100)[9:12] == b"503"
        with front.client() as client:
            assert client.post("/v1/fleet/push-object", content=iter([bytes(MB), bytes(1)])).status_code == 503
            other = client.post("/v1/fleet/push-object", content=bytes(MB), headers={"flwr-node": "centerB"})
            assert other.status_code == 200
        for link in links:
            link.close()
        wait_for(lambda: "push-object 503, 0 bytes in, 0 out" in front.log.read_text())
        with front.client() as client:
            wait_for(lambda: client.post("/v1/fleet/push-object", content=bytes(2 * MB)).status_code == 200)


def test_a_node_has_no_more_answers_under_way_than_one_message(tmp_path, upstream):
    upstream.answer_bytes = 8 * MB
    with running_front(tmp_path, upstream.port, max_node_bytes=12 * MB) as front, front.client() as client:
        with client.stream("POST", "/v1/fleet/pull-object") as answer:
            assert answer.status_code == 200
            assert client.post("/v1/fleet/pull-object").status_code == 503
        wait_for(lambda: client.post("/v1/fleet/pull-object").status_code == 200)


def test_a_body_slower_than_the_rate_is_cut_however_steadily_it_drips(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, idle_timeout_s=2.0, min_rate=float(MB)) as front, front.connect() as link:
        link.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n")
        begin = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begin < 60:
                link.sendall(bytes(70_000))  # a block in less than its second, and a tenth of the rate
                time.sleep(0.7)
        assert 2 < time.monotonic() - begin < 60
    assert "push-object 408" in front.log.read_text()


def test_who_does_not_finish_tls_is_cut_within_seconds(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, handshake_timeout_s=1.0) as front, front.reach() as silent, front.connect() as link:
        begin = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - begin < 30
        link.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert link.recv(100)[9:12] == b"200"


def test_over_its_bound_an_addresss_newest_connections_are_closed_before_tls(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, connections_per_address=8) as front:
        links = [front.reach(source="127.0.0.2") for _ in range(8)]
        time.sleep(0.2)
        begin = time.monotonic()
        with front.reach(source="127.0.0.2") as late:
            assert late.recv(1) == b""
        assert time.monotonic() - begin < FrontSettings.handshake_timeout_s
        with front.client() as client:
            assert client.get("/health").status_code == 200
        for link in links:
            link.close()
        wait_for(lambda: _is_healthy(front, "127.0.0.2"))


def _is_healthy(front, source):
    with suppress(httpx.TransportError), front.client(source=source) as client:
        return client.get("/health").status_code == 200
    return False


def test_when_all_connections_are_taken_an_enrolled_site_gets_in(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, max_connections=12, connections_per_address=6) as front:
        links = [front.connect(source=f"127.0.0.{2 + number // 4}") for number in range(12)]
        with front.client(site="centerA") as client:
            begin = time.monotonic()
            assert client.post("/csasn/facts").status_code == 200
            assert time.monotonic() - begin < FrontSettings.handshake_timeout_s
        for link in links:
            link.close()


def test_a_request_of_a_site_is_signed_by_the_clients_own_code(front):
    from client.trust.coordinator_link import SignedBy

    with front.client() as client:
        answer = client.post("/csasn/facts", content=b"hello", auth=SignedBy(KEYS["centerB"]))
        assert answer.json() == {"site": "centerB", "said": "hello"}
        assert len(client.get("/csasn/echo", params={"bytes": 7}, auth=SignedBy(KEYS["centerB"])).content) == 7
