"""A site's approval: what the study may do and with whom, in plain words, and the signature under both.

The kit's folder then holds membership.json and approval.json. A study or membership with another hash asks again. Nothing here
stops a coordinator from proposing what a site should refuse: that is why people read this.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from client.trust.prose import render_lines
from csasn.data.survey_tables import SMALLEST_SUM, tables_of
from csasn.errors import ConfigurationError, TrustError
from csasn.federated.server_rules.rule import in_words
from csasn.model.packages import branch_starts
from csasn.platform.configuration import Configuration, read_yaml, validate
from csasn.platform.storage import write_json
from csasn.site import Site
from csasn.study import Study
from csasn.trust.enrolment import Kit, read_kit
from csasn.trust.identity import fingerprint, load_identity, public_hex
from csasn.trust.membership import (
    Approval,
    Membership,
    check_number,
    read_approval,
    read_membership,
    sign_membership,
    verify_approval,
    verify_approvals,
)

MEMBERSHIP, APPROVAL, APPROVALS = "membership.json", "approval.json", "approvals.json"
PREFIX_DIGITS = 12
SECURE, PLAIN = "yes, the coordinator sees sums over the sites alone", "NO, the coordinator sees what each site sends"


class Approvals(Configuration):
    """approvals.json: the word of every member."""

    approvals: tuple[Approval, ...]


FetchMembership = Callable[[Site, Kit], Membership]


def obtain_membership(site: Site, kit: Kit, path: Path | None, fetch: FetchMembership | None = None) -> Membership:
    """The membership in the file `path`, or else from the coordinator by `fetch`.

    Raises:
        ConfigurationError: neither is given.
    """
    if path is not None:
        return read_membership(path)
    if fetch is None:
        raise ConfigurationError("the membership is missing", "name membership.json, from the coordinator, with --membership FILE")
    return fetch(site, kit)


def check_membership(site: Site, study: Study, membership: Membership) -> None:
    """Refuses a membership that is not this study's, does not name this site with its own identity, or breaks the site's policy.

    Raises:
        TrustError: study or identity are others.
        ConfigurationError: the policy asks for more than the study gives.
    """
    if membership.study_hash != study.study_hash:
        raise TrustError(
            f"the membership is of study {membership.study_hash[:12]}, the kit holds {study.study_hash[:12]}",
            "ask the coordinator which is right, and for a new kit if it is the membership's",
        )
    own = membership.member(site.site)
    if own is None or own.identity != public_hex(load_identity(site.keys_folder)):
        what = "does not name" if own is None else "names another identity for"
        raise TrustError(f"the membership {what} {site.site}", "send the coordinator a new request: client enroll")
    check_number(study, len(membership.members))
    check_secrecy(site, study)


def check_secrecy(site: Site, study: Study) -> None:
    """Refuses a study that shows the coordinator more than the site's policy allows.

    Raises:
        ConfigurationError: it does.
    """
    if site.policy.require_secure_aggregation and not study.federation.secure_aggregation:
        raise ConfigurationError(
            "secure_aggregation is false in the study, and this site's policy is require_secure_aggregation: true",
            "ask for a study with secure aggregation, or change the policy if the hospital agrees",
        )


def review(site: Site, study: Study, membership: Membership) -> list[str]:
    """What is approved, in plain words, a line each; changes since the last approval are marked.

    Raises:
        CsasnError: see `check_membership`.
    """
    check_membership(site, study, membership)
    before = read_membership(site.kit_folder / MEMBERSHIP) if (site.kit_folder / MEMBERSHIP).exists() else None
    return render_lines(
        "approval.txt",
        site=site,
        study=study,
        membership=membership,
        before=before,
        behind_balancer=read_kit(site.kit_folder)[0].behind_balancer,
        digits=PREFIX_DIGITS,
        secrecy=SECURE if study.federation.secure_aggregation else PLAIN,
        starts=branch_starts(study),
        tables=tables_of(study) if study.survey else (),
        smallest_sum=SMALLEST_SUM,
        server_rule=in_words(study.federation),
        options_of=lambda options: f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else "",
        fingerprint_of=lambda member: fingerprint(bytes.fromhex(member.identity or "")),
    )


def approve(site: Site, study: Study, membership: Membership) -> Approval:
    """Signs study and membership, and keeps both in the kit's folder.

    Raises:
        CsasnError: see `check_membership`.
    """
    check_membership(site, study, membership)
    approval = sign_membership(membership, site.site, load_identity(site.keys_folder))
    write_json(site.kit_folder / MEMBERSHIP, membership.model_dump(mode="json"))
    write_json(site.kit_folder / APPROVAL, approval.model_dump(mode="json"))
    return approval


def read_approved(site: Site) -> tuple[Study, Membership, Approval]:
    """The study and membership that this site approved last; only these may train.

    Raises:
        TrustError: nothing is approved, or kit, membership or keys changed since.
    """
    _, study = read_kit(site.kit_folder)
    if not (site.kit_folder / APPROVAL).exists():
        raise TrustError(f"{site.site} has approved no study", "run client approve")
    membership, approval = read_membership(site.kit_folder / MEMBERSHIP), read_approval(site.kit_folder / APPROVAL)
    check_membership(site, study, membership)
    if approval.site != site.site:
        raise TrustError(f"{APPROVAL} is of {approval.site}, expected {site.site}", "run client approve")
    verify_approval(membership, approval)
    return study, membership, approval


def has_joined(site: Site, study: Study) -> bool:
    """Whether this site approved a membership of the study, which need not name it."""
    path = site.kit_folder / MEMBERSHIP
    return path.exists() and read_membership(path).study_hash == study.study_hash


def keep_approvals(site: Site, membership: Membership, approvals: Sequence[Approval]) -> None:
    """Keeps what every member signed, where that is new; `membership` is what this site approved.

    Raises:
        TrustError: one is missing, or does not hold for this membership.
    """
    verify_approvals(membership, approvals)
    if _kept_approvals(site) != tuple(approvals):
        write_json(site.kit_folder / APPROVALS, Approvals(approvals=tuple(approvals)).model_dump(mode="json"))


def read_agreed(site: Site) -> tuple[Study, Membership]:
    """The study and membership that every member approved, by what is on this site's disk.

    Raises:
        TrustError: somebody's approval is missing, or does not hold.
    """
    study, membership, _ = read_approved(site)
    verify_approvals(membership, _kept_approvals(site))
    return study, membership


def _kept_approvals(site: Site) -> tuple[Approval, ...]:
    path = site.kit_folder / APPROVALS
    return validate(Approvals, read_yaml(path), APPROVALS).approvals if path.exists() else ()


def check_prefix(membership: Membership, prefix: str) -> None:
    """Refuses a script's yes to another membership.

    Raises:
        TrustError: `prefix` is not how the hash begins.
    """
    expected = membership.membership_hash[:PREFIX_DIGITS]
    if prefix.strip().lower() != expected:
        raise TrustError(
            f"--yes {prefix!r} is for another membership, this is {expected}", "read what is proposed, then approve that"
        )
