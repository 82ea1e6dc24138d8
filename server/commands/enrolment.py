"""The coordinator's commands before a run: init, enroll, revoke, renew, backup, restore."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from csasn.errors import ConfigurationError, TrustError
from csasn.platform.terminal import argument, confirm, option, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csasn.study import Study
    from csasn.trust.enrolment import Enrolment
    from server.office.enrolment import Enrolments

FOLDER = Path("coordinator")
Folder = Annotated[Path, option("--folder DIR", f"the coordinator's folder (default: {FOLDER}/)")]
SiteArgument = Annotated[str, argument("SITE", "the site, such as centerB")]
Continues = Annotated[
    Path | None, option("--continue RUN", "begin with the model of the finished run in RUN, with its normalisation and ω")
]
Yes = Annotated[bool, option("--yes", "a run under way stands still until all have approved: do not ask")]
Balancer = Annotated[
    Path | None,
    option(
        "--behind-balancer CA_FILE",
        "a balancer ends TLS before this server; sites trust the authority of its certificate, a PEM file, for that",
    ),
]
PassphraseFile = Annotated[
    Path | None, option("--passphrase-file FILE", "take the passphrase from FILE's first line; else it is asked")
]


def init(
    study: Annotated[Path, argument("STUDY", "study.yaml")],
    address: Annotated[str, option("--address HOST:PORT", "where the sites reach this server")],
    name: Annotated[list[str] | None, option("--name NAME_OR_IP", "a further name of this server; may be repeated")] = None,
    continues: Continues = None,
    behind_balancer: Balancer = None,
    folder: Folder = FOLDER,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Begin a study: its certificate authority, and this server's certificate.

    Makes the coordinator's folder. A passphrase of 12 characters or more closes the authority's key; it is asked for now
    and at server renew, once a year, and cannot be recovered.

    example:
      server init study.yaml --address federation.example.org:9443
    """
    begin_study(study, address, name or [], folder, passphrase_file, behind_balancer, continues=continues)


def begin_study(
    study: Path,
    address: str,
    names: list[str],
    folder: Path,
    passphrase_file: Path | None,
    balancer: Path | None,
    *,
    survey: bool = False,
    continues: Path | None = None,
) -> None:
    """Makes the coordinator's folder of a study, or of the survey before it."""
    from csasn.model.packages import random_warnings
    from csasn.model.settling import settle
    from csasn.platform.storage import require_new
    from csasn.study import read_study
    from csasn.trust.certificates import certificate_fingerprint, days_left
    from server.office.authority import SERVER_CERTIFICATE, initialise, kit_authority
    from server.run.continuation import continued, find_start

    require_new(folder)  # before anything is asked
    wanted = read_study(study)
    wanted = wanted.of_survey if survey else settle(continued(wanted, continues) if continues else wanted)
    start = find_start(wanted, study, continues)
    if not survey and start is None:
        try_network(wanted)
    trusted = _read_balancer(balancer)
    initialise(folder, wanted, address, names, _passphrase(passphrase_file, twice=True), start=start, balancer=trusted)
    days = days_left((folder / SERVER_CERTIFICATE).read_bytes())
    say(*random_warnings(wanted))
    say(
        f"{folder} is made; fingerprint of the {'balancer' if balancer else 'study'}'s authority, for sites that ask:",
        f"  {certificate_fingerprint(kit_authority(folder).read_bytes())}",
        f"the server's certificate ends in {days} days; keep the passphrase for then",
        f"next: send {folder / 'study.yaml'} to each site, which sends back a request; take it with server enroll REQUEST",
    )


def try_network(study: "Study") -> None:
    """Refuses a study whose networks, image size or initial weights do not fit, before any hospital is asked."""
    from csasn.model.initial_weights import initial_network

    initial_network(study)


