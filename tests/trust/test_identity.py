"""A site's keys, signatures and fingerprints; the authority's encrypted key; certificates in a real handshake."""

import contextlib
import hashlib
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from socket import create_connection, create_server

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key, load_ssh_public_key

from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import validate
from csasn.trust.certificates import (
    authority_pem,
    certificate_fingerprint,
    create_authority,
    create_server_certificate,
    create_server_key,
    days_left,
    load_authority,
)
from csasn.trust.encrypted_key import encrypt_key
from csasn.trust.identity import (
    PublicKeys,
    create_keys,
    fingerprint,
    load_identity,
    read_public_keys,
    same_fingerprint,
    sign,
    verify,
)

PASSPHRASE = "correct horse battery"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_readable_by_their_owner_alone_and_in_the_forms_that_flower_and_openssl_read(tmp_path):
    public = create_keys(tmp_path / "keys")
    keys = tmp_path / "keys"
    assert mode(keys) == 0o700
    assert {path.name: mode(path) & 0o077 for path in keys.glob("*.key")} == {"identity.key": 0, "node.key": 0}
    node = load_ssh_private_key((keys / "node.key").read_bytes(), None)  # as flower-supernode loads it
    assert isinstance(node.curve, SECP384R1)
    assert load_ssh_public_key((keys / "node.pub").read_bytes()) == node.public_key()
    assert (keys / "node.pub").read_text() == public.node_key + "\n"
    identity = load_pem_private_key((keys / "identity.key").read_bytes(), None)
    assert identity.public_key().public_bytes_raw().hex() == public.identity
    assert read_public_keys(keys) == public


def test_keys_that_are_there_are_never_overwritten(tmp_path):
    create_keys(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrustError, match="holds keys already"):
        create_keys(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("missing", ["identity.key", "node.key"])
def test_keys_that_a_crash_left_incomplete_are_completed_and_the_one_there_stays(tmp_path, missing):
    create_keys(tmp_path)
    (tmp_path / missing).unlink()
    kept = next(path for path in tmp_path.glob("*.key"))
    before = kept.read_bytes()
    public = create_keys(tmp_path)
    assert kept.read_bytes() == before
    assert (tmp_path / "node.pub").read_text() == public.node_key + "\n"


@pytest.mark.parametrize("name", ["identity.key", "node.key"])
@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path, name, open_to):
    create_keys(tmp_path)
    (tmp_path / name).chmod(open_to)
    with pytest.raises(TrustError, match=f"{name} has mode 0{open_to:o}") as refused:
        read_public_keys(tmp_path)
    assert f"chmod 600 {tmp_path / name}" in refused.value.hint


@pytest.mark.parametrize("name", ["identity.key", "node.key"])
def test_a_damaged_missing_or_swapped_key_is_refused(tmp_path, name):
    create_keys(tmp_path)
    other = {"identity.key": "node.key", "node.key": "identity.key"}[name]
    for content in (b"", b"-----BEGIN", (tmp_path / other).read_bytes()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrustError, match=f"{name} holds no"):
            read_public_keys(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(TrustError, match=f"cannot read .*{name}: "):
        read_public_keys(tmp_path)


def test_a_node_key_is_one_line_of_a_p384_key_in_one_form_only(tmp_path):
    public = create_keys(tmp_path).model_dump()
    for line in (public["node_key"] + " comment", public["node_key"].replace("384", "256"), "ssh-ed25519 AAAA", ""):
        with pytest.raises(ConfigurationError, match=r"node_key.*expected an OpenSSH public key of NIST P-384"):
            validate(PublicKeys, public | {"node_key": line}, "request")


def test_a_fingerprint_is_the_start_of_sha256_in_groups_and_compares_however_it_was_typed():
    assert fingerprint(b"") == "e3b0 c442 98fc 1c14 9afb f4c8 996f b924"
    assert hashlib.sha256(b"").hexdigest().startswith(fingerprint(b"").replace(" ", ""))
    assert same_fingerprint(fingerprint(b""), "E3B0-C442-98FC-1C14 9afb:f4c8:996fb924\n")
    assert not same_fingerprint(fingerprint(b""), "e3b0 c442 98fc 1c14 9afb f4c8 996f b925")
    assert not same_fingerprint(fingerprint(b""), "e3b0 c442")


def test_a_signature_holds_for_its_data_purpose_and_key_alone(tmp_path):
    identity = create_keys(tmp_path).identity
    signature = sign(load_identity(tmp_path), "membership", b"data")
    verify(identity, "membership", b"data", signature, "centerA")
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity)).verify(bytes.fromhex(signature), b"csasn membership v1\0data")
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    for wrong in (
        (identity, "enrolment", b"data", signature),
        (identity, "membership", b"date", signature),
        (stranger, "membership", b"data", signature),
        (identity, "membership", b"data", "00" * 64),
        (identity, "membership", b"data", "not hexadecimal"),
    ):
        with pytest.raises(TrustError, match="signature of centerA is not valid"):
            verify(*wrong, "centerA")


