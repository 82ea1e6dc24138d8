"""A federation of four sites on a network of hosts of their own, enrolled once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from e2e.deployment import COORDINATOR, Deployment, simulate
from e2e.network import PORT, RELAY, Network
from e2e.relay import Relay

SITES = ("centerA", "centerB", "centerC", "centerD")
ROUNDS = 3
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


@pytest.fixture(scope="session")
def network():
    assert Path(FAKETIME).exists(), "these tests need the Debian package libfaketime"
    for program in ("nft", "conntrack"):
        assert shutil.which(program), f"these tests need {program}, of the Debian package of nearly that name"
    network = Network(SITES)
    yield network
    network.close()


@pytest.fixture(scope="session")
def enrol(network, tmp_path_factory, write_small_hospitals):
    """enrol(name, **federation) -> an enrolled federation of that study, made once."""
    made = {}

    def make(name, num_cases=60, **federation):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "enrolled"
            settings = {"secure_aggregation": True, "rounds": ROUNDS, "answer_deadline_s": 240.0} | federation
            write_small_hospitals(folder, SITES, num_cases=num_cases, federation=settings)
            made[name] = Deployment(folder, network.inside)
            names = [network.addresses[RELAY], network.addresses6[COORDINATOR]]
            made[name].enrol(f"{network.addresses[COORDINATOR]}:{PORT}", "0.0.0.0", names)
        return made[name]

    return make


@pytest.fixture(scope="session")
def local(enrol):
    return simulate(enrol("patient").folder)


@pytest.fixture
def deploy(enrol, network, tmp_path):
    """deploy(name of the study, ...) -> a deployment of its own; nothing of it is left in the end."""
    begun = []

    def begin(name="patient", **federation):
        begun.append(enrol(name, **federation).copy(tmp_path / f"deployment{len(begun)}"))
        return begun[-1]

    yield begin
    for host in (COORDINATOR, *SITES):
        network.reset(host)
    for deployment in begun:
        deployment.close()


@pytest.fixture
def relay(network):
    """A relay on a host of its own, to which a site may be sent."""
    relay = Relay(network.listen(RELAY), lambda: network.connect(RELAY, COORDINATOR, timeout_s=20))
    yield relay
    relay.close()
