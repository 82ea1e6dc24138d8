"""Asking the coordinator for its facts over HTTPS: the same way, certificate authority and proxy that the SuperNode uses.

The site's identity signs what it asks; a stranger hears version and clock alone. Each thing that can be wrong on the way is an
error of its own, with what to do.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.trust.proxy import VARIABLE, proxy_with_login, read_proxy_login, wants_login
from csasn import __version__
from csasn.errors import NetworkError, ProtocolError, TrustError, causes_of
from csasn.site import Site
from csasn.trust.enrolment import AUTHORITY, Kit
from csasn.trust.facts import FACTS_ROUTE, MAX_CLOCK_ERROR_S, CoordinatorFacts, Hello, SiteFacts
from csasn.trust.identity import load_identity
from csasn.trust.membership import Membership
from csasn.trust.request_signature import sign_request

TIMEOUT_S, PROXY_TIMEOUT_S = 10.0, 3.0
MUST_BE_UP = "is the coordinator up, and outbound TCP to that port open?"


class SignedBy(httpx.Auth):
    """Signs each request with a site's identity."""

    requires_request_body = True

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override] # nothing comes back
        """The request with the headers of its signature."""
        content = request.url.query if request.method == "GET" else request.content
        request.headers.update(sign_request(self._key, request.method, request.url.path, content, time.time()))
        yield request


def coordinator_address(site: Site, kit: Kit) -> str:
    """HOST:PORT of the coordinator."""
    return site.coordinator or kit.address


