"""The front as a service: its own routes, log, certificates, and how it starts and ends."""

import hashlib
import os
import re
import shutil
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509

from csasn.errors import ConfigurationError
from csasn.platform.supervision import free_port
from csasn.trust.facts import MAX_FACTS_BYTES
from running_front import answers, running_front, signed_head, wait_for, write_certificate
from server.front.front import FrontSettings, Office, run_front
from server.front.own_routes import MAX_ECHO_BYTES

MB = 1 << 20
NOBODY = Office(lambda _: None, lambda *_: None, lambda *_: {})


def test_facts_and_echo(front):
    with front.client(site="centerA") as client:
        assert client.post("/csasn/facts", content=b"a word").json() == {"site": "centerA", "said": "a word"}
        assert client.post("/csasn/facts", content=b"x" * (MAX_FACTS_BYTES + 1)).status_code == 413
        data = os.urandom(MB + 1)
        answer = client.post("/csasn/echo", content=data).json()
        assert answer == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for size in (0, 1, MB + 1):
            assert len(client.get("/csasn/echo", params={"bytes": size}).content) == size
        for query in ("", "bytes=-1", f"bytes={MAX_ECHO_BYTES + 1}", "bytes=1&bytes=2", "bytes=1e3"):
            assert client.get("/csasn/echo?" + query).status_code == 400
    with front.connect() as link:
        link.sendall(signed_head("POST", "/csasn/echo", b"", MAX_ECHO_BYTES + 1))
        assert link.recv(100)[9:12] == b"413"


def test_the_log_has_a_line_for_each_request_without_query_or_unknown_path(front):
    with front.client(site="centerA") as client:
        client.get("/csasn/echo?bytes=5")
        client.post("/v1/fleet/push-object?secret", content=b"body", headers={"flwr-signature": "secret"})
        client.post("/v1/fleet/pull-messages", content=b"poll")
        client.get("/secret")
    wait_for(lambda: "INFO other 404" in front.log.read_text())
    text = front.log.read_text()
    assert re.search(r"INFO GET /csasn/echo 200, 0 bytes in, 5 out, \d\.\d\d s, centerA\n", text)
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
    upstream.delay_s = 60.0
    with running_front(tmp_path, upstream.port, stop_timeout_s=1) as front, front.connect() as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: upstream.targets)
        begin = time.monotonic()
        assert front.stop() == 0
        assert time.monotonic() - begin < upstream.delay_s


def test_a_port_that_is_taken_is_named(tmp_path):
    write_certificate(tmp_path, "front")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        settings = FrontSettings("127.0.0.1", port, 1, tmp_path / "server.crt", tmp_path / "server.key")
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}: address already in use") as caught:
            run_front(settings, NOBODY)
    assert "choose another" in caught.value.hint


@pytest.mark.parametrize("key", [None, b"not a key"])
def test_a_key_that_cannot_be_used_is_named(tmp_path, key):
    write_certificate(tmp_path, "front")
    (tmp_path / "server.key").write_bytes(key) if key else (tmp_path / "server.key").unlink()
    settings = FrontSettings("127.0.0.1", free_port(), 1, tmp_path / "server.crt", tmp_path / "server.key")
    with pytest.raises(ConfigurationError, match=r"cannot use server\.crt with server\.key"):
        run_front(settings, NOBODY)
