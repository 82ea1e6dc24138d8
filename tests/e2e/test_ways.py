"""Ways out of a hospital that are not a plain line: proxies, balancers, IPv6, firewalls that forget, and hours without a line.

Each run ends with the bits of the local engine; what a person reads meanwhile is held by its words.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.deployment import COORDINATOR, Deployment, check_same_bits
from e2e.network import PORT, RELAY
from e2e.ways import Balancer, Proxy

SITES = ("centerA", "centerB", "centerC", "centerD")
LOGIN, NEW_LOGIN = "jane doe:pa55:w@rd/1", "jane doe:pa55:w@rd/2"
pytestmark = [pytest.mark.slow, pytest.mark.network]


def says(deployment, site, words, within_s=120):
    """Waits until `client --site` says these words on its status line."""
    deployment.wait_for(lambda: words in deployment.said(site), f"{site} says {words!r}", within_s, 0.2)


@pytest.fixture
def open_proxy(network):
    """open_proxy(login) -> a proxy on a host of its own, that wants this login."""
    opened = []

    def make(login):
        opened.append(Proxy(network.listen(RELAY), lambda host, port: network.connect(RELAY, COORDINATOR, port, 20), login))
        return opened[-1]

    yield make
    for proxy in opened:
        proxy.close()


def test_a_run_through_a_proxy_outlives_its_end_and_a_new_password(deploy, local, network, open_proxy):
    """The proxy is the only way out of centerB. Its password is in the file alone: in no log, command line or environment."""
    deployment = deploy()
    network.block("centerB", COORDINATOR)

    def write_login(text):
        login = deployment.folder / "sites/proxy.login"
        login.touch(0o600)
        login.write_text(text)

    write_login(LOGIN)
    proxy = open_proxy(LOGIN)
    deployment.change_site("centerB", proxy=proxy.address, proxy_login="proxy.login")
    deployment.start_all()
    deployment.await_training("centerB", within_s=600)
    proxy.close()
    says(deployment, "centerB", f"the coordinator does not answer: the proxy {proxy.address} cannot be reached")
    proxy = open_proxy(NEW_LOGIN)
    refused = f"the proxy {proxy.address} refuses the user and password of {deployment.folder / 'sites/proxy.login'}"
    says(deployment, "centerB", f"the coordinator does not answer: {refused}")
    write_login(NEW_LOGIN)
    deployment.finished_round(1, 600)
    secrets_are_nowhere(deployment, ("pa55", "pa55%3Aw"))
    check_same_bits(deployment, local)


def secrets_are_nowhere(deployment, secrets):
    """In no file that a process wrote, and in nothing that a list of processes shows."""
    logs = [path for path in deployment.folder.rglob("*") if path.is_file() and path.name != "proxy.login"]
    shown = [Path(f"/proc/{pid}/{name}") for pid in deployment.left() for name in ("cmdline", "environ")]
    for path in [*logs, *shown]:
        with suppress(FileNotFoundError, ProcessLookupError):  # a file or process that was there a moment ago
            assert not [secret for secret in secrets if secret.encode() in path.read_bytes()], path


def test_a_run_behind_a_balancer_that_ends_tls(network, tmp_path, write_small_hospitals):
    """Its certificate is of another authority, and it reads what passes; the ledgers of both sides agree all the same."""
    folder = tmp_path / "balanced"
    write_small_hospitals(folder, SITES[:3], federation={"secure_aggregation": True, "rounds": 1})
    deployment = Deployment(folder, network.inside)
    balancer = Balancer(
        folder, (network.addresses[RELAY], PORT), (network.addresses[COORDINATOR], PORT), folder / "coordinator/keys/ca.crt",
        network.on(RELAY),
    )  # fmt: skip
    given = ("--behind-balancer", "balancer.pem")
    deployment.enrol(f"{network.addresses[RELAY]}:{PORT}", "0.0.0.0", [network.addresses[COORDINATOR]], given=given)
    for site in SITES[:3]:
        network.block(site, COORDINATOR)
    balancer.start()
    try:
        deployment.start_all()
        assert deployment.report(900)["status"] == "complete"
        received = folder / "centerB.received.jsonl"
        received.write_text(deployment.run("server", "receipts", "centerB"))
        audit = json.loads(deployment.run("client", "audit", "--site", "centerB", "--received", str(received), "--json"))
        assert audit["signatures_checked"]
        assert audit["receipts"] > 0
        assert b"csasn-signature" in balancer.seen
    finally:
        balancer.close()
        deployment.close()
        for site in SITES[:3]:
            network.reset(site)


def test_a_coordinator_answers_by_ipv6_and_ipv4_at_once(deploy, local, network):
    deployment = deploy()
    (deployment.folder / "listen").write_text("::")
    for site in SITES[:2]:
        deployment.change_site(site, coordinator=f"[{network.addresses6[COORDINATOR]}]:{PORT}")
    deployment.start_all()
    check_same_bits(deployment, local)


def test_a_firewall_that_forgets_what_is_idle_for_thirty_seconds_costs_time_alone(deploy, local, network, relay):
    """An upload stands still for longer than that; its end is dropped, and nobody is told."""
    deployment = deploy()
    relay.idle_s = 30.0
    deployment.change_site("centerB", coordinator=f"{network.addresses[RELAY]}:{PORT}")
    deployment.start_all()
    deployment.await_training("centerB", within_s=600)
    relay.hold_after(300_000)  # of the 1.8 MB of an update
    assert relay.holding.wait(300)
    time.sleep(35)
    relay.go_on()
    check_same_bits(deployment, local)
    assert relay.num_forgotten


def test_a_firewall_whose_table_is_flushed_in_mid_round_costs_time_alone(deploy, local, network, relay):
    """In the middle of an upload, so that a connection is open."""
    deployment = deploy()
    deployment.change_site("centerB", coordinator=f"{network.addresses[RELAY]}:{PORT}")
    deployment.start_all()
    deployment.await_training("centerB", within_s=600)
    relay.hold_after(300_000)  # of the 1.8 MB of an update
    assert relay.holding.wait(300)
    network.forget("centerB")
    relay.go_on()
    check_same_bits(deployment, local)
    assert network.num_dropped("centerB")


def test_an_outage_longer_than_all_patience_is_said_and_over_as_soon_as_the_line_is_back(deploy, local, network):
    """Two hours, scaled: 150 s without a packet are longer than any wait after which something here would give up: a node's
    heartbeat (60 s), a body at the front (60 s), a try (30 s), the longest pause between tries (20 s) and starts (30 s). What is
    longer is of what was sent before, such as a signature (300 s), and is made anew with each try; a deadline of a question that
    passes is in test_faults.py, and two hours of tries are counted in tests/flower/test_supernode.py."""
    deployment = deploy()
    deployment.start_all()
    deployment.await_training("centerB", within_s=600)
    node = deployment.pid("centerB", "node")
    network.cut(COORDINATOR)
    address = f"{network.addresses[COORDINATOR]}:{PORT}"
    says(deployment, "centerB", f"the coordinator does not answer: {address} does not answer directly")
    time.sleep(150)
    assert deployment.pid("centerB", "node") == node  # it never gave up
    network.mend(COORDINATOR)
    check_same_bits(deployment, local)
