"""The coordinator's commands before a run: init, enroll, revoke, renew, backup, restore."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.errors import ConfigurationError, TrustError
from csasn.platform.command import Commands, add_command, confirm

if TYPE_CHECKING:
    from server.office.enrolment import Enrolments

FOLDER = Path("coordinator")


def add_commands(commands: Commands) -> None:
    """Adds them to the command `server`."""
    _add_init(commands)
    _add_enroll(commands)
    revoke = add_command(
        commands,
        "revoke",
        _revoke,
        "accept a site's keys no longer",
        "For a site that leaves, or whose keys may be in other hands. Its keys are never accepted again, and the membership is\n"
        "proposed without it; every other site approves anew. It comes back with new keys: client keygen, client enroll, server\n"
        "enroll, and all approve.",
        "server revoke centerB",
    )
    revoke.add_argument("site", metavar="SITE", help="the site, such as centerB")
    add_folder(revoke)
    _add_renew(commands)
    backup = add_command(
        commands,
        "backup",
        _backup,
        "copy the coordinator's keys and state into one file",
        "Writes the whole folder to FILE (a tar, mode 0600). The authority's key stays under its passphrase; the server's key is\n"
        "open in it, so keep FILE as you keep the machine. Stop the coordinator first where a run is under way.",
        "server backup coordinator-monday.tar",
    )
    backup.add_argument(
        "file", type=Path, metavar="FILE", help="file to write; one that is there is replaced once the new one is whole"
    )
    add_folder(backup)
    restore = add_command(
        commands,
        "restore",
        _restore,
        "bring back what server backup wrote, here or on another machine",
        "Unpacks FILE into a folder that is missing or empty. On another machine, follow it with server renew --address.",
        "server restore coordinator-monday.tar\n  server renew --address new.example.org:9443",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="a file that server backup wrote")
    add_folder(restore)


def _add_init(commands: Commands) -> None:
    init = add_command(
        commands,
        "init",
        _init,
        "begin a study: its certificate authority, and this server's certificate",
        "Makes the coordinator's folder. A passphrase of 12 characters or more closes the authority's key; it is asked for now\n"
        "and at server renew, once a year, and cannot be recovered.",
        "server init study.yaml --address federation.example.org:9443",
    )
    init.add_argument("study", type=Path, metavar="STUDY", help="study.yaml")
    init.add_argument("--address", required=True, metavar="HOST:PORT", help="where the sites reach this server")
    init.add_argument(
        "--name", action="append", default=[], metavar="NAME_OR_IP", help="a further name of this server; may be repeated"
    )
    add_folder(init)
    _add_passphrase(init)


def _add_enroll(commands: Commands) -> None:
    enroll = add_command(
        commands,
        "enroll",
        _enroll,
        "take a site's request, and write its kit",
        "Shows the fingerprint of the site's key and asks whether the site reads you the same by telephone. After the last site\n"
        "the membership is proposed, which every site then approves.",
        "server enroll centerA.request.json",
    )
    enroll.add_argument("request", type=Path, metavar="REQUEST", help="the file that client enroll wrote")
    enroll.add_argument("--fingerprint", metavar="F", help="what the site read to you, instead of the question")
    enroll.add_argument("--replace", action="store_true", help="the site comes with new keys; its old ones are revoked")
    add_folder(enroll)


def _add_renew(commands: Commands) -> None:
    renew = add_command(
        commands,
        "renew",
        _renew,
        "renew the server's certificate, or move it to another address",
        "A certificate for another year, of the same authority: sites keep their kits. At a new address the kits in kits/ are\n"
        "written anew; a site installs its own, or sets coordinator: HOST:PORT in its site file.",
        "server renew",
    )
    renew.add_argument("--address", metavar="HOST:PORT", help="where the sites reach this server from now on (default: as before)")
    renew.add_argument(
        "--name", action="append", metavar="NAME_OR_IP", help="a further name of this server; may be repeated (default: as before)"
    )
    add_folder(renew)
    _add_passphrase(renew)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The argument that says which coordinator's folder."""
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help=f"the coordinator's folder (default: {FOLDER}/)")


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="take the passphrase from FILE's first line; else it is asked"
    )


def _init(arguments: argparse.Namespace) -> None:
    begin_study(arguments)


