"""The membership: the fixed roster of a study, with the public keys and weight of each site, and its signature by every site."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import Configuration, Sha256, read_yaml, validate
from csasn.study import MAX_SECURE_SITES, MAX_SITES_8_BITS, Name, Study
from csasn.trust.identity import IdentityHex, NodeKey, SignatureHex, sign, verify

PURPOSE = "membership"
WEIGHT_UNITS = 64  # a site's weight is a multiple of 1/64


class Member(Configuration):
    """A site, its share of the training cases in 1/64, and its public keys; a simulated site has no node key."""

    site: Name
    weight_units: Annotated[int, Field(ge=1, le=WEIGHT_UNITS)]
    identity: IdentityHex | None = None
    node_key: NodeKey | None = None


class Membership(Configuration):
    """The sites of a study in roster order; weights add up to 64/64."""

    study_hash: Sha256
    members: tuple[Member, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (total := sum(member.weight_units for member in self.members)) != WEIGHT_UNITS:
            raise ValueError(f"weights add up to {total}, expected {WEIGHT_UNITS}")
        if len(set(self.sites)) < len(self.members):
            raise ValueError(f"members {list(self.sites)} names a site twice")
        identities, node_keys = [m.identity for m in self.members], [m.node_key for m in self.members]
        for keys in (identities, node_keys):
            if any(keys) and (None in keys or len(set(keys)) < len(keys)):
                raise ValueError("expected an identity and a node_key of its own for each member, or none for any")
        if any(node_keys) and not any(identities):
            raise ValueError("expected an identity beside each node_key")
        return self

    @property
    def of_hospitals(self) -> bool:
        """Whether the members are nodes of a network; else they are simulated on one machine."""
        return self.members[0].node_key is not None

    @property
    def sites(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(member.site for member in self.members)

    def member(self, site: str) -> Member | None:
        """The member of that name, None where there is none."""
        return next((member for member in self.members if member.site == site), None)

    @property
    def weight_units(self) -> dict[str, int]:
        """Weights in 1/64 by site."""
        return {member.site: member.weight_units for member in self.members}

    def longer(self, site: str) -> float:
        """How many times longer than one of the mean weight a site has for an answer: by its weight, and never less."""
        return max(1.0, self.weight_units[site] * len(self.members) / WEIGHT_UNITS)

    @property
    def membership_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON: who takes part, by which identity and weight. It is without node keys, which open a
        connection and vouch for nothing, so that a site may renew its own."""
        agreed = self.model_dump(mode="json", exclude_none=True, exclude={"members": {"__all__": {"node_key"}}})
        text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


FEW = 2  # hospitals that have to differ on a side, or none, so that no sum of both memberships tells one's


@dataclass(frozen=True)
class Difference:
    """Sites that are in one of two memberships alone."""

    gone: tuple[str, ...]
    joined: tuple[str, ...]

    @classmethod
    def between(cls, before: Sequence[str], after: Sequence[str]) -> Self:
        """Of an earlier membership and a later one, by the names of their sites."""
        return cls(tuple(site for site in before if site not in after), tuple(site for site in after if site not in before))

    @property
    def separable(self) -> tuple[str, ...]:
        """Who stands nearly alone in the difference of the sums of both."""
        return tuple(site for side in (self.gone, self.joined) if len(side) < FEW for site in side)

    def __str__(self) -> str:
        sides = [f"without {', '.join(self.gone)}"] * bool(self.gone) + [f"with {', '.join(self.joined)}"] * bool(self.joined)
        return " and ".join(sides) or "with other keys or weights"


class Approval(Configuration):
    """A site's word, by its signature, that it takes part in this study with these members."""

    site: Name
    study_hash: Sha256
    membership_hash: Sha256
    signature: SignatureHex


def check_number(study: Study, num_sites: int) -> None:
    """Refuses more sites than the study's sums can hold.

    Raises:
        ConfigurationError: they are too many.
    """
    federation = study.federation
    most = min(
        MAX_SECURE_SITES if federation.secure_aggregation else WEIGHT_UNITS,
        MAX_SITES_8_BITS if federation.upload_bits == 8 else WEIGHT_UNITS,
    )
    if num_sites > most:
        raise ConfigurationError(
            f"{num_sites} sites, expected at most {most} in this study", "see upload_bits and secure_aggregation"
        )


def share_weights(num_cases: Mapping[str, int]) -> dict[str, int]:
    """Shares of the training cases in 1/64 by largest remainder, at least 1 each; ties go to the earlier name.

    Raises:
        ConfigurationError: more than 64 sites, or a site without a training case.
    """
    if len(num_cases) > WEIGHT_UNITS or min(num_cases.values()) < 1:
        raise ConfigurationError(
            f"{len(num_cases)} sites, the smallest with {min(num_cases.values())} training cases, cannot share weights",
            f"expected at most {WEIGHT_UNITS} sites with one training case or more each",
        )
    total = sum(num_cases.values())
    exact = {site: count * WEIGHT_UNITS / total for site, count in num_cases.items()}
    units = {site: max(1, int(share)) for site, share in exact.items()}
    while (left := WEIGHT_UNITS - sum(units.values())) != 0:
        move = 1 if left > 0 else -1
        movable = [site for site in sorted(units) if move > 0 or units[site] > 1]
        units[max(movable, key=lambda site: (exact[site] - units[site]) * move)] += move
    return units


def read_membership(path: Path) -> Membership:
    """The membership in a file."""
    return validate(Membership, read_yaml(path), path.name)


def sign_membership(membership: Membership, site: str, key: Ed25519PrivateKey) -> Approval:
    """The approval of `site`."""
    hashes = membership.study_hash, membership.membership_hash
    return Approval(
        site=site, study_hash=hashes[0], membership_hash=hashes[1], signature=sign(key, PURPOSE, _statement(membership))
    )


def verify_approval(membership: Membership, approval: Approval) -> None:
    """Refuses an approval that is not a member's word on this very membership.

    Raises:
        TrustError: it is of no member, of another study or membership, or its signature is not valid.
    """
    site = approval.site
    member = membership.member(site)
    if member is None or member.identity is None:
        raise TrustError(f"{site!r} approved, but no key of a member of that name is known", "only members can approve")
    hashes = membership.study_hash, membership.membership_hash
    for what, given, expected in zip(("study", "membership"), (approval.study_hash, approval.membership_hash), hashes, strict=True):
        if given != expected:
            raise TrustError(
                f"{site} approved {what} {given[:12]}, this is {expected[:12]}", f"have {site} run client approve again"
            )
    verify(member.identity, PURPOSE, _statement(membership), approval.signature, site)


def verify_approvals(membership: Membership, approvals: Iterable[Approval]) -> None:
    """Refuses a membership that not every member has signed.

    Raises:
        TrustError: an approval is missing or does not hold; the site is named.
    """
    approved = set()
    for approval in approvals:
        verify_approval(membership, approval)
        approved.add(approval.site)
    if missing := [site for site in membership.sites if site not in approved]:
        raise TrustError(f"not approved by {', '.join(missing)}", "each site runs client approve; then try again")


def read_approval(path: Path) -> Approval:
    """The approval in a file."""
    return validate(Approval, read_yaml(path), path.name)


def _statement(membership: Membership) -> bytes:
    return f"{membership.study_hash} {membership.membership_hash}".encode()
