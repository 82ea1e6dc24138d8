"""Of all that a SuperLink declares, a site reaches what it needs and nothing else, by the front or by nginx."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.fleet_http_connection import http_request_response
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from csasn.platform.supervision import free_port
from running_front import RunningFront, running_front, running_nginx
from server.front.front import PASSED
from server.front.own_routes import OWN

ROOT = Path(__file__).parents[2]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


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
    authority = (guarded.folder / "ca.crt").read_bytes()
    with http_request_response(f"127.0.0.1:{guarded.port}", False, authority, keys, max_retries=0) as connection:
        node_id, receive = connection[:2]
        assert node_id > 0
        assert receive() is None
    stranger = generate_key_pairs()
    signed = [NodeAuthHttpInterceptor(*stranger)]
    client = FleetHttpClient.from_server_address(f"127.0.0.1:{guarded.port}", False, authority, signed)
    with client, pytest.raises(httpx.HTTPStatusError, match="412"):
        client.ActivateNode(ActivateNodeRequest(public_key=public_key_to_bytes(stranger[1]), heartbeat_interval=30))


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
        text = CONFIGURATION.read_text().replace("/var/log/nginx", str(tmp_path))
        text = text.replace("/var/lib/csasn/coordinator/keys", str(tmp_path))
        for old, new in {
            "9443": server.port,
            "9093": superlink,
            "9444": front.port,
        }.items():
            text = text.replace(old, str(new))
        with running_nginx(tmp_path, text, server.port):
            yield server


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is another way to run the front, and not installed here")
def test_nginx_passes_the_same_and_nothing_else(nginx):
    own = {("GET", "/csasn/echo?bytes=1"), ("GET", "/csasn/facts"), ("POST", "/csasn/facts"), ("POST", "/csasn/echo")}
    asked = {(method, path) for path in [*declared_routes(), "/", "/csasn/x"] for method in ("GET", "POST", "PUT")} | own
    asked |= {("POST" if "fleet" in path else "GET", trick) for _, path in PASSED | OWN for trick in disguises(path)}
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(asked, pool.map(lambda one: nginx.raw(*one, b"Content-Length: 0\r\n"), asked), strict=True))
    passed = {one for one, (status, _, body) in found.items() if status not in (400, 404) or b"<center>nginx</center>" not in body}
    assert passed == PASSED | own
    assert {found[one][0] for one in {("GET", "/csasn/facts"), ("GET", "/health")}} == {200}
    assert {found[one][0] for one in own - {("GET", "/csasn/facts")}} == {401}  # the front itself: not signed by a site
    assert {found[one][0] for one in PASSED if one[0] == "POST"} == {415}  # SuperLink itself: not a message of Flower