def enroll(
    request: Annotated[Path, argument("REQUEST", "the file that client enroll wrote")],
    fingerprint: Annotated[str | None, option("--fingerprint F", "what the site read to you, instead of the question")] = None,
    replace: Annotated[bool, option("--replace", "the site comes with a new identity; its old keys are revoked")] = False,
    join: Annotated[bool, option("--join", "the site is none that the study names, and joins it")] = False,
    yes: Yes = False,
    folder: Folder = FOLDER,
) -> None:
    """Take a site's request, and write its kit.

    Shows the fingerprint of the site's key and asks whether the site reads you the same by telephone. After the last site
    the membership is proposed, which every site then approves.

    In mid-study: one more hospital joins with --join; one whose keys may be in other hands comes with a new identity and
    --replace. The run then stands still until all have approved the new membership, and goes on from its last round. A site
    that renewed its node's key alone (client keygen --node) is taken by its signature: nobody approves anew.

    example:
      server enroll centerA.request.json
      server enroll centerE.request.json --join
    """
    from csasn import __version__
    from csasn.trust.enrolment import read_request
    from csasn.trust.identity import same_fingerprint
    from server.office.enrolment import Enrolments

    asked = (signed := read_request(request)).enrolment
    enrolments = Enrolments.open(folder)
    enrolments.check(signed, replace=replace, join=join)
    known = enrolments.everybody().get(asked.site)
    cases = " in a survey" if enrolments.study.survey else f" with {asked.num_training_cases} training cases"
    say(
        f"{asked.site} asks to take part{cases}, software {asked.software_version}"
        + ("" if asked.software_version == __version__ else f" (here: {__version__}; have the site install that)"),
        f"fingerprint: {asked.fingerprint}",
    )
    if fingerprint is None:
        if known and known.identity == asked.identity:
            say(f"signed by the identity under which {asked.site} is enrolled: nothing to compare by telephone")
        else:
            confirm(f"does {asked.site} read you this very fingerprint by telephone?", "--fingerprint F")
    elif not same_fingerprint(fingerprint, asked.fingerprint):
        raise TrustError(
            f"the fingerprint of the request is {asked.fingerprint}, given was {fingerprint[:60]}",
            f"this request is not what {asked.site} made, or the fingerprint was read wrongly: ask {asked.site}",
        )
    _confirm_change(enrolments, enrolments.sites() | {asked.site: asked}, yes)
    kit = enrolments.enroll(signed, replace=replace, join=join)
    say(f"{asked.site} is enrolled; send it {kit}", *membership_lines(enrolments))


def leave(site: SiteArgument, yes: Yes = False, folder: Folder = FOLDER) -> None:
    """Go on without a site.

    For a hospital that leaves. The membership without it is proposed; once every other site approved, a run that is under
    way goes on from its last round. It may come back with the same keys: client enroll, server enroll, and all approve.

    example:
      server leave centerB
    """
    enrolments = _confirm_leaving(site, folder, yes)
    enrolments.leave(site)
    say(f"{site} is no longer of this study", *membership_lines(enrolments))


def revoke(site: SiteArgument, yes: Yes = False, folder: Folder = FOLDER) -> None:
    """Accept a site's keys no longer.

    For a site whose keys may be in other hands; one that only leaves: server leave. Its keys are never accepted again, and
    the membership is proposed without it; once every other site approved, a run that is under way goes on from its last
    round. It comes back with new keys: client keygen, client enroll, server enroll, and all approve.

    example:
      server revoke centerB
    """
    enrolments = _confirm_leaving(site, folder, yes)
    enrolments.revoke(site)
    say(f"the keys of {site} are accepted no longer", *membership_lines(enrolments))


