"""The front before a real SuperLink and before a small upstream of our own, over real TLS on loopback."""

import asyncio
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from fastapi.routing import iter_route_contexts
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from csasn.errors import ConfigurationError
from csasn.facts import MAX_FACTS_BYTES
from running_front import RunningFront, answers, free_port, running_front, wait_for, write_certificate
from server.front import MAX_ECHO_BYTES, OWN, PASSED, FrontSettings, run_front

ROOT = Path(__file__).parents[1]
MB = 1 << 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


class Upstream:
    """Stands for a SuperLink: hashes what is pushed, keeps the headers it saw, and gives as many bytes as its query asks."""

    def __init__(self):
        self.rest()

    def rest(self):
        self.headers, self.targets, self.status, self.delay_s, self.answer_bytes = {}, [], 200, 0.0, 0

    async def __call__(self, scope, receive, send):
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.targets.append((scope["method"], scope["raw_path"], scope["query_string"]))
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            digest.update(message["body"])
            more = message["more_body"]
        await asyncio.sleep(self.delay_s)
        body = bytes(self.answer_bytes) or digest.hexdigest().encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"server", b"secret/1"), (b"set-cookie", b"a=b"), (b"flwr-x", b"y")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for begin in range(0, len(body), MB):
            await send({"type": "http.response.body", "body": body[begin : begin + MB], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture(scope="module")
def running_upstream():
    app, port = Upstream(), free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    app.port = port
    yield app
    server.should_exit = True
    thread.join()


@pytest.fixture
def upstream(running_upstream):
    running_upstream.rest()
    return running_upstream


@pytest.fixture(scope="module")
def running_at_rest(tmp_path_factory, running_upstream):
    with running_front(tmp_path_factory.mktemp("front"), running_upstream.port) as front:
        yield front


@pytest.fixture
def front(running_at_rest, upstream):
    """A front as it comes, which tests share."""
    return running_at_rest


@pytest.fixture(scope="module")
def superlink(tmp_path_factory):
    """The SuperLink that `server start` runs, in plain HTTP on loopback; its port."""
    folder, port = tmp_path_factory.mktemp("superlink"), free_port()
    command = [sys.executable, "-P", "-m", "server.superlink", str(port)]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, cwd=folder, stderr=log, stdout=log)
    try:
        wait_for(lambda: answers(port), 40)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, superlink):
    with running_front(tmp_path_factory.mktemp("front"), superlink) as front:
        yield front


def declared_routes():
    """Every path that the SuperLink of this Flower declares."""
    from flwr.superlink.main import create_app

    paths = {context.path for context in iter_route_contexts(create_app().routes)}
    assert len(paths) > 60
    assert {path for _, path in PASSED} <= paths
    return sorted(paths)


def disguises(path):
    """Other ways to write a path that some server takes for the same."""
    head, _, last = path.rpartition("/")
    yield from (path + "/", "/" + path, path + "//", path.replace("/", "//"), f"{head}/./{last}", f"{head}/x/../{last}")
    yield from (f"{head}/x/%2e%2e/{last}", f"{head}%2f{last}", f"{head}/%{ord(last[0]):x}{last[1:]}", path + ";a=b", path + "%00")
    yield from (path.upper(), f"http://127.0.0.1{path}", f"https://elsewhere.example{path}", path + "%20", path + "#a", path[1:])


def is_nothing(answer):
    status, headers, body = answer
    return (status, headers["content-length"], body) == (404, "0", b"") and "server" not in headers


def test_of_all_that_superlink_declares_only_the_fleet_and_health_answer(guarded, superlink):
    asked = [(method, path) for path in [*declared_routes(), "/", "/openapi.json", "*"] for method in METHODS]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(asked, pool.map(lambda one: guarded.raw(*one), asked), strict=True))
    assert {one for one, answer in found.items() if not is_nothing(answer)} == PASSED
    for method, path in PASSED:
        direct = httpx.request(method, f"http://127.0.0.1:{superlink}{path}", trust_env=False)
        assert (found[method, path][0], found[method, path][2]) == (direct.status_code, direct.content)


