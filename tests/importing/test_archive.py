"""client/importing/archive.py with archives that do not behave, over real HTTP; with a real archive: tests/e2e/test_import.py."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from client.importing import archive as archive_module
from client.importing.archive import Archive
from client.importing.login import Access, read_access
from client.importing.objects import Listed, Listing
from client.importing.pathology import Diagnosis
from csasn.errors import ConfigurationError, CsasnError, DataError, NetworkError, TrustError
from dicom_objects import ULTRASOUND
from import_scene import Object, still

Answer = tuple[int, bytes]
TAGS = {
    "study": "0020000D",
    "series": "0020000E",
    "uid": "00080018",
    "kind": "00080016",
    "patient": "00100020",
    "accession": "00080050",
}
QUESTIONS = (Diagnosis(2, accession="A1", label="PTC"), Diagnosis(3, patient="P2", label="PTC"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(archive_module, "PAUSES_S", (0.01, 0.01))


@contextmanager
def served(answer: Callable[[str, dict[str, str]], Answer], kind: str = "application/dicom+json"):
    """An archive that answers as `answer(path, query)` says; its address, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            place = urlsplit(self.path)
            asked.append(self.path)
            status, body = answer(place.path, {key: values[0] for key, values in parse_qs(place.query).items()})
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", asked
    finally:
        server.shutdown()
        server.server_close()


def entry(**values: str) -> dict[str, object]:
    return {TAGS[key]: {"vr": "LO", "Value": [value]} for key, value in values.items()}


def images_of(number: int) -> list[dict[str, object]]:
    return [entry(study="1.1", uid=f"1.1.{place}", series="1.9", kind=ULTRASOUND) for place in range(number)]


def listing(url: str) -> Listing:
    return Archive(Access(url)).list(QUESTIONS, lambda done, total: None)


@pytest.mark.parametrize("most", [7, 1000], ids=["seven at a time", "all at once, whatever is asked"])
def test_every_object_is_listed_however_many_an_archive_hands_out_at_once(most):
    def answer(path, query):
        found = images_of(20) if path.endswith("/instances") else [entry(study="1.1", accession="A1", patient="P1")]
        start = int(query["offset"]) if most < 20 else 0
        return 200, json.dumps(found[start : start + most]).encode()

    with served(answer) as (url, asked):
        found = listing(url)
    assert [listed.uid for listed in found.objects] == sorted(f"1.1.{place}" for place in range(20))
    assert {(listed.patient, listed.accession, listed.series) for listed in found.objects} == {("P1", "A1", "1.9")}
    assert len(asked) < 12


def test_what_an_archive_sends_beyond_the_question_is_not_taken():
    others = [entry(study="1.1", accession="A1"), entry(study="1.2", accession="A7"), entry(study="1.3", accession="A11")]

    def answer(path, _):
        return 200, json.dumps(images_of(2) if path.endswith("/instances") else others).encode()

    with served(answer) as (url, asked):
        found = listing(url)
    assert {listed.accession for listed in found.objects} == {"A1"}
    assert not [path for path in asked if "1.2" in path or "1.3" in path]


def test_a_number_with_any_letters_reaches_the_archive_as_it_is():
    numbers = []

    def answer(_, query):
        numbers.append(query["AccessionNumber"])
        return 200, b"[]"

    with served(answer) as (url, _):
        Archive(Access(url)).list([Diagnosis(2, accession="A 1/2&x=#3+ü", label="")], lambda done, total: None)
    assert numbers == ["A 1/2&x=#3+ü"]


