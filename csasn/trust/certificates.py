"""The study's certificate authority and the coordinator's certificate, by which sites know the coordinator.

Sites trust this authority alone, none of the system's; where a balancer ends TLS before the coordinator, that of its certificate
alone. Nothing is revoked: whoever has the server's key can pose as the coordinator until its certificate ends, so that a stolen one
means a new authority and new kits. Sites are known by their own keys, not by certificates.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from csasn.errors import ConfigurationError, TrustError
from csasn.trust.identity import fingerprint, load_key

AUTHORITY_DAYS, SERVER_DAYS = 3650, 365
BACKDATED = timedelta(hours=1)  # for a site whose clock is behind
_USAGES = (  # of a key, as X.509 has them
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class Authority:
    """The study's certificate authority, its key at hand."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


def create_authority(study_name: str) -> Authority:
    """A new authority that signs server certificates and nothing else, for ten years."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, study_name)])
    usage = _key_usage("key_cert_sign", "crl_sign")
    builder = _builder(name, name, key, key, AUTHORITY_DAYS).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    return Authority(key, builder.add_extension(usage, True).sign(key, SHA256()))


def load_authority(key_pem: bytes, certificate_pem: bytes, passphrase: str) -> Authority:
    """The authority whose key `passphrase` opens.

    Raises:
        TrustError: the passphrase is wrong, the key is damaged, or it is not the certificate's.
    """
    key = load_key(load_pem_private_key, key_pem, passphrase.encode())
    if key is None:
        raise TrustError("the passphrase does not open the key of the study's authority", "try again; it was set by server init")
    certificate = _load(certificate_pem)
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise TrustError("ca.key does not belong to ca.crt", "bring both back with server restore")
    return Authority(key, certificate)


def authority_pem(authority: Authority) -> bytes:
    """The authority's certificate, ca.crt."""
    return authority.certificate.public_bytes(Encoding.PEM)


def create_server_key() -> bytes:
    """A new key (PKCS8, PEM) for the coordinator's server; unencrypted, since it starts without a person."""
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def create_server_certificate(authority: Authority, server_key_pem: bytes, names: Sequence[str]) -> bytes:
    """A certificate (PEM) for one year that answers to `names`, host names or addresses.

    Raises:
        ConfigurationError: a name can stand in no certificate.
        TrustError: the server key is damaged, or the authority has ended.
    """
    key = load_key(load_pem_private_key, server_key_pem)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TrustError("server.key holds no key that can be used", "bring it back with server restore")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "csasn coordinator")])
    issuer = authority.certificate.subject
    days = min(SERVER_DAYS, days_left(authority_pem(authority)))  # a certificate does not outlive its authority
    if days < 1:
        raise TrustError("the study's authority has ended", "begin anew with server init and new kits")
    builder = _builder(subject, issuer, key, authority.key, days).add_extension(x509.BasicConstraints(False, None), True)
    certificate = (
        builder.add_extension(_key_usage("digital_signature"), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(name) for name in names]), False)
        .sign(authority.key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def days_left(certificate_pem: bytes, now: datetime | None = None) -> int:
    """Whole days until a certificate ends; negative once it has.

    Raises:
        TrustError: it is no certificate.
    """
    return (certificate_end(certificate_pem) - (now or datetime.now(UTC))).days


def certificate_end(certificate_pem: bytes) -> datetime:
    """When a certificate ends.

    Raises:
        TrustError: it is no certificate.
    """
    return _load(certificate_pem).not_valid_after_utc


def certificate_names(certificate_pem: bytes) -> tuple[str, ...]:
    """The host names and addresses to which a certificate answers.

    Raises:
        TrustError: it is no certificate.
    """
    with suppress(x509.ExtensionNotFound):
        named = _load(certificate_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(str(name.value) for name in named if isinstance(name, x509.DNSName | x509.IPAddress))
    return ()


def certificate_fingerprint(certificates_pem: bytes) -> str:
    """The fingerprint of a certificate, or of several together, for the telephone.

    Raises:
        TrustError: it is no certificate.
    """
    return fingerprint(b"".join(each.public_bytes(Encoding.DER) for each in _load_all(certificates_pem)))


def certificates_alone(pem: bytes) -> bytes:
    """The certificates (PEM) of a file, the one that ends last first, without anything else in it, such as a key.

    Raises:
        TrustError: there is none.
    """
    found = sorted(_load_all(pem), key=lambda each: each.not_valid_after_utc, reverse=True)
    return b"".join(each.public_bytes(Encoding.PEM) for each in found)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, issuer_key: EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - BACKDATED)
    builder = builder.not_valid_after(now + timedelta(days=days, minutes=1))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)


def _key_usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _alternative_name(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ip_address(name))
    if ":" in name:
        raise ConfigurationError(f"{name!r} is neither a host name nor an address", "give --name without a port")
    try:
        return x509.DNSName(name)
    except ValueError:
        hint = "write a name of other letters as DNS has it, such as xn--mller-kva.example for müller.example"
        raise ConfigurationError(f"{name!r} can stand in no certificate, expected ASCII letters", hint) from None


def _load(certificate_pem: bytes) -> x509.Certificate:
    return _load_all(certificate_pem)[0]


def _load_all(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TrustError("this is no certificate in PEM form", "take ca.crt from the kit again") from None
