"""Fixtures of the tests of the front: before a real SuperLink, or before a small upstream of our own, over real TLS on loopback."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading

import pytest
import uvicorn

from csasn.platform.supervision import free_port
from running_front import answers, running_front, wait_for

MB = 1 << 20


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
    command = [sys.executable, "-P", "-m", "server.flower.superlink", str(port)]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, cwd=folder, stderr=log, stdout=log)
    try:
        wait_for(lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, superlink):
    with running_front(tmp_path_factory.mktemp("front"), superlink) as front:
        yield front
