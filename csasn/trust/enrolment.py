"""What a site and the coordinator hand to each other before a study: the request of public halves, and the kit.

Both travel as files, by mail or on a stick. Whoever carries them can read them, and cannot change them unseen as long as people
compare fingerprints over the telephone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from csasn import __version__
from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import Configuration, Sha256, read_yaml, validate
from csasn.site import Address
from csasn.study import Name, Study, read_study
from csasn.trust.identity import PublicKeys, SignatureHex, sign, verify

PURPOSE = "enrolment"
AUTHORITY, STUDY, KIT = "ca.crt", "study.yaml", "kit.json"
KIT_FILES = (AUTHORITY, STUDY)
# a release with what Python's versions (PEP 440) may have after it; a person may be called because of one
SoftwareVersion = Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){1,3}([.+-]?[a-z0-9]{1,12}){0,2}$", max_length=40)]
KIT_HINT = "ask the coordinator for the kit again, and install it with client install"


class Enrolment(PublicKeys):
    """What a site asks to take part with; only public halves, and the number of its training cases."""

    site: Name
    num_training_cases: Annotated[int, Field(ge=1, le=10_000_000)]
    study_hash: Sha256
    software_version: SoftwareVersion = __version__


class EnrolmentRequest(Configuration):
    """An enrolment, and the signature by its own identity, so that nobody asks with a key that he does not hold."""

    enrolment: Enrolment
    signature: SignatureHex


class Kit(Configuration):
    """kit.json: where the coordinator is, and what the other files of the kit have to be.

    With `behind_balancer` ca.crt is the authority of a balancer, which ends TLS and sees what passes.
    """

    site: Name
    address: Address
    study_hash: Sha256
    software_version: SoftwareVersion
    files: dict[str, Sha256]
    behind_balancer: bool = False


def sign_enrolment(enrolment: Enrolment, key: Ed25519PrivateKey) -> EnrolmentRequest:
    """The request for an enrolment."""
    return EnrolmentRequest(enrolment=enrolment, signature=sign(key, PURPOSE, _statement(enrolment)))


def read_request(path: Path) -> EnrolmentRequest:
    """The request in a file, its signature verified.

    Raises:
        ConfigurationError: it is no request.
        TrustError: it was changed after it was signed.
    """
    request = validate(EnrolmentRequest, read_yaml(path), path.name)
    enrolment = request.enrolment
    verify(enrolment.identity, PURPOSE, _statement(enrolment), request.signature, enrolment.site)
    return request


def make_kit(site: str, address: str, study_hash: str, files: Mapping[str, bytes], *, behind_balancer: bool = False) -> Kit:
    """kit.json for a kit of `files`."""
    return Kit(
        site=site,
        address=address,
        study_hash=study_hash,
        software_version=__version__,
        files={name: hashlib.sha256(files[name]).hexdigest() for name in KIT_FILES},
        behind_balancer=behind_balancer,
    )


def check_kit(files: Mapping[str, bytes], kit: Kit) -> None:
    """Refuses files that are not those which `kit` names.

    Raises:
        TrustError: one is missing or changed.
    """
    for name in KIT_FILES:
        if name not in files or kit.files.get(name) != hashlib.sha256(files[name]).hexdigest():
            raise TrustError(f"{name} of the kit is missing, or not as the coordinator made it", KIT_HINT)


def read_kit(folder: Path) -> tuple[Kit, Study]:
    """The kit in a folder and its study.

    Raises:
        ConfigurationError: there is none.
        TrustError: a file of it was changed.
    """
    if not (folder / KIT).exists():
        raise ConfigurationError(f"no kit is installed in {folder}", "client install --site NAME KIT, with the coordinator's kit")
    kit = validate(Kit, read_yaml(folder / KIT), KIT)
    check_kit({name: (folder / name).read_bytes() for name in KIT_FILES if (folder / name).exists()}, kit)
    study = read_study(folder / STUDY)
    if study.study_hash != kit.study_hash:
        raise TrustError(f"the study in the kit is {study.study_hash[:12]}, announced as {kit.study_hash[:12]}", KIT_HINT)
    return kit, study


def _statement(enrolment: Enrolment) -> bytes:
    return json.dumps(enrolment.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
