"""A site's commands before a run: keygen, enroll, install, approve, backup, restore."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from csasn.platform.terminal import argument, confirm, option, say

if TYPE_CHECKING:
    from csasn.site import Site

SiteName = Annotated[str, option("--site NAME", "the site, such as centerA; in a further study NAME/STUDY")]
SiteFile = Annotated[Path | None, option("--config FILE", "site file (default: sites/NAME.yaml, then /etc/csasn/NAME.yaml)")]


def open_site(name: str, config: Path | None) -> "Site":
    """The site of that name, from its file."""
    from csasn.site import find_site

    return find_site(name, config)


def keygen(
    site: SiteName,
    node: Annotated[bool, option("--node", "renew the node's key alone, which opens the connection; the identity stays")] = False,
    config: SiteFile = None,
) -> None:
    """Make this site's keys.

    Makes the site's identity and its node's key in the site file's folder keys (default: keys/ in state). Private halves
    are readable by their owner alone and never leave this machine. Keys that are there are never overwritten; with --node the
    node's key is set aside, and a new one made: send the coordinator a request with it, which no other hospital has to approve.

    example:
      client keygen --site centerA
    """
    from csasn.trust.identity import create_keys, set_node_key_aside

    folder = open_site(site, config).keys_folder
    if node:
        say(f"the node's key of before is {set_node_key_aside(folder)}")
    public = create_keys(folder)
    say(
        f"keys of {site} are in {folder}; the private halves never leave this machine",
        f"fingerprint: {public.fingerprint}",
        f"next: client enroll --site {site} --study study.yaml",
    )


def enroll(
    site: SiteName,
    study: Annotated[Path, option("--study FILE", "study.yaml, from the coordinator")],
    out: Annotated[Path | None, option("--out FILE", "file to write (default: NAME.request.json)")] = None,
    join: Annotated[bool, option("--join", "the study does not name this site, which joins it")] = False,
    config: SiteFile = None,
) -> None:
    """Write a request to take part in a study.

    Writes a file for the coordinator: the public halves of the keys, and the number of training cases. It holds no
    secret; read the fingerprint to the coordinator by telephone, so that nobody can put another in its place.

    example:
      client enroll --site centerA --study study.yaml
    """
    from client.trust.enrolment import request_enrolment
    from csasn.platform.storage import write_json
    from csasn.study import read_study

    opened, wanted = open_site(site, config), read_study(study)
    request = request_enrolment(opened, wanted, join=join)
    out = out or Path(f"{site.replace('/', '-')}.request.json")
    write_json(out, request.model_dump(mode="json"))
    asked = request.enrolment
    cases = "" if wanted.survey else f" and the number of training cases, {asked.num_training_cases}"
    say(
        f"{out} holds public keys{cases}; send it to the coordinator",
        f"fingerprint, to be read to the coordinator by telephone: {asked.fingerprint}",
        f"next: client install --site {site} KIT, with the kit that comes back",
    )


def install(
    site: SiteName,
    kit: Annotated[Path, argument("KIT", "the file NAME.kit.zip, from the coordinator")],
    replace: Annotated[bool, option("--replace", "take a kit of another authority than the one installed")] = False,
    config: SiteFile = None,
) -> None:
    """Install the coordinator's kit.

    Checks the kit and unpacks it into the site file's folder kit (default: kit/ in state).

    example:
      client install --site centerA centerA.kit.zip
    """
    from client.trust.enrolment import install_kit
    from csasn import __version__
    from csasn.trust.certificates import certificate_fingerprint
    from csasn.trust.enrolment import AUTHORITY

    opened = open_site(site, config)
    there = install_kit(opened, kit, replace)
    say(
        f"the kit of study {there.study_hash[:12]} is in {opened.kit_folder}; the coordinator is at {there.address}",
        "fingerprint of its authority, to be compared with the coordinator by telephone:",
        f"  {certificate_fingerprint((opened.kit_folder / AUTHORITY).read_bytes())}",
    )
    if there.behind_balancer:
        say("that authority is of a balancer, which ends TLS before the coordinator: client approve says what it sees")
    if there.software_version != __version__:
        say(f"the coordinator runs version {there.software_version}, here is {__version__}")
    say(f"next: client approve --site {site}, once the membership is proposed")


def approve(
    site: SiteName,
    membership: Annotated[Path | None, option("--membership FILE", "membership.json, from the coordinator")] = None,
    yes: Annotated[
        str | None, option("--yes PREFIX", "first 12 digits of the membership that you read, instead of the question")
    ] = None,
    accept_difference: Annotated[
        bool,
        option(
            "--accept-difference",
            "approve although the counts of a single hospital follow from sums of before and after, as is shown then",
        ),
    ] = False,
    config: SiteFile = None,
) -> None:
    """Read what the study may do and with whom, and sign it.

    Shows in plain words what leaves this site, and the fingerprint of every other site: have each hospital read you its
    own. Nothing trains here before this is signed, and any change of the study or of its members asks again. The kit of a
    further study of the same coordinator, SITE/STUDY, is fetched; a service that runs takes the study up by itself.

    example:
      client approve --site centerA --membership membership.json
      client approve --site centerA/more-rounds
    """
    from client.trust import approval
    from client.trust.coordinator_link import fetch_membership
    from client.trust.enrolment import open_kit
    from client.trust.separability import check_differences, describe_difference, find_differences

    opened = open_site(site, config)
    kit, study = open_kit(opened)
    proposed = approval.obtain_membership(opened, kit, membership, fetch_membership)
    say(*approval.review(opened, study, proposed), "")
    for earlier, difference in find_differences(opened, proposed).items():
        say(f"  ! {describe_difference(earlier, difference)}", "")
    check_differences(opened, proposed, accepted=accept_difference)
    if yes is None:
        confirm(f"does {site} take part in this, with these members?", "--yes PREFIX")
    else:
        approval.check_prefix(proposed, yes)
    approval.approve(opened, study, proposed)
    say(
        f"approved by {site}: {opened.kit_folder / 'approval.json'}",
        f"next, if it does not run: systemctl enable --now csasn-client@{opened.site} as root, or client --site {opened.site} here",
    )


def backup(
    site: SiteName,
    file: Annotated[Path, argument("FILE", "file to write; one that is there is replaced once the new one is whole")],
    config: SiteFile = None,
) -> None:
    """Copy this site's keys, kit and state into one file.

    Writes FILE (a tar, mode 0600). What shows images of patients is left out: the image cache,
    fingerprint.png and report/. The private keys are in it, so keep it as you keep them.

    example:
      client backup --site centerA centerA-monday.tar
    """
    from client.trust.withdrawal import CACHE, PAGES
    from client.worker.kept import LEFT_OUT_OF_BACKUPS
    from csasn.platform.backup import write_backup

    opened = open_site(site, config)
    left_out = [Path(each.state) / name for each in opened.all_studies() for name in (CACHE, *PAGES)]
    left_out += [path for name in LEFT_OUT_OF_BACKUPS for folder in opened.run_folders for path in folder.glob(f"*/{name}")]
    say(f"{write_backup(file, _folders(opened), leave_out=left_out)} files of {site} are in {file}")


def restore(
    site: SiteName, file: Annotated[Path, argument("FILE", "a file that client backup wrote")], config: SiteFile = None
) -> None:
    """Bring back what client backup wrote.

    Unpacks FILE into the site file's folders, which have to be missing or empty.

    example:
      client restore --site centerA centerA-monday.tar
    """
    from csasn.platform.backup import restore_backup

    say(f"{restore_backup(file, _folders(open_site(site, config)))} files of {site} are back")


def _folders(site: "Site") -> dict[str, Path]:
    return {"state": Path(site.state), "keys": site.keys_folder, "kit": site.kit_folder}
