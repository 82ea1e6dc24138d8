"""The way to the coordinator: through proxies, and how fast it is."""

import socket
import time
from types import SimpleNamespace

import pytest

from client.doctor.link_speed import FIRST_BYTES, MOST_BYTES, measure_link, measure_rate
from client.trust import coordinator_link
from client.trust.coordinator_link import ask_facts
from csasn.errors import TrustError
from csasn.platform.storage import write_json
from csasn.platform.supervision import free_port
from csasn.trust.certificates import certificates_alone
from csasn.trust.enrolment import KIT_FILES, make_kit, read_kit
from doctoring import assert_found
from e2e.ways import Balancer, Proxy


@pytest.fixture
def proxy():
    """proxy(...) -> a proxy that runs on loopback, which tests may end."""
    running = []

    def run(host="127.0.0.1", **facts):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        running.append(Proxy(socket.create_server((host, 0), family=family), **facts))
        return running[-1]

    yield run
    for each in running:
        each.close()


def test_a_proxy_that_refuses_is_found(hospital, quick, proxy):
    running = proxy(status=403)
    hospital.set(proxy=running.address)
    assert_found(hospital.examine(), "connection", 12, f"the proxy {running.address} refuses the way", "allow CONNECT")
    assert running.asked
    assert all(line.startswith(f"CONNECT 127.0.0.1:{hospital.federation.port} ") for line in running.asked)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_is_measured_through_a_proxy_that_lets_through(hospital, quick, proxy, host):
    running = proxy(host)
    hospital.set(proxy=running.address)
    found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert f"answers through the proxy {running.address} over TLS" in found["connection"].finding.message
    assert len(running.asked) == 3  # handshake, facts, bandwidth


LOGIN, SECRET = "jane doe:pa55:w@rd/%41ü", "pa55"


def write_login(hospital, text, mode=0o600):
    path = hospital.path / "sites/proxy.login"
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return "proxy.login"  # relative to the site file, as all paths in it


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_proxy_gets_the_login_that_it_wants_from_a_file_or_the_environment(hospital, quick, proxy, monkeypatch, place):
    running = proxy(login=LOGIN)
    hospital.set(proxy=running.address, **({"proxy_login": write_login(hospital, LOGIN)} if place == "file" else {}))
    if place == "environment":
        monkeypatch.setenv("CSASN_PROXY_LOGIN", LOGIN)
    found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert not any(SECRET in result.finding.message for result in found.values())


LOGIN_FAULTS = [
    (None, 0o600, 12, "wants a user and password", "chmod 600, and name it in the site file: proxy_login"),
    ("jane:old pa55word", 0o600, 12, "refuses the user and password of /", "NTLM or Kerberos alone"),
    (LOGIN, 0o644, 11, "has mode 0644, so that others may read a password", "change the password"),
    (f"{SECRET} alone", 0o600, 3, "the proxy's login is not of the form that it has to be: one line, USER:PASSWORD", "mend /"),
]


@pytest.mark.parametrize(("login", "mode", "code", "says", "fix"), LOGIN_FAULTS, ids=["none", "another", "open", "form"])
def test_what_is_wrong_with_a_proxys_login_is_said_without_it(hospital, quick, proxy, login, mode, code, says, fix):
    running = proxy(login=LOGIN)
    hospital.set(proxy=running.address, **({"proxy_login": write_login(hospital, login, mode)} if login else {}))
    found = hospital.examine()
    assert_found(found, "connection", code, says, fix)
    assert SECRET not in found["connection"].finding.message + found["connection"].finding.fix


def test_a_refused_login_of_the_environment_is_named_as_such(hospital, quick, proxy, monkeypatch):
    running = proxy(login=LOGIN)
    hospital.set(proxy=running.address)
    monkeypatch.setenv("CSASN_PROXY_LOGIN", f"jane:{SECRET}")
    says = f"the proxy {running.address} refuses the user and password of the variable CSASN_PROXY_LOGIN"
    assert_found(hospital.examine(), "connection", 12, says, "are they right")