@contextmanager
def open_client(site: Site, kit: Kit, key: Ed25519PrivateKey | None = None) -> Iterator[httpx.Client]:
    """A client that trusts the study's own authority alone, and signs what it asks with `key`.

    Raises:
        NetworkError: name, route, proxy or server do not answer, or not as a coordinator.
        TrustError: the coordinator's certificate is not good, or the proxy's login cannot be read.
    """
    address, proxy = coordinator_address(site, kit), proxy_with_login(site)
    try:
        context = ssl.create_default_context(cafile=str(site.kit_folder / AUTHORITY))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(
            base_url=f"https://{address}",
            auth=SignedBy(key) if key else None,
            verify=context,
            proxy=proxy,
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as client:
            yield client
    except (httpx.HTTPError, ValueError, OSError) as error:
        raise explain(error, site, kit) from None


def check_known(answer: httpx.Response, site: Site, client: httpx.Client) -> None:
    """Refuses the answer to a signature that the coordinator does not accept, and asks what anybody may know for the reason.

    Raises:
        TrustError: it does not know this site's key, or the clocks differ by too much.
        httpx.HTTPError: the answer, or that to the question, is another fault.
    """
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        answer.raise_for_status()
        return
    hello = client.get(FACTS_ROUTE, auth=None)
    hello.raise_for_status()
    check_clock(Hello.model_validate_json(hello.content))
    raise TrustError(
        f"the coordinator does not know the key of {site.site}: is it enrolled?",
        "new keys want a new request, client enroll; if none were made, the site left or was revoked: ask the coordinator",
    )


def check_clock(said: CoordinatorFacts | Hello) -> None:
    """Refuses a clock of this machine that is so far from the coordinator's that what is signed here is refused there.

    Raises:
        TrustError: it is.
    """
    ahead_s = (datetime.now(UTC) - said.time).total_seconds()
    if abs(ahead_s) > MAX_CLOCK_ERROR_S:
        raise TrustError(
            f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the coordinator's, "
            f"expected at most {MAX_CLOCK_ERROR_S:.0f} s",
            "set it by NTP (timedatectl set-ntp true); if it is right, the coordinator's is wrong",
        )


def ask_facts(site: Site, kit: Kit, said: SiteFacts | None = None) -> CoordinatorFacts:
    """What the coordinator says of the kit's study, or of another where it runs no such, after it heard what this site says.

    Raises:
        NetworkError: see `open_client`.
        TrustError: the certificate is not good, or the coordinator does not know this site's key.
    """
    with open_client(site, kit, load_identity(site.keys_folder)) as client:
        body = (said or SiteFacts(site=site.site, study_hash=kit.study_hash)).model_dump_json().encode()
        answer = client.post(FACTS_ROUTE, content=body, headers={"content-type": "application/json"})
        check_known(answer, site, client)
        return CoordinatorFacts.model_validate_json(answer.content)


def check_study(facts: CoordinatorFacts, kit: Kit) -> None:
    """Refuses a coordinator that runs another study than the kit's.

    Raises:
        TrustError: it does.
    """
    if facts.study_hash != kit.study_hash:
        raise TrustError(
            f"the coordinator runs study {facts.study_hash[:12]}, the kit is of {kit.study_hash[:12]}",
            "ask for a new kit, or whether this site left the study",
        )


def check_same_version(facts: CoordinatorFacts | Hello) -> None:
    """Refuses a coordinator whose software is of another version.

    Raises:
        ProtocolError: it is.
    """
    if facts.software_version != __version__:
        raise ProtocolError(
            f"the coordinator runs version {facts.software_version}, here is {__version__}",
            f"install version {facts.software_version} here, from the coordinator's wheels",
        )


def fetch_membership(site: Site, kit: Kit) -> Membership:
    """The membership that the coordinator proposes.

    Raises:
        NetworkError: there is none yet, or the coordinator does not answer.
    """
    facts = ask_facts(site, kit)
    check_study(facts, kit)
    if facts.membership is None:
        raise NetworkError("the coordinator proposes no membership yet", "wait until every site has enrolled; then try again")
    return facts.membership


@dataclass(frozen=True)
class Handshake:
    """What a stranger learns of the coordinator: the protocol of TLS, when the server's certificate ends, version and clock.

    `heard` is when, by this machine's clock, the coordinator said so.
    """

    protocol: str
    certificate_ends: datetime
    hello: Hello
    heard: datetime


def shake_hands(site: Site, kit: Kit) -> Handshake:
    """Opens one connection to the coordinator, and asks what anybody may; no key is needed.

    Raises:
        NetworkError, TrustError: see `open_client`.
    """
    with open_client(site, kit) as client, client.stream("GET", FACTS_ROUTE) as answer:
        tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
        answer.read()
        answer.raise_for_status()
        heard = datetime.now(UTC) - answer.elapsed / 2
        return Handshake(tls.version(), ends, Hello.model_validate_json(answer.content), heard)


def explain(error: Exception, site: Site, kit: Kit) -> NetworkError | TrustError:
    """What went wrong on the way to the coordinator, in words of our own."""
    causes, address = causes_of(error), coordinator_address(site, kit)
    if refused := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return _explain_certificate(refused, address, kit)
    if site.proxy and (found := _explain_proxy(causes, site, site.proxy, address)):
        return found
    way = f"through the proxy {site.proxy}" if site.proxy else "directly"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    known: tuple[tuple[type[BaseException], str, str], ...] = (
        (socket.gaierror, f"the name in {address} cannot be resolved", "check the name, and this machine's DNS"),
        (httpx.HTTPStatusError, f"{address} answers with status {status}", "is `server start` running there?"),
        (
            httpx.TimeoutException,
            f"{address} does not answer {way}",
            "a firewall may drop it: outbound TCP to that port must be open",
        ),
        (ssl.SSLError, f"{address} does not speak TLS as expected", "does a proxy or firewall inspect the connection?"),
        (OSError, f"{address} cannot be reached {way}", MUST_BE_UP),
        (httpx.TransportError, f"{address} broke the connection {way}", MUST_BE_UP),
    )
    for kind, problem, hint in known:
        if any(isinstance(cause, kind) for cause in causes):
            return NetworkError(problem, hint)
    return NetworkError(f"{address} answers what no coordinator says", "is this its address? do both run the same version?")


def _explain_proxy(causes: list[BaseException], site: Site, proxy: str, address: str) -> NetworkError | None:
    """What is the proxy's fault, or its word; None where the fault lies beyond it."""
    name = f"the proxy {proxy}"
    said = next((cause for cause in causes if isinstance(cause, httpx.ProxyError)), None)
    if said is None:
        return _find_proxy(name, proxy) if isinstance(causes[0], httpx.TransportError) else None
    if wants_login(said) and not read_proxy_login(site):
        return NetworkError(
            f"{name} wants a user and password",
            "write them as USER:PASSWORD into a file with chmod 600, and name it in the site file: proxy_login",
        )
    if wants_login(said):
        return NetworkError(
            f"{name} refuses the user and password of {site.proxy_login or f'the variable {VARIABLE}'}",
            "are they right, and not expired? where it takes NTLM or Kerberos alone, ask your IT for an exception",
        )
    if str(said)[:3] in ("502", "503", "504"):
        return NetworkError(f"{name} is up, and does not reach {address}", "is the coordinator up, and may the proxy reach it?")
    return NetworkError(f"{name} refuses the way to {address}", "ask who runs it to allow CONNECT to that address")


def _find_proxy(name: str, proxy: str) -> NetworkError | None:
    """Whether the proxy is there at all, asked of it alone: an error on the way says of neither whose it is."""
    place = urlsplit(proxy)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        with socket.create_connection((place.hostname or "", port), PROXY_TIMEOUT_S):
            return None
    except socket.gaierror:
        return NetworkError(f"the name of {name} cannot be resolved", "check the name, and this machine's DNS")
    except OSError:
        hint = "this says nothing of the coordinator: ask your IT whether the proxy is up, and whether proxy: is right"
        return NetworkError(f"{name} cannot be reached", hint)


def _explain_certificate(error: ssl.SSLCertVerificationError, address: str, kit: Kit) -> TrustError:
    reason = error.verify_message.lower()
    owner, renews = "this study", "the coordinator runs server renew"
    if kit.behind_balancer:
        owner, renews = "the balancer", "who runs the balancer renews it"
    if "expired" in reason or "not yet valid" in reason:
        return TrustError(
            f"the certificate of {address} is {'expired' if 'expired' in reason else 'not valid yet'}",
            f"check this machine's clock; if it is right, {renews}",
        )
    if "mismatch" in reason or "doesn't match" in reason or "not valid for" in reason:
        hint = f"{renews} with this name (--name), or mend the address"
        return TrustError(f"the certificate of {address} is for another name", hint)
    return TrustError(
        f"the certificate of {address} is not of {owner}'s authority",
        "does a proxy open TLS on the way? is the kit of this study? ask the coordinator to compare fingerprints",
    )
