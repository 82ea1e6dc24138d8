"""Asking the coordinator for its facts over HTTPS: the same way, certificate authority and proxy that the SuperNode uses.

Each thing that can be wrong on the way is an error of its own, with what to do.
"""

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from pydantic import ValidationError

from csasn import __version__
from csasn.enrolment import AUTHORITY, Kit
from csasn.errors import NetworkError, ProtocolError, TrustError
from csasn.facts import FACTS_ROUTE, CoordinatorFacts, SiteFacts
from csasn.membership import Membership
from csasn.site import Site

TIMEOUT_S = 10.0


def coordinator_address(site: Site, kit: Kit) -> str:
    """HOST:PORT of the coordinator."""
    return site.coordinator or kit.address


def open_client(site: Site, kit: Kit, timeout_s: float = TIMEOUT_S) -> httpx.Client:
    """A client that trusts the study's own authority alone."""
    context = ssl.create_default_context(cafile=str(site.kit_folder / AUTHORITY))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    address = coordinator_address(site, kit)
    return httpx.Client(base_url=f"https://{address}", verify=context, proxy=site.proxy, timeout=timeout_s, trust_env=False)


def exchange_facts(site: Site, kit: Kit, said: SiteFacts | None = None) -> CoordinatorFacts:
    """What the coordinator says, after it heard what this site says.

    Raises:
        NetworkError: name, route, proxy or server do not answer.
        TrustError: the certificate is not good, or the study is another.
    """
    facts = ask_facts(site, kit, said)
    check_study(facts, kit)
    return facts


def ask_facts(site: Site, kit: Kit, said: SiteFacts | None = None) -> CoordinatorFacts:
    """As `exchange_facts`, whatever study the coordinator runs."""
    address = coordinator_address(site, kit)
    try:
        with open_client(site, kit) as client:
            body = said.model_dump_json().encode() if said else b""
            answer = client.post(FACTS_ROUTE, content=body, headers={"content-type": "application/json"})
            answer.raise_for_status()
            return CoordinatorFacts.model_validate_json(answer.content)
    except (httpx.HTTPError, ValidationError, OSError) as error:
        raise explain(error, address, site.proxy) from None


def check_study(facts: CoordinatorFacts, kit: Kit) -> None:
    """Refuses a coordinator that runs another study than the kit's.

    Raises:
        TrustError: it does.
    """
    if facts.study_hash != kit.study_hash:
        raise TrustError(
            f"the coordinator runs study {facts.study_hash[:12]}, the kit is of {kit.study_hash[:12]}", "ask for a new kit"
        )


def check_same_version(facts: CoordinatorFacts) -> None:
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
    facts = exchange_facts(site, kit)
    if facts.membership is None:
        raise NetworkError("the coordinator proposes no membership yet", "wait until every site has enrolled; then try again")
    return facts.membership


@dataclass(frozen=True)
class Handshake:
    """What a TLS handshake with the coordinator showed: the protocol, and when the server's certificate ends."""

    protocol: str
    certificate_ends: datetime


def shake_hands(site: Site, kit: Kit) -> Handshake:
    """Opens one connection to the coordinator.

    Raises:
        NetworkError, TrustError: see `exchange_facts`.
    """
    try:
        with open_client(site, kit) as client, client.stream("GET", FACTS_ROUTE) as answer:
            tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
            ends = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
            return Handshake(tls.version(), datetime.fromtimestamp(ends, UTC))
    except (httpx.HTTPError, OSError) as error:
        raise explain(error, coordinator_address(site, kit), site.proxy) from None


def clock_error_s(facts: CoordinatorFacts) -> float:
    """By how many seconds this machine's clock is ahead of the coordinator's."""
    return (datetime.now(UTC) - facts.time).total_seconds()


def explain(error: Exception, address: str, proxy: str | None) -> NetworkError | TrustError:
    """What went wrong on the way to the coordinator, in words of our own."""
    causes = _causes(error)
    if refused := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return _explain_certificate(refused, address)
    way = f"through the proxy {proxy}" if proxy else "directly"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    known: tuple[tuple[type[BaseException], str, str], ...] = (
        (socket.gaierror, f"the name in {proxy or address} cannot be resolved", "check the name, and this machine's DNS"),
        (httpx.ProxyError, f"the proxy {proxy} refuses the way to {address}", "ask who runs it to allow CONNECT to that address"),
        (httpx.HTTPStatusError, f"{address} answers with status {status}", "is `server start` running there?"),
        (
            httpx.TimeoutException,
            f"{address} does not answer {way}",
            "a firewall may drop it: outbound TCP to that port must be open",
        ),
        (ssl.SSLError, f"{address} does not speak TLS as expected", "does a proxy or firewall inspect the connection?"),
        (OSError, f"{address} cannot be reached {way}", "is the coordinator up, and outbound TCP to that port open?"),
        (
            httpx.TransportError,
            f"{address} broke the connection {way}",
            "is the coordinator up, and outbound TCP to that port open?",
        ),
    )
    for kind, problem, hint in known:
        if any(isinstance(cause, kind) for cause in causes):
            return NetworkError(problem, hint)
    return NetworkError(f"{address} answers what no coordinator says", "is this its address? do both run the same version?")


def _explain_certificate(error: ssl.SSLCertVerificationError, address: str) -> TrustError:
    reason = error.verify_message.lower()
    if "expired" in reason or "not yet valid" in reason:
        return TrustError(
            f"the certificate of {address} is {'expired' if 'expired' in reason else 'not valid yet'}",
            "check this machine's clock; if it is right, the coordinator runs server renew",
        )
    if "mismatch" in reason or "doesn't match" in reason or "not valid for" in reason:
        return TrustError(
            f"the certificate of {address} is for another name",
            "the coordinator runs server renew with --name, or mend the address",
        )
    return TrustError(
        f"the certificate of {address} is not of this study's authority",
        "does a proxy open TLS on the way? is the kit of this study? ask the coordinator to compare fingerprints",
    )


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def read_authority(site: Site) -> Path:
    """The certificate of the study's authority at this site."""
    return site.kit_folder / AUTHORITY
