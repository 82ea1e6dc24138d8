"""A private key under a passphrase: PKCS8 with PBES2, scrypt (RFC 7914, section 7) and AES-256-CBC, which openssl reads.

Written by hand since `BestAvailableEncryption` derives its key by 2048 turns of PBKDF2, and PKCS12 its checksum: too few for a file
that lies in backups; OpenSSH's own form, which another package would have to write, is none that openssl reads. Reading is
`load_pem_private_key`. The strength is the passphrase's.
"""

import base64
import os
import textwrap

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from csasn.errors import ConfigurationError

MIN_PASSPHRASE = 12
COST, BLOCK, TURNS = 1 << 14, 8, 5  # OWASP's smallest in memory (16 MiB): openssl refuses more than 32
_SEQUENCE, _OCTETS, _INTEGER = 0x30, 0x04, 0x02
_PBES2 = bytes.fromhex("06092a864886f70d01050d")  # 1.2.840.113549.1.5.13
_SCRYPT = bytes.fromhex("06092b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11
_AES256_CBC = bytes.fromhex("060960864801650304012a")  # 2.16.840.1.101.3.4.1.42


def encrypt_key(key: EllipticCurvePrivateKey, passphrase: str) -> bytes:
    """`key` in PEM, to be opened with `passphrase`.

    Raises:
        ConfigurationError: the passphrase is short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigurationError(
            f"the passphrase has {len(passphrase)} characters, expected at least {MIN_PASSPHRASE}", "take several words"
        )
    salt, initial = os.urandom(16), os.urandom(16)
    derived = Scrypt(salt, 32, COST, BLOCK, TURNS).derive(passphrase.encode())
    padder, encryptor = PKCS7(128).padder(), Cipher(AES256(derived), CBC(initial)).encryptor()
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = _der(_SEQUENCE, _SCRYPT, _der(_SEQUENCE, _der(_OCTETS, salt), *map(_integer, (COST, BLOCK, TURNS))))
    cipher = _der(_SEQUENCE, _AES256_CBC, _der(_OCTETS, initial))
    scheme = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, derivation, cipher))
    text = "\n".join(textwrap.wrap(base64.b64encode(_der(_SEQUENCE, scheme, _der(_OCTETS, encrypted))).decode(), 64))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{text}\n-----END ENCRYPTED PRIVATE KEY-----\n".encode()


def _der(tag: int, *parts: bytes) -> bytes:
    """Tag, length, content."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big") if size > 255 else bytes([0x81, size])
    return bytes([tag]) + length + content


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))
