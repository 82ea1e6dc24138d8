"""Orthanc, an archive of hospitals, with its DICOMweb plugin and a login; before it TLS, as hospitals have it.

Orthanc's own TLS ends its process in Debian's package (1.10.1) at the first connection.
"""

import json
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from csasn.platform.supervision import free_port
from csasn.trust.certificates import authority_pem, create_authority, create_server_certificate, create_server_key
from import_scene import Object

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
INSTALL = "these tests need an archive: apt-get install -y orthanc orthanc-dicomweb"
NAME, PASSWORD = "importer", "pass:word 7"
PASSED_ON = ("accept", "authorization")
WAIT_S = 60


class Orthanc:
    """One that runs until `close`; it answers loopback alone, in plain HTTP at `client` and over TLS at `url`."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("Orthanc"), INSTALL
        assert PLUGIN.exists(), INSTALL
        self.log, port = folder / "orthanc.log", free_port()
        settings = {
            "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)],
            "HttpPort": port, "DicomServerEnabled": False,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {NAME: PASSWORD},
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        command = ["Orthanc", "--verbose", f"--logfile={self.log}", str(folder / "orthanc.json")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(NAME, PASSWORD), timeout=30, trust_env=False)
        self._wait()
        self.ca, self._front = folder / "ca.pem", _front(folder, port)
        self.url = f"https://127.0.0.1:{self._front.server_port}/dicom-web"

    def store(self, things: Iterable[Object], folder: Path) -> None:
        for thing in things:
            self.client.post("/instances", content=thing.write(folder).read_bytes()).raise_for_status()

    def fetched(self) -> list[str]:
        """The objects that were asked for by WADO, in order."""
        asked = re.findall(r"GET /dicom-web/studies/[0-9.]+/series/[0-9.]+/instances/([0-9.]+)\s", self.log.read_text())
        return list(map(str, asked))

    def close(self) -> None:
        self._front.shutdown()
        self._front.server_close()
        self.client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(WAIT_S)

    def _wait(self) -> None:
        for _ in range(10 * WAIT_S):
            assert self._process.poll() is None, "Orthanc ended at once: see its log"
            try:
                self.client.get("/system").raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")


def _front(folder: Path, port: int) -> ThreadingHTTPServer:
    """TLS at a port of its own; requests are passed on to `port`. The authority's certificate is `folder`/ca.pem."""
    authority, key = create_authority("hospital"), create_server_key()
    (folder / "ca.pem").write_bytes(authority_pem(authority))
    (folder / "server.pem").write_bytes(create_server_certificate(authority, key, ["127.0.0.1"]) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    inner = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        wbufsize = 1 << 20  # head and body together: apart, each waits for an acknowledgement

        def do_GET(self) -> None:
            answer = inner.get(self.path, headers={name: self.headers[name] for name in PASSED_ON if name in self.headers})
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", ""))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # of clients that do not trust the certificate, or are killed
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
