"""A site's commands before a run: keygen, enroll, install, approve, backup, restore."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.platform.command import Commands, add_command, confirm
from csasn.platform.plain_text import plain

if TYPE_CHECKING:
    from csasn.site import Site


def add_commands(commands: Commands) -> None:
    """Adds them to the command `client`."""
    keygen = add_command(
        commands,
        "keygen",
        _keygen,
        "make this site's keys",
        "Makes the site's identity and its node's key in the site file's folder keys (default: keys/ in state). Private halves\n"
        "are readable by their owner alone and never leave this machine. Keys that are there are never overwritten.",
        "client keygen --site centerA",
    )
    add_site_arguments(keygen)
    enroll = add_command(
        commands,
        "enroll",
        _enroll,
        "write a request to take part in a study",
        "Writes a file for the coordinator: the public halves of the keys, and the number of training cases. It holds no\n"
        "secret; read the fingerprint to the coordinator by telephone, so that nobody can put another in its place.",
        "client enroll --site centerA --study study.yaml",
    )
    add_site_arguments(enroll)
    enroll.add_argument("--study", type=Path, required=True, metavar="FILE", help="study.yaml, from the coordinator")
    enroll.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: NAME.request.json)")
    install = add_command(
        commands,
        "install",
        _install,
        "install the coordinator's kit",
        "Checks the kit and unpacks it into the site file's folder kit (default: kit/ in state).",
        "client install --site centerA centerA.kit.zip",
    )
    add_site_arguments(install)
    install.add_argument("kit", type=Path, metavar="KIT", help="the file NAME.kit.zip, from the coordinator")
    install.add_argument("--replace", action="store_true", help="take a kit of another authority than the one installed")
    _add_approve(commands)
    _add_copies(commands)


def add_site_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which site."""
    parser.add_argument("--site", required=True, metavar="NAME", help="the site, such as centerA")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="site file (default: sites/NAME.yaml, then /etc/csasn/NAME.yaml)"
    )


def _add_approve(commands: Commands) -> None:
    approve = add_command(
        commands,
        "approve",
        _approve,
        "read what the study may do and with whom, and sign it",
        "Shows in plain words what leaves this site, and the fingerprint of every other site: have each hospital read you its\n"
        "own. Nothing trains here before this is signed, and any change of the study or of its members asks again.",
        "client approve --site centerA --membership membership.json",
    )
    add_site_arguments(approve)
    approve.add_argument("--membership", type=Path, metavar="FILE", help="membership.json, from the coordinator")
    approve.add_argument("--yes", metavar="PREFIX", help="first 12 digits of the membership that you read, instead of the question")
    approve.add_argument(
        "--accept-difference",
        action="store_true",
        help="approve although the counts of a single hospital follow from sums of before and after, as is shown then",
    )


def _add_copies(commands: Commands) -> None:
    backup = add_command(
        commands,
        "backup",
        _backup,
        "copy this site's keys, kit and state into one file",
        "Writes FILE (a tar, mode 0600). What shows images of patients is left out: the image cache,\n"
        "fingerprint.png and report/. The private keys are in it, so keep it as you keep them.",
        "client backup --site centerA centerA-monday.tar",
    )
    add_site_arguments(backup)
    backup.add_argument(
        "file", type=Path, metavar="FILE", help="file to write; one that is there is replaced once the new one is whole"
    )
    restore = add_command(
        commands,
        "restore",
        _restore,
        "bring back what client backup wrote",
        "Unpacks FILE into the site file's folders, which have to be missing or empty.",
        "client restore --site centerA centerA-monday.tar",
    )
    add_site_arguments(restore)
    restore.add_argument("file", type=Path, metavar="FILE", help="a file that client backup wrote")


def _keygen(arguments: argparse.Namespace) -> None:
    from csasn.trust.identity import create_keys

    site = _site(arguments)
    public = create_keys(site.keys_folder)
    _say(
        f"keys of {site.site} are in {site.keys_folder}; the private halves never leave this machine",
        f"fingerprint: {public.fingerprint}",
        f"next: client enroll --site {site.site} --study study.yaml",
    )


