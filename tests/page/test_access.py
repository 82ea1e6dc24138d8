"""Nobody sees the page without its token, under a foreign name, or in plain text from another machine; and it changes nothing."""

import hashlib
import http.client
import os
import re
import signal
import socket
import ssl
import stat
import time
from pathlib import Path

import httpx
import pytest

from command_line import run_quietly
from csasn.errors import ConfigurationError
from csasn.report import live_page
from csasn.report.page_server import PagePlace, page_served
from csasn.trust.certificates import (
    authority_pem,
    create_authority,
    create_server_certificate,
    create_server_key,
)
from page_scene import events_of, study_of, write_run
from page_visitor import ACCESS, TOKEN
from server.page.sources import run_source

PATHS = ("/", "/events", "/metrics", "/live.css", "/live.js", "/nothing")


@pytest.fixture
def source(tmp_path):
    return run_source("thyroid-live", write_run(tmp_path / "run", study_of(), events_of(study_of(), 3)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bearer", ["", "wrong", TOKEN[:-1], TOKEN + "x", "tökèn"])
def test_without_the_right_token_nothing_is_shown(source, visit, path, bearer):
    credentials = {"authorization": f"Bearer {bearer}".encode()} if bearer else {}
    answer = visit(source).get(path, bearer="", **credentials)
    assert answer.status_code == 403
    assert "thyroid" not in answer.text
    assert "set-cookie" not in answer.headers


def test_a_wrong_token_in_the_address_is_refused_also_beside_a_right_cookie(source, visit):
    answer = visit(source).get("/?token=wrong", bearer="", cookie=f"{ACCESS.cookie}={TOKEN}")
    assert answer.status_code == 403


def test_the_token_in_the_address_is_kept_in_a_cookie_that_no_script_and_no_other_site_gets(source, visit):
    answer = visit(source).get(f"/?token={TOKEN}", bearer="")
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == f"csasn-page-8085={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert visit(source).get("/", bearer="", cookie=f"csasn-page-8085={TOKEN}").status_code == 200
    assert visit(source).get("/", bearer="", cookie=f"csasn-page-8086={TOKEN}").status_code == 403
    assert TOKEN not in answer.text


def test_the_token_counts_in_the_address_of_the_page_alone(source, visit):
    assert visit(source).get(f"/metrics?token={TOKEN}", bearer="").status_code == 403
    answer = visit(source).get("/metrics?token=wrong")
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)


def test_tokens_are_compared_in_constant_time(source, visit, monkeypatch):
    compared = []
    monkeypatch.setattr(live_page.hmac, "compare_digest", lambda given, token: compared.append((given, token)) or False)
    assert visit(source).get("/").status_code == 403
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8085", "127.0.0.1.evil.example", "", "[::1", "10.0.0.7:8085"])
def test_under_a_foreign_name_nothing_is_shown_even_with_the_token(source, visit, host):
    answer = visit(source).get("/", host=host)
    assert answer.status_code == 421
    assert "thyroid" not in answer.text


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8085", "LOCALHOST"])
def test_a_tunnel_from_another_port_of_the_loopback_address_works(source, visit, host):
    assert visit(source).get("/", host=host).status_code == 200


@pytest.mark.parametrize("path", PATHS[:1] + PATHS[2:])
def test_each_answer_forbids_frames_caches_and_whatever_is_not_its_own(source, visit, path):
    for bearer in (TOKEN, "wrong"):
        headers = visit(source).get(path, bearer=bearer).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS[:1] + PATHS[2:5])
def test_the_page_takes_no_orders(source, visit, method, path):
    assert visit(source).get(path, method=method).status_code == 405


def test_the_page_holds_no_script_and_no_style_of_its_own_and_asks_nobody_else(source, visit):
    page = visit(source).get("/").text
    assert re.findall(r"<script[^>]*>", page) == ['<script src="live.js" defer>']
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert not [link for link in re.findall(r'(?:src|href)="([^"]*)"', page) if "//" in link]


def test_a_page_changes_nothing_in_the_folder_that_it_shows(coordinator, visit):
    from server.page.sources import study_source

    def files():
        found = sorted(path for path in coordinator.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    before = files()
    visitor = visit(study_source(coordinator))
    visitor.get("/")
    visitor.get("/metrics")
    assert files() == before


# where it is


@pytest.mark.parametrize("address", ["0.0.0.0:8085", "[::]:8085", "10.1.2.3:80", "federation.example.org:8085"])
def test_outside_of_this_machine_it_is_served_over_tls_alone(address):
    with pytest.raises(ConfigurationError, match="which other machines reach") as refused:
        PagePlace.of(address)
    assert "--page-tls CERT KEY" in refused.value.hint
    assert PagePlace.of(address, (Path("cert"), Path("key"))).port


@pytest.mark.parametrize("address", ["8085", "127.0.0.1", ":8085", "127.0.0.1:70000", "127.0.0.1:x", ""])
def test_what_is_no_address_is_refused_with_what_is_expected(address):
    with pytest.raises(ConfigurationError, match="expected HOST:PORT"):
        PagePlace.of(address)


def test_a_port_that_is_taken_is_said_before_anything_is_done(source):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = page_served(source, PagePlace.of(f"127.0.0.1:{taken.getsockname()[1]}"), print)
        with pytest.raises(ConfigurationError, match="nothing can listen there"), served:
            pytest.fail("it was served")


def address_of(said):
    return said[0].removeprefix("page: ")


def test_it_is_served_as_long_as_the_block_lasts_and_its_token_is_another_one_each_time(source, tmp_path):
    said, file = [], tmp_path / "page.token"
    with page_served(source, PagePlace.of("127.0.0.1:0"), said.append, file):
        url = address_of(said)
        assert httpx.get(url).status_code == 200
        assert url.endswith(f"?token={file.read_text()}")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        first = file.read_text()
    assert not file.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    with page_served(source, PagePlace.of("127.0.0.1:0"), said.append, file):
        assert file.read_text() != first
    assert len(said) == 2


def certificate(folder, *names):
    authority, key = create_authority("page"), create_server_key()
    (folder / "cert.pem").write_bytes(create_server_certificate(authority, key, names))
    (folder / "key.pem").write_bytes(key)
    (folder / "ca.pem").write_bytes(authority_pem(authority))
    return folder / "cert.pem", folder / "key.pem"


def test_over_tls_the_names_are_those_of_the_certificate_and_the_cookie_stays_on_tls(source, tmp_path):
    tls, said = certificate(tmp_path, "federation.example.org"), []
    with page_served(source, PagePlace.of("0.0.0.0:0", tls), said.append):
        url = httpx.URL(address_of(said))
        assert url.scheme == "https"
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

        def ask(host):
            connection = http.client.HTTPSConnection("127.0.0.1", url.port, context=context)
            connection.sock = context.wrap_socket(
                socket.create_connection(("127.0.0.1", url.port)), server_hostname="federation.example.org"
            )
            connection.request("GET", f"/?{url.query.decode()}", headers={"host": host})
            return connection.getresponse()

        answer = ask(f"federation.example.org:{url.port}")
        assert answer.status == 200
        assert "; Secure" in answer.headers["set-cookie"]
        assert ask("evil.example").status == 421


@pytest.mark.parametrize("fault", ["no file", "no certificate", "another key"])
def test_a_certificate_that_cannot_be_used_is_refused_by_name(source, tmp_path, fault):
    cert, key = certificate(tmp_path, "federation.example.org")
    match fault:
        case "no file":
            cert.unlink()
        case "no certificate":
            cert.write_text("nothing")
        case "another key":
            key.write_bytes(create_server_key())
    served = page_served(source, PagePlace.of("0.0.0.0:0", (cert, key)), print)
    with pytest.raises(ConfigurationError, match=f"--page-tls {cert}") as refused, served:
        pytest.fail("it was served")
    assert refused.value.hint


# the commands


def test_an_option_that_stands_alone_has_its_address_and_takes_none_from_what_follows():
    from command_line import arguments

    assert arguments("server", "start", "--page")["page"] == "127.0.0.1:8085"
    assert arguments("server", "start", "--page", "--run") | {} == arguments("server", "start", "--run", "--page", "127.0.0.1:8085")
    assert arguments("server", "start", "--page", "127.0.0.1:9")["page"] == "127.0.0.1:9"
    simulated = arguments("server", "simulate", "--page", "study.yaml")
    assert (simulated["page"], simulated["study"]) == ("127.0.0.1:8085", Path("study.yaml"))
    assert arguments("server", "simulate", "study.yaml")["page"] == ""


@pytest.mark.parametrize("words", [("--page", "0.0.0.0:8085"), ("--page-tls", "cert", "key"), ("--page", "8085")])
def test_a_command_with_a_page_that_cannot_be_is_refused_before_it_begins(coordinator, words, write_small_hospitals, tmp_path):
    study = write_small_hospitals(tmp_path / "h")
    for command in (("start", "--folder", coordinator), ("simulate", study, "--out", tmp_path / "run")):
        ended = run_quietly("server", *command, *words)
        assert ended.returncode == 3
        assert "--page" in ended.stderr
        assert "hint:" in ended.stderr
    assert not (tmp_path / "run").exists()


def line_with(process, words):
    for line in process.stdout:
        if words in line:
            return line.strip()
    pytest.fail(f"{words!r} was never said: {process.stderr.read()}")


@pytest.mark.slow
def test_server_start_shows_the_page_of_its_study_until_it_ends(coordinator, start_command):
    process = start_command(
        "server", "start", "--page", "127.0.0.1:0", "--port", "0", "--listen", "127.0.0.1", "--folder", coordinator
    )
    url = line_with(process, "page: ").partition("page: ")[2]
    token_file = coordinator / "page.token"
    page = httpx.get(url)
    assert page.status_code == 200
    assert "ready, every site has approved" in page.text
    bearer = {"authorization": f"Bearer {token_file.read_text()}"}
    assert "csasn_phase" in httpx.get(httpx.URL(url).copy_with(path="/metrics", query=None), headers=bearer).text
    again = run_quietly("server", "start", "--page", "127.0.0.1:0", "--folder", coordinator)
    assert (again.returncode, "is started already" in again.stderr) == (3, True)
    assert token_file.read_text() in url
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert not token_file.exists()
    assert url not in process.stderr.read()


@pytest.mark.slow
def test_a_simulation_is_seen_while_it_goes_on(write_small_hospitals, tmp_path, start_command):
    study = write_small_hospitals(tmp_path / "h", federation={"rounds": 30, "loss_guard": None})
    process = start_command("server", "simulate", study, "--out", tmp_path / "run", "--page", "127.0.0.1:0")
    url, seen = line_with(process, "page: ").removeprefix("page: "), set()
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            seen |= set(re.findall(r"there is no run yet|round \d+ of 30 is under way|finished: complete", httpx.get(url).text))
        except httpx.TransportError:
            break
        time.sleep(0.1)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert any("is under way" in words for words in seen), seen
    assert out.count("?token=") + 1 == 1  # said once, before
    assert "Error" not in err


@pytest.mark.slow
def test_a_status_that_is_watched_goes_on_until_ctrl_c_which_is_no_error(coordinator, start_command):
    process = start_command("server", "status", "--watch", "--folder", coordinator)
    time.sleep(5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert "ready, every site has approved" in out
    assert os.linesep in out
