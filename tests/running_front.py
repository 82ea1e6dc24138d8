"""A front in a process of its own, on loopback, with a certificate of an authority made for it."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from cryptography import x509

from csasn.certificates import authority_pem, create_authority, create_server_certificate, create_server_key
from csasn.supervision import free_port

SCRIPT = """
import json, logging, sys
from pathlib import Path
from csasn.command import run_command
from server.front import FrontSettings, run_front
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
given = json.loads(sys.argv[1])
settings = FrontSettings(**given | {name: Path(given[name]) for name in ("certificate", "key")})
facts = lambda said: {"study": "a" * 64, "said": said.decode()}
accepts = lambda headers: b"flwr-refused" not in headers
sys.exit(run_command(lambda: run_front(settings, facts, accepts)))
"""


def write_certificate(folder, name):
    """A certificate for 127.0.0.1 and the name in the nginx file, signed by an authority as `server init` makes it; its number."""
    authority, key = create_authority(name), create_server_key()
    certificate = create_server_certificate(authority, key, ["127.0.0.1", "coordinator.example.org"])
    for file, content in (("ca.crt", authority_pem(authority)), ("server.key", key), ("server.crt", certificate)):
        (folder / file).write_bytes(content)
    return x509.load_pem_x509_certificate(certificate).serial_number


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def answers(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class RunningFront:
    """A front in a process of its own, and how to speak to it."""

    def __init__(self, folder, superlink_port, **changes):
        self.folder, self.port = folder, free_port()
        files = {"certificate": str(folder / "server.crt"), "key": str(folder / "server.key")}
        settings = {"host": "127.0.0.1", "port": self.port, "superlink_port": superlink_port} | files | changes
        self.log = folder / f"front-{self.port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(settings)], stderr=log, cwd=folder)
        wait_for(lambda: answers(self.port) or self.process.poll() is not None)
        self.tls = ssl.create_default_context(cafile=folder / "ca.crt")
        self.url = f"https://127.0.0.1:{self.port}"

    def client(self, timeout=20.0):
        return httpx.Client(base_url=self.url, verify=self.tls, timeout=timeout, trust_env=False)

    def connect(self, timeout=10.0):
        return self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout), server_hostname="127.0.0.1")

    def raw(self, method, target, extra=b""):
        """Status, headers and body of a request whose target goes out as it is written."""
        with self.connect() as link:
            with suppress(OSError):  # the answer to a head that is too long comes before its end
                link.sendall(f"{method} {target} HTTP/1.1\r\nHost: elsewhere.example\r\n".encode("latin1") + extra + b"\r\n")
            response = http.client.HTTPResponse(link, method=method)
            response.begin()
            return response.status, response.headers, response.read()

    def memory_mb(self, field="VmRSS"):
        return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running_front(folder, superlink_port, **changes):
    folder.mkdir(exist_ok=True)
    if not (folder / "server.crt").exists():
        write_certificate(folder, "front")
    front = RunningFront(folder, superlink_port, **changes)
    try:
        yield front
    finally:
        front.process.kill()
        front.process.wait()