def test_no_disguise_of_a_path_is_answered(guarded):
    known = [path for _, path in sorted(PASSED | OWN)]
    closed = ["/v1/control/list-nodes", "/v1/runtime/acquire-task", "/v1/fleet/register-node", "/docs"]
    around = [f"/v1/fleet/pull-messages/../../{path[4:]}" for path in closed] + [f"/health/..{path}" for path in closed]
    tricks = [trick for path in known + closed for trick in disguises(path)] + around
    with ThreadPoolExecutor(4) as pool:
        found = zip(tricks, pool.map(lambda trick: guarded.raw("POST" if "fleet" in trick else "GET", trick), tricks), strict=True)
    # h11 itself answers 400 where a target is no request target at all
    assert [trick for trick, answer in found if not is_nothing(answer)] == []


@pytest.mark.parametrize(
    "extra", [b"X-Original-URL: /health\r\n", b"X-Rewrite-Url: /health\r\n", b"X-HTTP-Method-Override: GET\r\n"]
)
def test_no_header_changes_the_route(guarded, extra):
    assert is_nothing(guarded.raw("POST", "/v1/control/list-nodes", extra + b"Content-Length: 0\r\n"))


def test_an_upgrade_is_not_a_way_around(guarded):
    assert is_nothing(guarded.raw("GET", "/v1/control/list-nodes", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert guarded.raw("GET", "/health", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")[0] == 200


def test_a_registered_node_works_through_the_front_and_a_stranger_does_not(guarded, superlink):
    keys = generate_key_pairs()
    register = RegisterNodeRequest(public_key=public_key_to_bytes(keys[1])).SerializeToString()
    protobuf = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    control = f"http://127.0.0.1:{superlink}/v1/control/register-node"
    assert httpx.post(control, content=register, headers=protobuf, trust_env=False).status_code == 200
    authority = (guarded.folder / "server.crt").read_bytes()
    with http_request_response(f"127.0.0.1:{guarded.port}", False, authority, keys, max_retries=0) as connection:
        node_id, receive = connection[:2]
        assert node_id > 0
        assert receive() is None
    stranger = generate_key_pairs()
    signed = [NodeAuthHttpInterceptor(*stranger)]
    client = FleetHttpClient.from_server_address(f"127.0.0.1:{guarded.port}", False, authority, signed)
    with client, pytest.raises(httpx.HTTPStatusError, match="412"):
        client.ActivateNode(ActivateNodeRequest(public_key=public_key_to_bytes(stranger[1]), heartbeat_interval=30))


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
            assert time.monotonic() - begin < 2
        assert client.get("/csasn/facts").status_code == 200


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
        assert time.monotonic() - begin < 3


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
            assert time.monotonic() - begin < 5
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
        links = [front.connect(15) for _ in range(4)]
        links[1].sendall(b"GET /health HT")  # half a head
        links[2].sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET")  # half a head after a request
        links[3].sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")  # half a body
        ends = list(pool.map(seconds_until_end, links))
        assert max(seconds for seconds, _ in ends) < 8
        assert [said[9:12] for _, said in ends] == [b"", b"", b"200", b"408"]
        for link in links:
            link.close()


def test_a_body_that_drips_is_cut_as_well(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, idle_timeout_s=1.0, head_timeout_s=1.0) as front, front.connect() as link:
        link.sendall(b"POST /csasn/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        begin = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begin < 8:
                link.sendall(b"a")
                time.sleep(0.2)
        assert time.monotonic() - begin < 7


def test_a_client_that_does_not_read_its_answer_is_let_go(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, idle_timeout_s=1.0) as front, front.connect() as link:
        link.sendall(b"GET /csasn/echo?bytes=60000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: "GET /csasn/echo 200" in front.log.read_text(), 6)


def test_more_connections_than_allowed_hear_503_and_the_idle_ones_go_first(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, max_connections=8) as front:
        links = [front.connect() for _ in range(12)]
        assert front.raw("GET", "/health")[0] == 503
        wait_for(lambda: front.raw("GET", "/health")[0] == 200, 6)
        for link in links:
            link.close()


def test_own_routes_are_limited_for_each_address(tmp_path, upstream):
    with running_front(tmp_path, upstream.port, credits_per_minute=10) as front, front.client() as client:
        time.sleep(max(0.0, 3 - 60 + time.monotonic() % 60) and 3)  # not over the end of a minute
        assert client.get("/csasn/echo", params={"bytes": MAX_ECHO_BYTES}).status_code == 200
        assert client.get("/csasn/facts").status_code == 200
        answer = client.get("/csasn/facts")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert client.post("/csasn/echo", content=b"a").status_code == 429
        assert client.get("/health").status_code == 200


def test_facts_and_echo(front):
    with front.client() as client:
        assert client.get("/csasn/facts").json() == {"study": "a" * 64, "said": ""}
        assert client.post("/csasn/facts", content=b"a site").json() == {"study": "a" * 64, "said": "a site"}
        assert client.post("/csasn/facts", content=b"x" * (MAX_FACTS_BYTES + 1)).status_code == 413
        data = os.urandom(MB + 1)
        answer = client.post("/csasn/echo", content=data).json()
        assert answer == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for size in (0, 1, MB + 1):
            assert len(client.get("/csasn/echo", params={"bytes": size}).content) == size
        for query in ("", "bytes=-1", f"bytes={MAX_ECHO_BYTES + 1}", "bytes=1&bytes=2", "bytes=1e3"):
            assert client.get("/csasn/echo?" + query).status_code == 400
    assert front.raw("POST", "/csasn/echo", b"Content-Length: %d\r\n" % (MAX_ECHO_BYTES + 1))[0] == 413


def test_the_log_has_a_line_for_each_request_without_query_or_unknown_path(front):
    with front.client() as client:
        client.get("/csasn/echo?bytes=5")
        client.post("/v1/fleet/push-object?secret", content=b"body", headers={"flwr-signature": "secret"})
        client.post("/v1/fleet/pull-messages", content=b"poll")
        client.get("/secret")
    wait_for(lambda: "INFO other 404" in front.log.read_text())
    text = front.log.read_text()
    assert "INFO GET /csasn/echo 200, 0 bytes in, 5 out" in text
    assert "INFO POST /v1/fleet/push-object 200, 4 bytes in, 64 out" in text
    assert "pull-messages 200" not in text  # sites ask several times a second
    assert "secret" not in text
    assert "127.0.0.1" not in text


def test_a_renewed_certificate_is_used_without_a_restart_and_a_wrong_one_is_not(tmp_path, upstream):
    def serial():
        with socket.create_connection(("127.0.0.1", front.port)) as link:
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            with blind.wrap_socket(link) as tls:
                return x509.load_der_x509_certificate(tls.getpeercert(True)).serial_number

    with running_front(tmp_path, upstream.port) as front, front.client() as open_before:
        assert open_before.get("/health").status_code == 200
        (tmp_path / "new").mkdir()
        first, renewed = serial(), write_certificate(tmp_path / "new", "renewed")
        shutil.copy(tmp_path / "new/server.crt", front.folder)
        wait_for(lambda: "do not fit" in front.log.read_text())
        assert serial() == first
        shutil.copy(tmp_path / "new/server.key", front.folder)
        wait_for(lambda: serial() == renewed)
        assert open_before.get("/health").status_code == 200


def test_old_tls_is_refused(front):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", front.port)) as link, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(link)


def test_sigterm_lets_an_open_request_end_and_leaves_with_0(tmp_path, upstream):
    upstream.delay_s = 1.0
    with running_front(tmp_path, upstream.port) as front, ThreadPoolExecutor(1) as pool, front.client() as client:
        answer = pool.submit(client.post, "/v1/fleet/push-object", content=b"last")
        wait_for(lambda: upstream.targets)
        assert front.stop() == 0
        assert answer.result().status_code == 200
        assert not answers(front.port)
        assert "Traceback" not in front.log.read_text()


def test_sigterm_ends_a_request_that_does_not_end(tmp_path, upstream):
    upstream.delay_s = 8.0
    with running_front(tmp_path, upstream.port, stop_timeout_s=1) as front, front.connect() as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: upstream.targets)
        begin = time.monotonic()
        assert front.stop() == 0
        assert time.monotonic() - begin < 4


def test_a_port_that_is_taken_is_named(tmp_path):
    write_certificate(tmp_path, "front")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        settings = FrontSettings("127.0.0.1", port, 1, tmp_path / "server.crt", tmp_path / "server.key")
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}: address already in use") as caught:
            run_front(settings, dict, bool)
    assert "choose another" in caught.value.hint


@pytest.mark.parametrize("key", [None, b"not a key"])
def test_a_key_that_cannot_be_used_is_named(tmp_path, key):
    write_certificate(tmp_path, "front")
    (tmp_path / "server.key").write_bytes(key) if key else (tmp_path / "server.key").unlink()
    settings = FrontSettings("127.0.0.1", free_port(), 1, tmp_path / "server.crt", tmp_path / "server.key")
    with pytest.raises(ConfigurationError, match=r"cannot use server\.crt with server\.key"):
        run_front(settings, dict, bool)


CONFIGURATION = ROOT / "deploy/nginx/csasn.conf"


def test_the_nginx_configuration_allows_what_the_front_allows():
    allowed = re.findall(r'^ +"~(.+)" http', CONFIGURATION.read_text(), re.MULTILINE)
    paths = declared_routes() + [path for _, path in OWN]
    queries = {("GET", "/csasn/echo"): "?bytes=1"}
    lines = {(method, path): f"{method} {path}{queries.get((method, path), '')} HTTP/1.1" for method in METHODS for path in paths}
    assert {route for route, line in lines.items() if any(re.search(one, line) for one in allowed)} == PASSED | OWN


@pytest.fixture
def nginx(tmp_path, superlink):
    """The configuration of deploy/ in a real nginx, with ports and files of the test; how to speak to it."""
    with running_front(tmp_path, superlink) as front:
        server = object.__new__(RunningFront)
        server.folder, server.tls, server.port = tmp_path, front.tls, free_port()
        text = CONFIGURATION.read_text().replace("/etc/csasn", str(tmp_path)).replace("/var/log/nginx", str(tmp_path))
        for old, new in {
            "9092": server.port,
            "9093": superlink,
            "9443": front.port,
        }.items():
            text = text.replace(old, str(new))
        (tmp_path / "csasn.conf").write_text(text)
        places = " ".join(f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        main = (
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ {places} include csasn.conf; }}"
        )
        (tmp_path / "nginx.conf").write_text(main)
        command = ["nginx", "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: answers(server.port))
            yield server
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is another way to run the front, and not installed here")
def test_nginx_passes_the_same_and_nothing_else(nginx):
    own = {("GET", "/csasn/echo?bytes=1"), ("GET", "/csasn/facts"), ("POST", "/csasn/facts"), ("POST", "/csasn/echo")}
    asked = {(method, path) for path in [*declared_routes(), "/", "/csasn/x"] for method in ("GET", "POST", "PUT")} | own
    asked |= {("POST" if "fleet" in path else "GET", trick) for _, path in PASSED | OWN for trick in disguises(path)}
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(asked, pool.map(lambda one: nginx.raw(*one, b"Content-Length: 0\r\n"), asked), strict=True))
    passed = {one for one, (status, _, body) in found.items() if status not in (400, 404) or b"<center>nginx</center>" not in body}
    assert passed == PASSED | own
    assert {found[one][0] for one in own | {("GET", "/health")}} == {200}
    assert {found[one][0] for one in PASSED if one[0] == "POST"} == {415}  # SuperLink itself: not a message of Flower