def renew(
    address: Annotated[
        str | None, option("--address HOST:PORT", "where the sites reach this server from now on (default: as before)")
    ] = None,
    name: Annotated[
        list[str] | None,
        option("--name NAME_OR_IP", "a further name of this server; may be repeated (default: as before)"),
    ] = None,
    folder: Folder = FOLDER,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Renew the server's certificate, or move it to another address.

    A certificate for another year, of the same authority: sites keep their kits. At a new address the kits in kits/ are
    written anew; a site installs its own, or sets coordinator: HOST:PORT in its site file.

    example:
      server renew
    """
    from csasn.trust.certificates import days_left
    from server.office.authority import SERVER_CERTIFICATE
    from server.office.enrolment import Enrolments

    enrolments = Enrolments.open(folder)
    enrolments.renew(_passphrase(passphrase_file), address, name or None)
    days = days_left((folder / SERVER_CERTIFICATE).read_bytes())
    say(f"the server's certificate ends in {days} days; a running coordinator takes it up by itself")
    if address:
        say(f"the kits in {folder / 'kits'} name {address}; send them, or have sites set coordinator:")


def backup(
    file: Annotated[Path, argument("FILE", "file to write; one that is there is replaced once the new one is whole")],
    folder: Folder = FOLDER,
) -> None:
    """Copy the coordinator's keys and state into one file.

    Writes the whole folder to FILE (a tar, mode 0600). The authority's key stays under its passphrase; the server's key is
    open in it, so keep FILE as you keep the machine. Stop the coordinator first where a run is under way.

    example:
      server backup coordinator-monday.tar
    """
    from csasn.platform.backup import write_backup
    from server.office.enrolment import Enrolments

    Enrolments.open(folder)
    say(f"{write_backup(file, {FOLDER.name: folder})} files of {folder} are in {file}")


def restore(file: Annotated[Path, argument("FILE", "a file that server backup wrote")], folder: Folder = FOLDER) -> None:
    """Bring back what server backup wrote, here or on another machine.

    Unpacks FILE into a folder that is missing or empty. On another machine, follow it with server renew --address.

    example:
      server restore coordinator-monday.tar
      server renew --address new.example.org:9443
    """
    from csasn.platform.backup import restore_backup

    say(f"{restore_backup(file, {FOLDER.name: folder})} files are back in {folder}")


def _confirm_leaving(site: str, folder: Path, yes: bool) -> "Enrolments":
    """The enrolments in `folder`, after the coordinator was asked about a run that goes on without a site."""
    from server.office.enrolment import Enrolments

    enrolments = Enrolments.open(folder)
    _confirm_change(enrolments, {name: each for name, each in enrolments.sites().items() if name != site}, yes)
    return enrolments


def _confirm_change(enrolments: "Enrolments", sites: "Mapping[str, Enrolment]", yes: bool) -> None:
    """Says what becomes of a run under way if these sites are the members, and asks, where anything does."""
    from server.office.membership_change import describe_change
    from server.office.study_folder import StudyFolder

    lines = describe_change(StudyFolder(enrolments), enrolments.membership_of(sites))
    say(*lines)
    if lines and not yes:
        confirm("shall it be so?", "--yes")


def membership_lines(enrolments: "Enrolments") -> list[str]:
    """The membership that is proposed, or who is awaited."""
    if (membership := enrolments.membership()) is not None:
        proposed = enrolments.folder / "membership.json"
        return [
            f"membership {membership.membership_hash[:12]} of {', '.join(membership.sites)} is proposed in {proposed}",
            "next: server start --run, or systemctl enable --now csasn-coordinator as root, so that sites can fetch it;"
            " then every site approves it with client approve",
        ]
    if waiting := enrolments.waiting_for():
        return [f"still to enrol: {', '.join(waiting)}"]
    return ["no membership is proposed: fewer sites are left than the study needs"]


def _read_balancer(file: Path | None) -> bytes:
    try:
        return file.read_bytes() if file else b""
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {(error.strerror or 'error').lower()}", "check the path") from None


def _passphrase(file: Path | None, twice: bool = False) -> str:
    """The first line of `file`, or what is typed at the terminal."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"cannot read a passphrase from {file}", "check the path and its permissions") from None
    if not sys.stdin.isatty():
        raise ConfigurationError("the passphrase is missing, and standard input is no terminal", "give --passphrase-file FILE")
    passphrase = getpass.getpass("passphrase of the study's authority: ")
    if twice and getpass.getpass("once more: ") != passphrase:
        raise ConfigurationError("the two passphrases differ", "try again")
    return passphrase
