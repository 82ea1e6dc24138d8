"""What passes the front arrives whole, in bounded memory and time, and no client holds it up."""

import hashlib
import http.client
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from csasn.platform.supervision import free_port
from running_front import running_front, signed_head, wait_for
from server.front.front import PASSED, FrontSettings
from server.front.own_routes import MAX_ECHO_BYTES

MB = 1 << 20


def test_a_body_arrives_whole_with_the_headers_of_the_node_alone(front, upstream):
    data = os.urandom(3 * MB + 17)
    signed = {"flwr-public-key": "a2V5", "flwr-signature": "c2ln", "flwr-timestamp": "2026-01-01T00:00:00+00:00"}
    foreign = {
        "cookie": "a=b",
        "authorization": "Bearer x",
        "x-forwarded-for": "10.0.0.1",
        "te": "trailers",
        "expect": "100-continue",
    }
    with front.client() as client:
        answer = client.post("/v1/fleet/push-object?a=b", content=data, headers=signed | foreign)
        assert answer.text == hashlib.sha256(data).hexdigest()
        assert set(answer.headers) == {"date", "content-length", "flwr-x"}
        assert upstream.headers.pop("content-length") == str(len(data))
        assert upstream.headers == signed | {"accept": "*/*", "accept-encoding": upstream.headers["accept-encoding"]} | {
            "host": f"127.0.0.1:{upstream.port}"
        }
        assert upstream.targets == [("POST", b"/v1/fleet/push-object", b"")]
        chunked = client.post("/v1/fleet/push-object", content=iter([data[:MB], data[MB:]]))
        assert chunked.text == answer.text


def test_a_request_that_is_not_accepted_is_refused_before_its_body_is_read(front, upstream):
    with front.client() as client:
        answer = client.post("/v1/fleet/push-object", content=os.urandom(MB), headers={"flwr-refused": "1"})
    assert (answer.status_code, answer.content, upstream.targets) == (401, b"", [])


def test_four_large_bodies_at_once_need_no_copy_in_memory(front, upstream):
    block, num_blocks = os.urandom(MB), 50
    expected = hashlib.sha256(block * num_blocks).hexdigest()

    def push(_):
        with front.client(60) as client:
            length = {"content-length": str(num_blocks * MB)}
            return client.post("/v1/fleet/push-object", content=(block for _ in range(num_blocks)), headers=length).text

    with front.client() as client:
        client.get("/health")
    before = front.memory_mb()
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(push, range(4))) == [expected] * 4
    up_s = time.monotonic() - begin
    growth = front.memory_mb("VmHWM") - before
    print(f"4 x {num_blocks} MB up: {growth:.1f} MB more than {before:.1f} MB, {up_s:.1f} s")
    assert growth < 24


def test_a_large_answer_streams_to_a_client_that_reads_slowly(front, upstream):
    upstream.answer_bytes = 100 * MB
    before = front.memory_mb()
    digest = hashlib.sha256()
    with front.client() as client, client.stream("POST", "/v1/fleet/pull-object") as answer:
        time.sleep(1)
        for data in answer.iter_raw():
            digest.update(data)
    assert digest.digest() == hashlib.sha256(bytes(100 * MB)).digest()
    assert front.memory_mb("VmHWM") - before < 24


def test_a_body_over_the_limit_is_413_whether_it_says_so_or_not(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, max_body_bytes=MB) as front, front.client() as client:
        assert client.post("/v1/fleet/push-object", content=bytes(MB)).status_code == 200
        for body in (bytes(MB + 1), iter([bytes(MB), bytes(1)]), bytes(20 * MB)):
            answer = client.post("/v1/fleet/push-object", content=body)
            assert (answer.status_code, answer.content) == (413, b"")


def test_long_heads_and_two_lengths_are_refused(front, upstream):
    assert front.raw("GET", "/health", b"X-Long: " + b"a" * 20_000 + b"\r\n")[0] == 431
    try:
        status = front.raw("GET", "/health", b"X-Long: " + b"a" * 400_000 + b"\r\n")[0]
    except (OSError, http.client.HTTPException):
        status = None  # cut while the rest was on its way
    assert status in (400, None)
    both = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert front.raw("POST", "/v1/fleet/push-object", both)[0] == 400
    assert upstream.targets == []


def test_without_a_superlink_a_site_hears_503_at_once(tmp_path):
    with running_front(tmp_path, free_port()) as front, front.client() as client:
        for method, path in PASSED:
            begin = time.monotonic()
            answer = client.request(method, path, content=bytes(MB) if method == "POST" else None)
            assert (answer.status_code, answer.headers["retry-after"], answer.content) == (503, "5", b"")
            assert time.monotonic() - begin < 30
        assert client.get("/csasn/facts").status_code == 200  # the front's own