def test_an_archive_that_is_busy_for_a_moment_is_asked_again():
    states = iter([503, 429, 200, 200])

    def answer(*_):
        return next(states), b"[]"

    with served(answer) as (url, asked):
        assert listing(url).objects == ()
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (401, b"", TrustError, "refuses the login (401)"),
        (403, b"", TrustError, "refuses the login (403)"),
        (404, b"", ConfigurationError, "has no DICOMweb at this address (404)"),
        (500, b"SECRET77", NetworkError, "answers a search with status 500"),
        (503, b"SECRET77", NetworkError, "answers a search with status 503"),
        (200, b"<html>SECRET77", NetworkError, "does not answer as DICOMweb does"),
        (200, b'"SECRET77"', NetworkError, "does not answer as DICOMweb does"),
        (200, b'["SECRET77"]', NetworkError, "does not answer as DICOMweb does"),
    ],
    ids=["401", "403", "404", "500", "503", "page", "text", "list of text"],
)
def test_each_fault_of_an_archive_is_told_apart_and_its_words_are_not_shown(status, body, error, says):
    with served(lambda *_: (status, body)) as (url, _), pytest.raises(error) as caught:
        listing(url)
    assert says in caught.value.message
    assert caught.value.hint
    assert "SECRET77" not in caught.value.message + caught.value.hint
    assert caught.value.__cause__ is None


def test_an_archive_that_is_not_there_is_tried_again_and_then_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NetworkError, match=f"the archive 127.0.0.1:{port} cannot be reached") as caught:
        listing(f"http://127.0.0.1:{port}/dicom-web")
    assert "the same command goes on" in caught.value.hint


def fetch(url: str, thing: Object) -> bytes:
    listed = Listed(thing.uid, f"{thing.study_uid}.5", thing.study_uid, "", "", thing.kind, "US")
    with Archive(Access(url)).fetch(listed) as path:
        assert str(path.readlink()).startswith("/memfd:")
        return path.read_bytes()


@pytest.mark.filterwarnings("ignore:message sent by origin server")
def test_an_object_comes_as_it_is_stored_and_never_touches_a_disk(tmp_path):
    thing = still(1, 1, 1)
    stored = thing.write(tmp_path).read_bytes()
    with served(lambda *_: (200, stored), "application/dicom") as (url, _):
        fetched = fetch(url, thing)
    assert fetched == stored


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b""), (410, b""), (500, b""), (200, b"SECRET77"), (200, b"")],
    ids=["404", "410", "500", "text", "nothing"],
)
@pytest.mark.filterwarnings("ignore:message sent by origin server")
def test_an_object_that_does_not_come_is_left_out_and_ends_nothing(status, body):
    with served(lambda *_: (status, body), "application/dicom") as (url, _), pytest.raises(DataError) as caught:
        fetch(url, still(1, 1, 1))
    assert "SECRET77" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "login", "says"),
    [
        ("pacs.example/dicom-web", "", "no address of an archive"),
        ("ftp://pacs.example", "", "no address of an archive"),
        ("https://pacs.example:99999999/x", "", "no address of an archive"),
        ("https://name:SECRET77@pacs.example/x", "", "holds a login"),
        ("http://pacs.example/x", "name:SECRET77", "everybody on the way could read"),
        ("https://pacs.example/x", "SECRET77", "is not of the form"),
        ("https://pacs.example/x", "name:SECRET77\nsecond", "is not of the form"),
    ],
    ids=["scheme", "ftp", "port", "userinfo", "plain", "form", "lines"],
)
def test_an_access_that_would_show_the_login_or_cannot_work_is_refused(url, login, says):
    with pytest.raises(CsasnError) as caught:
        read_access(url, None, None, {"CSASN_ARCHIVE_LOGIN": login})
    assert says in caught.value.message
    assert "SECRET77" not in caught.value.message + caught.value.hint


def test_a_login_is_a_name_with_a_password_or_a_token_and_is_never_shown(tmp_path):
    (tmp_path / "login").write_text("Bearer SECRET77\n")
    (tmp_path / "login").chmod(0o600)
    access = read_access("https://pacs.example/x/", None, tmp_path / "login", {})
    assert (access.url, access.login) == ("https://pacs.example/x", "Bearer SECRET77")
    assert "SECRET77" not in repr(access)
    headers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            headers.append(self.headers["Authorization"])
            self.send_error(401)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for login in ("Bearer SECRET77", "name:pass:word"):
            with pytest.raises(TrustError):
                Archive(Access(f"http://127.0.0.1:{server.server_port}", login=login)).list(QUESTIONS, lambda done, total: None)
        server.shutdown()
    assert headers == ["Bearer SECRET77", "Basic bmFtZTpwYXNzOndvcmQ="]