def test_a_proxy_that_is_down_is_told_from_a_coordinator_that_is(hospital, quick, proxy):
    down, up = proxy(), proxy()
    down.close()
    hospital.set(proxy=down.address)
    says_nothing = "this says nothing of the coordinator"
    assert_found(hospital.examine(), "connection", 12, f"the proxy {down.address} cannot be reached", says_nothing)
    hospital.set(proxy=up.address, coordinator=f"127.0.0.1:{free_port()}")
    says = f"the proxy {up.address} is up, and does not reach {hospital.context().site.coordinator}"
    assert_found(hospital.examine(), "connection", 12, says, "is the coordinator up")
    hospital.set(proxy="http://nowhere.invalid:3128")
    says = "the name of the proxy http://nowhere.invalid:3128 cannot be resolved"
    assert_found(hospital.examine(), "connection", 12, says, "DNS")


def hangs_up(host, port):
    """The way on to something that ends each connection: what is behind a proxy then, and not the proxy."""
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def test_what_breaks_behind_a_proxy_is_not_called_the_proxys_end(hospital, quick, proxy):
    running = proxy(reach_address=hangs_up)
    hospital.set(proxy=running.address)
    finding = hospital.examine()["connection"].finding
    assert "the proxy" not in finding.message.partition("through")[0]
    assert f"127.0.0.1:{hospital.federation.port}" in finding.message


@pytest.fixture
def balanced(hospital):
    """A balancer that ends TLS before the coordinator, and the hospital with a kit that names its authority."""
    port, keys = free_port(), hospital.federation.folder / "keys"
    balancer = Balancer(hospital.path, ("127.0.0.1", port), ("127.0.0.1", hospital.federation.port), keys / "ca.crt")
    balancer.start()
    kit, _ = read_kit(hospital.state / "kit")
    (hospital.state / "kit/ca.crt").write_bytes(certificates_alone((hospital.path / "balancer.pem").read_bytes()))
    files = {name: (hospital.state / "kit" / name).read_bytes() for name in KIT_FILES}
    made = make_kit("centerA", f"127.0.0.1:{port}", kit.study_hash, files, behind_balancer=True)
    write_json(hospital.state / "kit/kit.json", made.model_dump(mode="json"))
    yield balancer
    balancer.close()


def test_all_is_measured_through_a_balancer_that_ends_tls_and_the_doctor_says_so(hospital, quick, balanced):
    found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert "of a balancer, which sees what client approve says" in found["connection"].finding.message
    assert "the balancer's has" in found["certificate"].finding.message
    assert b"csasn-signature" in balanced.seen  # it does see what passes


def test_behind_a_balancer_no_other_certificate_is_taken_also_not_the_coordinators_own(hospital, quick, balanced):
    hospital.set(coordinator=f"127.0.0.1:{hospital.federation.port}")
    assert_found(hospital.examine(), "connection", 11, "is not of the balancer's authority", "compare fingerprints")


@pytest.mark.parametrize("rate", [3e3, 2e4, 1e6, 1e9])
def test_the_bandwidth_is_measured_within_five_seconds_each_way(rate):
    now, moved = [0.0], [0]

    def transfer(size):
        now[0] += 0.05 + size / rate
        moved[0] += size

    found = measure_rate(transfer, lambda: now[0])
    assert found == pytest.approx(rate, rel=0.3) or rate > 1e8
    assert now[0] < max(5.0, 1.1 * FIRST_BYTES / rate)
    assert moved[0] < 2 * MOST_BYTES


def test_a_refused_signature_is_the_clocks_fault_where_the_clocks_differ(hospital, monkeypatch):
    context = hospital.context()
    assert ask_facts(context.site, context.kit).study_name == "small"
    late = SimpleNamespace(time=lambda: time.time() - 600)
    monkeypatch.setattr(coordinator_link, "time", late)
    with pytest.raises(TrustError, match="does not know the key of centerA: is it enrolled"):
        ask_facts(context.site, context.kit)
    with pytest.raises(TrustError, match="does not know the key of centerA: is it enrolled"):
        measure_link(context.site, context.kit)
    hospital.federation.say({"ahead_s": 600})
    with pytest.raises(TrustError, match=r"clock is (599|600) s behind the coordinator's") as caught:
        ask_facts(context.site, context.kit)
    assert "NTP" in caught.value.hint