def begin_study(arguments: argparse.Namespace, *, survey: bool = False) -> None:
    """Makes the coordinator's folder of a study, or of the survey before it."""
    from csasn.study import read_study
    from csasn.trust.certificates import certificate_fingerprint, days_left
    from server.office.enrolment import AUTHORITY_CERTIFICATE, SERVER_CERTIFICATE, initialise

    read_study(arguments.study)  # before anything is asked
    folder, passphrase = arguments.folder, _passphrase(arguments.passphrase_file, twice=True)
    initialise(folder, arguments.study, arguments.address, arguments.name, passphrase, survey=survey)
    days = days_left((folder / SERVER_CERTIFICATE).read_bytes())
    _say(
        f"{folder} is made; its authority's fingerprint, for sites that ask:",
        f"  {certificate_fingerprint((folder / AUTHORITY_CERTIFICATE).read_bytes())}",
        f"the server's certificate ends in {days} days; keep the passphrase for then",
        f"next: send {folder / 'study.yaml'} to each site, which sends back a request; take it with server enroll REQUEST",
    )


def _enroll(arguments: argparse.Namespace) -> None:
    from csasn import __version__
    from csasn.trust.enrolment import read_request
    from csasn.trust.identity import same_fingerprint
    from server.office.enrolment import Enrolments

    request = read_request(arguments.request)
    enrolments = Enrolments.open(arguments.folder)
    enrolments.check(request, arguments.replace)
    asked = request.enrolment
    cases = " in a survey" if enrolments.study.survey else f" with {asked.num_training_cases} training cases"
    _say(
        f"{asked.site} asks to take part{cases}, software {asked.software_version}"
        + ("" if asked.software_version == __version__ else f" (here: {__version__}; have the site install that)"),
        f"fingerprint: {asked.fingerprint}",
    )
    if arguments.fingerprint is None:
        confirm(f"does {asked.site} read you this very fingerprint by telephone?", "--fingerprint F")
    elif not same_fingerprint(arguments.fingerprint, asked.fingerprint):
        raise TrustError(
            f"the fingerprint of the request is {asked.fingerprint}, given was {arguments.fingerprint[:60]}",
            f"this request is not what {asked.site} made, or the fingerprint was read wrongly: ask {asked.site}",
        )
    kit = enrolments.enroll(request, arguments.replace)
    _say(f"{asked.site} is enrolled; send it {kit}", *_membership_lines(enrolments))


def _revoke(arguments: argparse.Namespace) -> None:
    from server.office.enrolment import Enrolments

    enrolments = Enrolments.open(arguments.folder)
    enrolments.revoke(arguments.site)
    _say(f"the keys of {arguments.site} are accepted no longer", *_membership_lines(enrolments))


def _renew(arguments: argparse.Namespace) -> None:
    from csasn.trust.certificates import days_left
    from server.office.enrolment import SERVER_CERTIFICATE, Enrolments

    enrolments = Enrolments.open(arguments.folder)
    enrolments.renew(_passphrase(arguments.passphrase_file), arguments.address, arguments.name)
    days = days_left((arguments.folder / SERVER_CERTIFICATE).read_bytes())
    _say(f"the server's certificate ends in {days} days; a running coordinator takes it up by itself")
    if arguments.address:
        _say(f"the kits in {arguments.folder / 'kits'} name {arguments.address}; send them, or have sites set coordinator:")


def _backup(arguments: argparse.Namespace) -> None:
    from csasn.platform.backup import write_backup
    from server.office.enrolment import Enrolments

    Enrolments.open(arguments.folder)
    num_files = write_backup(arguments.file, {FOLDER.name: arguments.folder})
    _say(f"{num_files} files of {arguments.folder} are in {arguments.file}")


def _restore(arguments: argparse.Namespace) -> None:
    from csasn.platform.backup import restore_backup

    num_files = restore_backup(arguments.file, {FOLDER.name: arguments.folder})
    _say(f"{num_files} files are back in {arguments.folder}")


def _membership_lines(enrolments: "Enrolments") -> list[str]:
    if (membership := enrolments.membership()) is not None:
        proposed = enrolments.folder / "membership.json"
        return [
            f"membership {membership.membership_hash[:12]} of {', '.join(membership.sites)} is proposed in {proposed}",
            "next: every site approves it with client approve",
        ]
    if waiting := enrolments.waiting_for():
        return [f"still to enrol: {', '.join(waiting)}"]
    return ["no membership is proposed: fewer sites are left than the study needs"]


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


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