def test_the_authoritys_key_opens_with_its_passphrase_alone_and_guessing_is_dear():
    authority = create_authority("small")
    certificate, encrypted = authority_pem(authority), encrypt_key(authority.key, PASSPHRASE)
    assert load_authority(encrypted, certificate, PASSPHRASE).key.private_numbers() == authority.key.private_numbers()
    for wrong in ("", "correct horse batterz"):
        with pytest.raises(TrustError, match="the passphrase does not open"):
            load_authority(encrypted, certificate, wrong)
    with pytest.raises(TrustError, match=r"does not belong to ca\.crt"):
        load_authority(encrypted, authority_pem(create_authority("other")), PASSPHRASE)
    with pytest.raises(ConfigurationError, match="has 11 characters, expected at least 12"):
        encrypt_key(authority.key, "eleven-char")
    scrypt = bytes.fromhex("06092b06010401da47040b")
    costs = bytes.fromhex("02024000 020108 020105")  # N 2^14, r 8, p 5
    body = ssl.PEM_cert_to_DER_cert(encrypted.decode().replace("ENCRYPTED PRIVATE KEY", "CERTIFICATE"))
    assert scrypt in body
    assert costs in body


def shake_hands(trusted, certificate, key, folder, server_hostname):
    """A TLS handshake over loopback, verified strictly; the name of the error, or None."""
    for name, content in (("ca.crt", trusted), ("server.crt", certificate), ("server.key", key)):
        (folder / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    listening = create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listening.accept()
        with connection, contextlib.suppress(ssl.SSLError, OSError):
            server.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with create_connection(listening.getsockname(), timeout=60) as plain:
            client.wrap_socket(plain, server_hostname=server_hostname).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        thread.join(60)
        listening.close()
    return None


def test_a_site_knows_the_coordinator_by_its_names_and_its_authority(tmp_path):
    authority, key = create_authority("small"), create_server_key()
    certificate = create_server_certificate(authority, key, ["coordinator.example.org", "127.0.0.1", "::1"])
    for name in ("coordinator.example.org", "127.0.0.1", "::1"):
        assert shake_hands(authority_pem(authority), certificate, key, tmp_path, name) is None
    assert "mismatch" in shake_hands(authority_pem(authority), certificate, key, tmp_path, "10.0.0.1")
    assert "mismatch" in shake_hands(authority_pem(authority), certificate, key, tmp_path, "example.org")
    stranger = authority_pem(create_authority("small"))
    assert shake_hands(stranger, certificate, key, tmp_path, "127.0.0.1") is not None


def test_a_server_certificate_lasts_a_year_its_authority_ten_and_neither_does_the_others_work():
    authority = create_authority("small")
    certificate = create_server_certificate(authority, create_server_key(), ["localhost"])
    assert (days_left(certificate), days_left(authority_pem(authority))) == (365, 3650)
    assert days_left(certificate, datetime.now(UTC) + timedelta(days=366)) == -1
    for pem, is_authority in ((certificate, False), (authority_pem(authority), True)):
        loaded = x509.load_pem_x509_certificate(pem)
        assert loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is is_authority
        assert loaded.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is is_authority
        assert loaded.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=59)  # a site's clock may be behind
    der = ssl.PEM_cert_to_DER_cert(certificate.decode())
    assert certificate_fingerprint(certificate) == fingerprint(der)
    with pytest.raises(TrustError, match="no certificate"):
        days_left(b"nothing")


def test_a_certificate_does_not_outlive_its_authority(monkeypatch):
    monkeypatch.setattr("csasn.trust.certificates.AUTHORITY_DAYS", 10)
    dying, key = create_authority("small"), create_server_key()
    assert days_left(create_server_certificate(dying, key, ["localhost"])) == 10
    monkeypatch.setattr("csasn.trust.certificates.AUTHORITY_DAYS", 0)
    with pytest.raises(TrustError, match="authority has ended"):
        create_server_certificate(create_authority("small"), key, ["localhost"])


def test_what_is_neither_host_name_nor_address_stands_in_no_certificate():
    with pytest.raises(ConfigurationError, match="'host:80' is neither a host name nor an address"):
        create_server_certificate(create_authority("small"), create_server_key(), ["host:80"])


def test_a_name_that_is_not_in_ascii_stands_in_no_certificate():
    with pytest.raises(ConfigurationError, match=r"'müller\.example' can stand in no certificate") as caught:
        create_server_certificate(create_authority("small"), create_server_key(), ["müller.example"])
    assert "xn--" in caught.value.hint
