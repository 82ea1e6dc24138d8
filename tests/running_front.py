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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn.platform.supervision import free_port
from csasn.trust.certificates import authority_pem, create_authority, create_server_certificate, create_server_key
from csasn.trust.identity import public_hex
from csasn.trust.request_signature import sign_request

SCRIPT = """
import json, logging, sys
from pathlib import Path
from csasn.platform.command import run_command
from server.front.front import FrontSettings, Office, run_front
from server.front.node_signature import NodeSignatures
from server.front.site_signature import SiteSignatures
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
given = json.loads(sys.argv[1])
settings = FrontSettings(**given | {name: Path(given[name]) for name in ("certificate", "key")})
identities = json.loads(sys.argv[2])
facts = lambda said, signer: {"site": signer.site, "said": said.decode()}
nodes = json.loads(sys.argv[3])
def node(headers):
    return None if "flwr-refused" in headers else headers.get("flwr-node", "centerA")
office = Office(NodeSignatures(lambda: nodes).find if nodes else node, SiteSignatures(lambda: identities).find, facts)
sys.exit(run_command(lambda: run_front(settings, office)))
"""


KEYS = {site: Ed25519PrivateKey.from_private_bytes(site.encode().ljust(32)) for site in ("centerA", "centerB")}


class SignedAs(httpx.Auth):
    """Signs as a site does; `changes` replace headers afterwards."""

    requires_request_body = True

    def __init__(self, key, late_s=0.0, **changes):
        self.key, self.late_s, self.changes = key, late_s, changes

    def auth_flow(self, request):
        content = request.url.query if request.method == "GET" else request.content
        request.headers.update(sign_request(self.key, request.method, request.url.path, content, time.time() - self.late_s))
        request.headers.update(self.changes)
        yield request


def signed_head(method, route, content, length, key=KEYS["centerA"], query=""):
    """The head of a signed request, as bytes, for a body that is sent by hand."""
    headers = sign_request(key, method, route, content, time.time()) | {"Host": "a", "Content-Length": str(length)}
    lines = [f"{method} {route}{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


NAMES = ("coordinator.example.org", "federation.example.org")


def write_certificate(folder, name):
    """A certificate for loopback and the names in the nginx files, signed by an authority as `server init` makes it; its number."""
    authority, key = create_authority(name), create_server_key()
    certificate = create_server_certificate(authority, key, ["127.0.0.1", "::1", *NAMES])
    for file, content in (("ca.crt", authority_pem(authority)), ("server.key", key), ("server.crt", certificate)):
        (folder / file).write_bytes(content)
    return x509.load_pem_x509_certificate(certificate).serial_number


def wait_for(condition, seconds=120.0):
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

    def __init__(self, folder, superlink_port, nodes, **changes):
        self.folder, self.port = folder, free_port()
        files = {"certificate": str(folder / "server.crt"), "key": str(folder / "server.key")}
        settings = {"host": "127.0.0.1", "port": self.port, "superlink_port": superlink_port} | files | changes
        self.log = folder / f"front-{self.port}.log"
        with self.log.open("w") as log:
            identities = json.dumps({site: public_hex(key) for site, key in KEYS.items()})
            words = [sys.executable, "-c", SCRIPT, json.dumps(settings), identities, json.dumps(nodes or {})]
            self.process = subprocess.Popen(words, stderr=log, cwd=folder)
        wait_for(lambda: answers(self.port) or self.process.poll() is not None)
        self.tls = ssl.create_default_context(cafile=folder / "ca.crt")
        self.url = f"https://127.0.0.1:{self.port}"

    def client(self, timeout=60.0, site=None, source="127.0.0.1"):
        """A client of a site that signs, or of a stranger, at an address of loopback."""
        transport = httpx.HTTPTransport(verify=self.tls, trust_env=False, local_address=source)
        auth = SignedAs(KEYS[site]) if site else None
        return httpx.Client(base_url=self.url, transport=transport, timeout=timeout, trust_env=False, auth=auth)

    def reach(self, timeout=60.0, source="127.0.0.1"):
        """A connection without TLS."""
        return socket.create_connection(("127.0.0.1", self.port), timeout, (source, 0))

    def connect(self, timeout=60.0, source="127.0.0.1"):
        return self.tls.wrap_socket(self.reach(timeout, source), server_hostname="127.0.0.1")

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
        return self.process.wait(60)


@contextmanager
def running_front(folder, superlink_port, nodes=None, **changes):
    """`nodes` gives the node keys of sites in OpenSSH's form; without them a fleet request is centerA's, or as it says itself."""
    folder.mkdir(exist_ok=True)
    if not (folder / "server.crt").exists():
        write_certificate(folder, "front")
    front = RunningFront(folder, superlink_port, nodes, **changes)
    try:
        yield front
    finally:
        front.process.kill()
        front.process.wait()


@contextmanager
def running_nginx(folder, text, port):
    """nginx with `text` in its http block, whose port is `port`."""
    (folder / "csasn.conf").write_text(text)
    places = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ {places} include csasn.conf; }}"
    (folder / "nginx.conf").write_text(main)
    command = ["nginx", "-p", folder, "-c", folder / "nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield
    finally:
        process.terminate()
        process.wait(20)