def test_health_is_200_only_if_superlink_says_so(front, upstream):
    with front.client() as client:
        assert client.get("/health").status_code == 200
        upstream.status = 500
        assert client.get("/health").status_code == 503


def test_a_superlink_that_says_nothing_is_503_in_time(tmp_path, upstream):
    upstream.delay_s = 20
    with running_front(tmp_path, upstream.port, superlink_timeout_s=0.5) as front, front.client() as client:
        begin = time.monotonic()
        assert client.post("/v1/fleet/pull-messages", content=b"").status_code == 503
        assert time.monotonic() - begin < 20


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"], ids=["silent", "in its answer"])
def test_a_superlink_killed_in_mid_transfer_is_an_error_for_the_site_at_once(tmp_path, said):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def die():
            link, _ = listener.accept()
            link.recv(MB)
            link.sendall(said)
            time.sleep(0.1)
            link.close()

        thread = threading.Thread(target=die)
        thread.start()
        with running_front(tmp_path, listener.getsockname()[1]) as front, front.client() as client:
            begin = time.monotonic()
            if said:
                with pytest.raises(httpx.TransportError):
                    client.post("/v1/fleet/pull-object", content=b"")
            else:
                assert client.post("/v1/fleet/push-object", content=bytes(30 * MB)).status_code == 503
            assert time.monotonic() - begin < 30
        thread.join()


def seconds_until_end(link):
    """How long the peer keeps the connection, and what it said."""
    begin, said = time.monotonic(), b""
    with suppress(OSError):
        while data := link.recv(MB):
            said += data
    return time.monotonic() - begin, said


def test_slow_clients_are_cut(tmp_path, upstream):
    patience = {"idle_timeout_s": 1.0, "head_timeout_s": 1.0}
    with running_front(tmp_path, upstream.port, **patience) as front, ThreadPoolExecutor(4) as pool:
        links = [front.connect() for _ in range(4)]
        links[1].sendall(b"GET /health HT")  # half a head
        links[2].sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET")  # half a head after a request
        links[3].sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")  # half a body
        ends = list(pool.map(seconds_until_end, links))
        assert max(seconds for seconds, _ in ends) < FrontSettings.head_timeout_s
        assert [said[9:12] for _, said in ends] == [b"", b"", b"200", b"408"]
        for link in links:
            link.close()


def test_a_body_that_drips_is_cut_as_well(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, idle_timeout_s=1.0, head_timeout_s=1.0) as front, front.connect() as link:
        link.sendall(signed_head("POST", "/csasn/echo", b"a" * 1000, 1000))
        begin = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begin < 30:
                link.sendall(b"a")
                time.sleep(0.2)
        assert time.monotonic() - begin < 30


def test_a_client_that_does_not_read_its_answer_is_let_go(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, idle_timeout_s=1.0) as front, front.connect() as link:
        link.sendall(signed_head("GET", "/csasn/echo", b"bytes=60000000", 0, query="?bytes=60000000"))
        wait_for(lambda: "GET /csasn/echo 200" in front.log.read_text(), 30)


def spend(front):
    """What a site hears that asks for more than its share, then strangers of its address, then another site."""
    with front.client(site="centerA") as client, front.client(site="centerB") as other, front.client() as stranger:
        own = [client.get("/csasn/echo", params={"bytes": MAX_ECHO_BYTES}), *(client.post("/csasn/facts") for _ in range(2))]
        own += [client.post("/csasn/echo", content=b"a"), client.get("/health")]
        strangers = [*(stranger.get("/csasn/facts") for _ in range(11)), stranger.post("/csasn/facts")]
        return own, strangers, other.post("/csasn/facts")


def test_own_routes_are_limited_for_each_site_and_for_the_strangers_of_an_address(tmp_path, upstream):
    for _ in range(5):
        minute = time.monotonic() // 60
        with running_front(tmp_path, upstream.port, credits_per_minute=10) as front:
            own, strangers, other = spend(front)
        if time.monotonic() // 60 == minute:  # else credits were given again meanwhile
            break
    assert [answer.status_code for answer in own] == [200, 200, 429, 429, 200]
    assert own[2].headers["retry-after"] == "60"
    assert [answer.status_code for answer in strangers] == [200] * 10 + [429] * 2
    assert other.status_code == 200
