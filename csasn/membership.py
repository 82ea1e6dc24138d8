"""The membership: the fixed roster of a study, with the public weight of each site."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from csasn.configuration import Configuration, read_yaml, validate
from csasn.errors import ConfigurationError
from csasn.federated.quantise import WEIGHT_UNITS
from csasn.study import Name, Sha256


class Member(Configuration):
    """A site, and its share of the training cases in 1/64."""

    site: Name
    weight_units: Annotated[int, Field(ge=1, le=WEIGHT_UNITS)]


class Membership(Configuration):
    """The sites of a study in roster order; weights add up to 64/64."""

    study_hash: Sha256
    members: tuple[Member, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if (total := sum(member.weight_units for member in self.members)) != WEIGHT_UNITS:
            raise ValueError(f"weights add up to {total}, expected {WEIGHT_UNITS}")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(member.site for member in self.members)

    @property
    def weight_units(self) -> dict[str, int]:
        """Weights in 1/64 by site."""
        return {member.site: member.weight_units for member in self.members}

    @property
    def membership_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


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