def _enroll(arguments: argparse.Namespace) -> None:
    from client.trust.enrolment import request_enrolment
    from csasn.platform.storage import write_json
    from csasn.study import read_study

    site = _site(arguments)
    study = read_study(arguments.study)
    request = request_enrolment(site, study)
    out = arguments.out or Path(f"{site.site}.request.json")
    write_json(out, request.model_dump(mode="json"))
    asked = request.enrolment
    cases = "" if study.survey else f" and the number of training cases, {asked.num_training_cases}"
    _say(
        f"{out} holds public keys{cases}; send it to the coordinator",
        f"fingerprint, to be read to the coordinator by telephone: {asked.fingerprint}",
        f"next: client install --site {site.site} KIT, with the kit that comes back",
    )


def _install(arguments: argparse.Namespace) -> None:
    from client.trust.enrolment import install_kit
    from csasn import __version__
    from csasn.trust.certificates import certificate_fingerprint
    from csasn.trust.enrolment import AUTHORITY

    site = _site(arguments)
    kit = install_kit(site, arguments.kit, arguments.replace)
    _say(
        f"the kit of study {kit.study_hash[:12]} is in {site.kit_folder}; the coordinator is at {kit.address}",
        "fingerprint of its authority, to be compared with the coordinator by telephone:",
        f"  {certificate_fingerprint((site.kit_folder / AUTHORITY).read_bytes())}",
        *(
            [f"the coordinator runs version {kit.software_version}, here is {__version__}"]
            if kit.software_version != __version__
            else []
        ),
        f"next: client approve --site {site.site}, once the membership is proposed",
    )


def _approve(arguments: argparse.Namespace) -> None:
    from client.trust.approval import approve, check_prefix, obtain_membership, review
    from client.trust.coordinator_link import fetch_membership
    from client.trust.separability import check_differences, find_differences
    from csasn.trust.enrolment import read_kit

    site = _site(arguments)
    kit, study = read_kit(site.kit_folder)
    membership = obtain_membership(site, kit, arguments.membership, fetch_membership)
    _say(*review(site, study, membership), "")
    for difference in find_differences(site, membership):
        _say(f"  ! {difference.line}", "")
    check_differences(site, membership, accepted=arguments.accept_difference)
    if arguments.yes is None:
        confirm(f"does {site.site} take part in this, with these members?", "--yes PREFIX")
    else:
        check_prefix(membership, arguments.yes)
    approve(site, study, membership)
    _say(f"approved by {site.site}: {site.kit_folder / 'approval.json'}")


def _backup(arguments: argparse.Namespace) -> None:
    from client.trust.withdrawal import CACHE, PAGES
    from client.worker.kept import LEFT_OUT_OF_BACKUPS
    from csasn.platform.backup import write_backup

    site = _site(arguments)
    left_out = [Path(site.state) / name for name in (CACHE, *PAGES)]
    left_out += [path for name in LEFT_OUT_OF_BACKUPS for path in site.run_folder.glob(f"*/{name}")]
    num_files = write_backup(arguments.file, _folders(site), leave_out=left_out)
    _say(f"{num_files} files of {site.site} are in {arguments.file}")


def _restore(arguments: argparse.Namespace) -> None:
    from csasn.platform.backup import restore_backup

    site = _site(arguments)
    _say(f"{restore_backup(arguments.file, _folders(site))} files of {site.site} are back")


def _folders(site: "Site") -> dict[str, Path]:
    return {"state": Path(site.state), "keys": site.keys_folder, "kit": site.kit_folder}


def _site(arguments: argparse.Namespace) -> "Site":
    from csasn.site import find_site

    return find_site(arguments.site, arguments.config)


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(map(plain, lines)) + "\n")  # they may quote the coordinator
