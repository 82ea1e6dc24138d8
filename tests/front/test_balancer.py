"""The front behind a balancer that ends TLS, by the nginx file of deploy/; and the front at IPv4 and IPv6 at once."""

import os
import re
import shutil
import ssl
from pathlib import Path

import httpx
import pytest

from csasn.platform.supervision import free_port
from csasn.trust.certificates import authority_pem, create_authority, create_server_certificate, create_server_key
from running_front import KEYS, SignedAs, running_front, running_nginx

MB = 1 << 20
CONFIGURATION = Path(__file__).parent.parent.parent / "deploy/nginx/balancer.conf"


@pytest.fixture
def balanced(front, tmp_path):
    """A client of centerA that trusts the balancer's authority alone."""
    authority, key, port = create_authority("hospital network"), create_server_key(), free_port()
    (tmp_path / "balancer.crt").write_bytes(create_server_certificate(authority, key, ["127.0.0.1"]))
    (tmp_path / "balancer.key").write_bytes(key)
    (tmp_path / "balancer.pem").write_bytes(authority_pem(authority))
    shutil.copy(front.folder / "ca.crt", tmp_path / "study-ca.crt")
    text = CONFIGURATION.read_text().replace("/etc/nginx/csasn", str(tmp_path)).replace("listen 443", f"listen {port}")
    text = re.sub(r"https://coordinator\.internal\.example\.org:9443", front.url, text)
    with running_nginx(tmp_path, text, port):
        tls = ssl.create_default_context(cafile=tmp_path / "balancer.pem")
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}", verify=tls, trust_env=False, auth=SignedAs(KEYS["centerA"])
        ) as client:
            yield client


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is one of many balancers, and not installed here")
def test_what_a_site_signs_passes_a_balancer_as_it_was_signed(balanced, front, upstream):
    assert balanced.post("/csasn/facts", content=b"a word").json() == {"site": "centerA", "said": "a word"}
    assert len(balanced.get("/csasn/echo", params={"bytes": 3 * MB}).content) == 3 * MB
    data = os.urandom(9 * MB)
    assert balanced.post("/csasn/echo", content=data).json()["bytes"] == len(data)
    upstream.answer_bytes = 9 * MB
    assert len(balanced.post("/v1/fleet/pull-object", content=data, headers={"flwr-signature": "x"}).content) == 9 * MB
    assert upstream.headers["flwr-signature"] == "x"
    assert balanced.get("/v1/control/runs").status_code == 404


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_at_two_colons_the_front_answers_by_ipv6_and_ipv4(both, address):
    tls = ssl.create_default_context(cafile=both.folder / "ca.crt")
    answer = httpx.get(f"https://{address}:{both.port}/csasn/facts", verify=tls, trust_env=False)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def both(tmp_path_factory, running_upstream):
    with running_front(tmp_path_factory.mktemp("both"), running_upstream.port, host="::") as front:
        yield front
