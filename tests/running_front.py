"""A front in a process of its own, on loopback, with a certificate made for it."""

import datetime
import http.client
import ipaddress
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
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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
    """A self-signed certificate for 127.0.0.1 and the name in the nginx file; its serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("coordinator.example.org"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(key.private_bytes(*plain))
    (folder / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.serial_number


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
        self.tls = ssl.create_default_context(cafile=folder / "server.crt")
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
